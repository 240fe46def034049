"""Adam with decoupled weight decay."""

from __future__ import annotations

from fdnn.optim.adam import Betas, scale_by_adam
from fdnn.optim.blocks.decay import add_decayed_weights
from fdnn.optim.blocks.learning_rate import maximize as turn_around
from fdnn.optim.blocks.learning_rate import scale_by_learning_rate
from fdnn.optim.core.chain import Chain, chain
from fdnn.types import ScalarOrSchedule

__all__ = ["adamw"]


def adamw(
    lr: ScalarOrSchedule = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-2,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
) -> Chain:
    """AdamW: torch.optim.AdamW's arguments, defaults and trajectory.

    The decay acts on the parameters themselves, scaled by the learning rate but not by Adam's
    denominator, and always shrinks, `maximize` or not.

    Args:
        lr: learning rate: a number, a 0-d tensor, or a schedule.
        betas: forgetting factors of the mean and the mean square, each in [0, 1).
        eps: added to the root of the mean square.
        weight_decay: share of a parameter that a step of learning rate 1 would remove.
        amsgrad: use the largest mean square so far.
        maximize: climb instead of descend.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> import torch
        >>> from fdnn import optim
        >>> tx = adamw(lr=0.1, weight_decay=0.5)
        >>> params = {"w": torch.ones(1)}
        >>> optim.step(tx, params, {"w": torch.zeros(1)}, tx.init(params))[0]
        {'w': tensor([0.9500])}

    References:
        Loshchilov, Hutter (2019), "Decoupled weight decay regularization".
    """
    return chain(
        *([turn_around()] if maximize else []),
        scale_by_adam(betas, eps, amsgrad),
        add_decayed_weights(weight_decay),
        scale_by_learning_rate(lr),
    )
