"""Greedy layer-wise training: one layer of an autoencoder after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from fdnn import random
from fdnn.losses import mse_loss
from fdnn.model import Model, functionalize
from fdnn.pretrain.autoencoder import Autoencoder
from fdnn.pretrain.noise import Perturbation
from fdnn.pretrain.reconstruction import reconstruction
from fdnn.train import TrainState, fit, make_step
from fdnn.train.step import Step
from fdnn.types import GradientTransformation

__all__ = ["greedy_layerwise"]


def greedy_layerwise(
    autoencoder: Autoencoder,
    tx: GradientTransformation,
    state: TrainState,
    data: Any,
    *,
    criterion: Callable[[Any, Any], Tensor] = mse_loss,
    corrupt: Perturbation | None = None,
    **options: Any,
) -> tuple[TrainState, list[dict[str, Tensor]]]:
    r"""Train an autoencoder stage by stage, from the input inwards, and put the stages together.

    With encoder stages $f_1, \dots, f_n$ and decoder stages $g_n, \dots, g_1$, the i-th training
    minimizes `criterion` between $g_i(f_i(c(h)))$ and $h = f_{i-1}(\dots f_1(x))$, where $c$ is
    `corrupt` and the stages below stay as they are, in eval mode. The result is the whole,
    $g_1(\dots g_n(f_n(\dots f_1(x))))$, to be reused, or trained on end to end from there:
    `train.fit(make_step(reconstruction(model), tx), state, ...)`.

    It is a pure function of the state, so of its key. Stage i has the key `fold_in(state.key, i)`.
    Ctrl-C ends the stage that is being trained; the next one begins.

    Args:
        autoencoder: the module; encoder and decoder are `nn.Sequential` of as many stages, that
            share no tensors. A stage of the decoder must give what its partner was given: end it
            with the activation of the stage before its partner.
        tx: the optimizer, which begins anew with every stage.
        state: `train.init(functionalize(autoencoder), tx, key)`, one run or many stacked; not
            changed.
        data: tensors or a loader, as in `train.fit`. The first of a batch is the inputs; labels are
            not looked at.
        criterion: as in `reconstruction`.
        corrupt: $c$, `corrupt(key, h)`, if the stages are denoising.
        **options: keywords of `train.fit`: `epochs`, of each stage; `batch_size`, `compile`, ....

    Returns:
        `(state, histories)`: the state of the whole, its optimizer at the start and its key and
        count those given; and the history of each stage.

    Raises:
        TypeError: encoder or decoder is no `nn.Sequential`.
        ValueError: they have not as many stages, stages share tensors, or `state` has not the
            tensors of `autoencoder`; or as `train.fit`.

    Example:
        >>> from fdnn import optim, train
        >>> net = Autoencoder(
        ...     nn.Sequential(nn.Sequential(nn.Linear(6, 4), nn.Tanh()), nn.Linear(4, 2)),
        ...     nn.Sequential(nn.Sequential(nn.Linear(2, 4), nn.Tanh()), nn.Linear(4, 6)),
        ... )
        >>> model, tx = functionalize(net), optim.adam(lr=0.01)
        >>> keys = random.split(random.key(0), 3)
        >>> runs = torch.vmap(lambda key: train.init(model, tx, key))(keys)
        >>> runs, histories = greedy_layerwise(
        ...     net, tx, runs, (torch.ones(8, 6),), epochs=2, compile=False, progress=False
        ... )
        >>> runs.params["encoder.1.weight"].shape, [h["loss"].shape for h in histories]
        (torch.Size([3, 2, 4]), [torch.Size([2, 3]), torch.Size([2, 3])])

    References:
        Bengio, Lamblin, Popovici, Larochelle (2007), "Greedy layer-wise training of deep networks";
        Hinton, Salakhutdinov (2006), "Reducing the dimensionality of data with neural networks",
        whose stages are restricted Boltzmann machines.
    """
    encoders, decoders = _stages(autoencoder, state)
    in_lanes = torch.vmap if state.count.ndim else lambda fn: fn
    values = {**state.params, **state.buffers}
    histories = []
    for i, encoder in enumerate(encoders):
        partner = len(encoders) - 1 - i
        model = functionalize(Autoencoder(encoder, decoders[partner]))
        below = functionalize(encoders[:i])
        places = {"encoder.": f"encoder.{i}.", "decoder.": f"decoder.{partner}."}
        whole = {n: places[n[:8]] + n[8:] for n in (*model.params, *model.buffers)}
        fixed = {f"{_BELOW}{n}": values[f"encoder.{n}"] for n in (*below.params, *below.buffers)}
        params = {n: values[whole[n]] for n in model.params}
        stage = state._replace(
            params=params,
            buffers={**{n: values[whole[n]] for n in model.buffers}, **fixed},
            opt_state=in_lanes(tx.init)(params),
            key=in_lanes(lambda key, i=i: random.fold_in(key, i))(state.key),
            count=torch.zeros_like(state.count),
            monitors={},
        )
        step = make_step(reconstruction(model, criterion, corrupt=corrupt), tx)
        stage, history = fit(_on_codes(below, step), stage, data, **options)
        trained = {**stage.params, **stage.buffers}
        values = {**values, **{place: trained[n] for n, place in whole.items()}}
        histories.append(history)
    params = {n: values[n] for n in state.params}
    buffers = {n: values[n] for n in state.buffers}
    return state._replace(
        params=params, buffers=buffers, opt_state=in_lanes(tx.init)(params)
    ), histories


_BELOW = "below."  # of the names, among the buffers of a stage, of what its inputs go through


def _on_codes(below: Model, inner: Step) -> Step:
    """Give a step what the stages below, which lie among the buffers, make of the inputs."""

    def step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Tensor]]:
        codes, _ = below.apply(
            {n: state.buffers[_BELOW + n] for n in below.params},
            {n: state.buffers[_BELOW + n] for n in below.buffers},
            batch[0],
        )
        own = {n: value for n, value in state.buffers.items() if not n.startswith(_BELOW)}
        moved, info = inner(state._replace(buffers=own), (codes,))
        return moved._replace(buffers={**state.buffers, **moved.buffers}), info

    step.total_steps = getattr(inner, "total_steps", None)  # type: ignore[attr-defined]
    return step


def _stages(autoencoder: Autoencoder, state: TrainState) -> tuple[nn.Sequential, nn.Sequential]:
    """Return both halves, if their stages can be trained one by one."""
    halves = autoencoder.encoder, autoencoder.decoder
    for name, half in zip(("encoder", "decoder"), halves, strict=True):
        if not isinstance(half, nn.Sequential):
            kind = type(half).__name__
            raise TypeError(f"`autoencoder`: the {name} must be an nn.Sequential, got {kind}")
    encoders, decoders = cast(tuple[nn.Sequential, nn.Sequential], halves)
    if not len(encoders) == len(decoders) > 0:
        raise ValueError(
            "`autoencoder` must have as many stages in the decoder as in the encoder, got "
            f"{len(decoders)} and {len(encoders)}"
        )
    owner: dict[int, int] = {}
    for i, encoder in enumerate(encoders):
        for module in (encoder, decoders[len(encoders) - 1 - i]):
            for name, tensor in (*module.named_parameters(), *module.named_buffers()):
                if owner.setdefault(id(tensor), i) != i:
                    raise ValueError(
                        f"`autoencoder`: stages must share no tensor, but {owner[id(tensor)]} and "
                        f"{i} share {name!r}"
                    )
    model = functionalize(autoencoder)
    expected, found = [*model.params, *model.buffers], [*state.params, *state.buffers]
    if set(expected) != set(found):
        raise ValueError(f"`state` must have the tensors {expected}, got {found}")
    return encoders, decoders
