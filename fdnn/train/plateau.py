"""A plateau schedule, fed by the run it belongs to."""

from __future__ import annotations

from fdnn import optim, tree
from fdnn.schedules.plateau import Plateau, PlateauState
from fdnn.train.monitor import Monitor, Row, number
from fdnn.train.state import TrainState

__all__ = ["plateau"]


def plateau(metric: str, schedule: Plateau, *, hyperparam: str = "step_size") -> Monitor:
    """Feed a number of the history to a plateau schedule, and its factor to the optimizer.

    The factor becomes the step size of an `optim.scale` in the optimizer, so it multiplies whatever
    rate there is: a schedule of the rate goes on beneath it, and neither erases the other.

    Args:
        metric: the name of a number in the history, such as `"valid_loss"`.
        schedule: from `schedules.reduce_on_plateau`.
        hyperparam: the step size's name, if the optimizer has several.

    Returns:
        A monitor for `fit`, whose memory is the schedule's `PlateauState`.

    Raises:
        ValueError: `hyperparam` is no step size; or, after the first epoch, the history has no
            such number.
        KeyError: the optimizer has no such hyperparameter: write
            `optim.chain(tx, optim.scale(1.0))`.

    Example:
        >>> from fdnn import optim, schedules
        >>> tx = optim.chain(optim.sgd(lr=0.05), optim.scale(1.0))
        >>> monitors = {"plateau": plateau("valid_loss", schedules.reduce_on_plateau(patience=2))}
    """
    if hyperparam.split(".")[-1] != "step_size":
        raise ValueError(f"`hyperparam` must be the `step_size` of a scale, got {hyperparam!r}")

    def init(state: TrainState) -> PlateauState:
        _set(state, 1.0)  # raises where a mistake can still be told from a long run
        start: PlateauState = tree.map(lambda leaf: leaf.to(state.count.device), schedule.init())
        return start

    def update(
        memory: PlateauState, state: TrainState, numbers: Row
    ) -> tuple[PlateauState, TrainState]:
        memory, factor = schedule.update(memory, number(numbers, metric))
        return memory, _set(state, factor)

    def _set(state: TrainState, factor: object) -> TrainState:
        try:
            changed = optim.set_hyperparams(state.opt_state, **{hyperparam: factor})  # type: ignore[arg-type]
        except KeyError as error:
            raise KeyError(
                f"the optimizer has no {hyperparam!r} for `plateau` to set; write "
                "`optim.chain(tx, optim.scale(1.0))`"
            ) from error
        return state._replace(opt_state=changed)

    return Monitor(init, update)
