"""Gradient noise."""

from __future__ import annotations

import math
import zlib
from typing import Any

import torch
from torch import Tensor

from fdnn import random, tree
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check
from fdnn.optim.core.part import Hyper, Notes, Part, widen
from fdnn.types import Key, ScalarOrSchedule, Tree

__all__ = ["add_noise"]


def add_noise(eta: ScalarOrSchedule, gamma: ScalarOrSchedule, key: Key) -> Chain:
    r"""Add normal noise that fades: $u' = u + \mathcal{N}(0, \eta / (1 + t)^\gamma)$.

    $t$ is the number of steps taken before. The noise of a leaf depends on the key, the step and
    the leaf's path alone: neither the order of the leaves nor the presence of others changes it.

    The key is the slot `key` of the state. Runs made from one key have the same noise, lanes of a
    vmapped run too; give each its own with
    `state._replace(slots={**state.slots, "key": random.split(key, lanes)})` on the stacked state,
    or by making the optimizer within `vmap` over keys.

    Args:
        eta: $\eta$, the variance at the first step: a number, a 0-d tensor, or a schedule.
        gamma: $\gamma$, how fast it fades; the paper has 0.55.
        key: the key of all steps.

    Raises:
        ValueError: `eta` or `gamma` is negative, or `key` is no key.

    Example:
        >>> tx = add_noise(eta=0.01, gamma=0.55, key=random.key(0))
        >>> grads = {"w": torch.zeros(3)}
        >>> tx.update(grads, tx.init(grads))[0]["w"].shape
        torch.Size([3])

    References:
        Neelakantan, Vilnis, Le, Sutskever, Kaiser, Kurach, Martens (2015), "Adding gradient noise
        improves learning for very deep networks". On complex numbers `eta` is the variance of the
        two parts together.
    """
    check(eta=(eta, 0.0, math.inf), gamma=(gamma, 0.0, math.inf))
    random.fold_in(key, 0)  # which says what is wrong with it

    def init(params: Tree) -> dict[str, Tree]:
        # With a parameter's help, so that under vmap every lane has a key of its own to change.
        like = next(iter(tree.leaves(params)), key)
        return {"key": like.new_zeros((), dtype=torch.int64) + key.to(like.device)}

    def update(
        updates: Tree,
        slots: dict[str, Tree],
        params: Tree,
        hyper: Hyper,
        count: Tensor,
        *,
        stored: Tree,
        **_: Any,
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        now = random.fold_in(slots["key"], count)
        size = torch.sqrt(hyper["eta"] / (count + 1) ** hyper["gamma"])

        def noisy(path: str, like: Tensor, u: Tensor) -> Tensor:
            dtype = like.dtype if like.is_complex() else widen(like).dtype
            noise = random.normal(random.fold_in(now, _number(path)), like.shape, dtype)
            drawn: Tensor = widen(noise)
            return u + drawn * size

        return tree.map_with_path(noisy, stored, updates), slots, {}

    hyperparams: dict[str, ScalarOrSchedule] = {"eta": eta, "gamma": gamma}
    return chain(Part("noise", init, update, hyperparams, slots=("key",)))


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _number(path: str) -> int:
    """The path's checksum, which is the same in every process, unlike Python's `hash`."""
    return zlib.crc32(path.encode())
