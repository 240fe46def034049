"""From a direction to an optimizer: the arguments that nearly all of torch's have in common."""

from __future__ import annotations

from fdnn.optim.blocks.decay import add_decayed_weights
from fdnn.optim.blocks.learning_rate import maximize as turn_around
from fdnn.optim.blocks.learning_rate import scale_by_learning_rate
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import is_zero
from fdnn.types import ScalarOrSchedule

__all__ = ["descent"]


def descent(
    direction: Chain,
    lr: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule = 0.0,
    *,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
) -> Chain:
    """Step along a direction.

    Args:
        direction: what turns gradients into directions.
        lr: learning rate.
        weight_decay: factor of an L2 penalty, or of a decoupled decay; with the number 0 the
            optimizer has no part for it.
        decoupled_weight_decay: let the decay act behind `direction` instead of before it.
        maximize: climb instead of descend.

    Raises:
        ValueError: a value is negative.

    Example:
        >>> from fdnn import optim
        >>> tx = descent(optim.scale_by_momentum(0.9), lr=0.1, weight_decay=0.01)
        >>> [part.name for part in tx.parts]
        ['decay', 'momentum', 'learning_rate']
    """
    decay = [] if is_zero(weight_decay) else [add_decayed_weights(weight_decay)]
    return chain(
        *([turn_around()] if maximize else []),
        *([] if decoupled_weight_decay else decay),
        direction,
        *(decay if decoupled_weight_decay else []),
        scale_by_learning_rate(lr),
    )
