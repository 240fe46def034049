"""LAMB: Adam whose steps are as long as the parameters that they change."""

from __future__ import annotations

from fdnn.optim.adam import Betas, scale_by_adam
from fdnn.optim.blocks.decay import add_decayed_weights
from fdnn.optim.blocks.learning_rate import maximize as turn_around
from fdnn.optim.blocks.learning_rate import scale_by_learning_rate
from fdnn.optim.blocks.trust_ratio import scale_by_trust_ratio
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import is_zero
from fdnn.types import ScalarOrSchedule

__all__ = ["lamb"]


def lamb(
    lr: ScalarOrSchedule = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: ScalarOrSchedule = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    *,
    maximize: bool = False,
) -> Chain:
    r"""LAMB: Adam's direction with weight decay, scaled leaf by leaf to the parameter's length.

    With Adam's direction $r_t = \hat m_t / (\sqrt{\hat v_t} + \epsilon)$ and $d_t = r_t + \lambda
    \theta_{t-1}$, each leaf moves by $-\text{lr} \, d_t \lVert \theta_{t-1} \rVert / \lVert d_t
    \rVert$: by the share `lr` of its own length. Where a norm is 0, by $-\text{lr} \, d_t$. Made
    for large batches.

    Biases and normalization layers are usually given neither decay nor trust ratio: see
    `partition`.

    Args:
        lr: learning rate: a number, a 0-d tensor, or a schedule.
        betas: forgetting factors of the mean and the mean square, each in [0, 1).
        eps: $\epsilon$, added to the root of the mean square.
        weight_decay: $\lambda$, how much of the parameter is added to Adam's direction.
        maximize: climb instead of descend.

    Raises:
        ValueError: a value outside its range, or `update` is called without `params`.

    Example:
        >>> import torch
        >>> from fdnn import optim
        >>> tx = lamb(lr=0.1)
        >>> params = {"w": torch.tensor([3.0, 4.0])}
        >>> optim.step(tx, params, {"w": torch.tensor([0.0, 7.0])}, tx.init(params))[0]
        {'w': tensor([3.0000, 3.5000])}

    References:
        You et al. (2020), "Large batch optimization for deep learning: training BERT in 76
        minutes". As in its algorithm 2, the moments are bias-corrected, and as in optax, $\phi$ is
        the identity. Implementations after the paper's third version (pytorch-optimizer's among
        them) correct no bias and clip $\lVert \theta \rVert$ at 10.
    """
    return chain(
        *([turn_around()] if maximize else []),
        scale_by_adam(betas, eps),
        *([] if is_zero(weight_decay) else [add_decayed_weights(weight_decay)]),
        scale_by_trust_ratio(),
        scale_by_learning_rate(lr),
    )
