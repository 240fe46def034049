"""Schedule-free stochastic gradient descent."""

from __future__ import annotations

from fdnn.optim.core.chain import Chain
from fdnn.optim.schedule_free import schedule_free
from fdnn.optim.sgd import sgd
from fdnn.types import Scalar, ScalarOrSchedule

__all__ = ["schedule_free_sgd"]


def schedule_free_sgd(
    lr: ScalarOrSchedule = 1.0,
    momentum: Scalar = 0.9,
    weight_decay: ScalarOrSchedule = 0.0,
    warmup_steps: ScalarOrSchedule = 0,
    r: ScalarOrSchedule = 0.0,
    weight_lr_power: ScalarOrSchedule = 2.0,
) -> Chain:
    r"""Schedule-free SGD: the `schedulefree` package's SGDScheduleFree.

    $z$ takes plain gradient steps, $x$ averages them, and the parameters are $y = (1 - \beta) z +
    \beta x$; see `schedule_free` for where to evaluate. It wants a learning rate 10 to 50 times
    that of SGD with momentum.

    Args:
        lr: learning rate: a number, a 0-d tensor, or a schedule that only rises.
        momentum: $\beta$, how near to the average gradients are taken, in (0, 1). It is the
            hyperparameter `beta` of the state.
        weight_decay: factor of an L2 penalty at $y$, added to the gradient.
        warmup_steps: steps in which the learning rate grows linearly.
        r: power of the step's number in the weights of the average.
        weight_lr_power: power of the learning rate in the weights of the average.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> import torch
        >>> from fdnn import optim
        >>> tx = schedule_free_sgd(lr=0.5, warmup_steps=5)
        >>> params = {"w": torch.ones(1)}
        >>> params, state = optim.step(tx, params, {"w": torch.ones(1)}, tx.init(params))
        >>> params, optim.schedule_free_eval_params(state, params)
        ({'w': tensor([0.9000])}, {'w': tensor([0.9000])})

    References:
        Defazio et al. (2024), "The road less scheduled".
    """
    return schedule_free(
        sgd(lr, weight_decay=weight_decay), momentum, warmup_steps, r, weight_lr_power
    )
