"""D4 to D6, D12 to D14, D16 and D17: what arithmetic, names and shapes settle."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from _finding import BY_READING, NOT_CONFIRMED, Finding, decide
from torch import Tensor, nn, vmap
from torch.utils.data import DataLoader, TensorDataset

from fdnn import activations, functionalize, initializers, inspect, losses, optim, random, train

DOUBLE = torch.float64


def findings() -> Iterator[Finding]:
    """Check them in turn."""
    yield from (penalty(), swiglu(), name_filter(), selu())
    yield from (reads_global(), loose_ends(), loader(), norms())


def batch_norm_net() -> nn.Sequential:
    """Build the chapter's 784-300-100-10 with batch norm on the inputs and before activations."""
    layers: list[nn.Module] = [nn.Flatten(), nn.BatchNorm1d(784)]
    for inputs, outputs in ((784, 300), (300, 100)):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.BatchNorm1d(outputs)]
    return nn.Sequential(*layers, nn.Linear(100, 10))


def penalty(factor: float = 0.01) -> Finding:
    """D4: trajectories of torch.optim.SGD under penalties and under weight decay."""
    x, y = (random.normal(random.key(i), shape, DOUBLE) for i, shape in enumerate([(16, 4), (16,)]))

    def walk(momentum: float, weight_decay: float, added: Callable[[Tensor], Tensor]) -> Tensor:
        w = torch.linspace(-1, 1, 4, dtype=DOUBLE).requires_grad_()
        sgd = torch.optim.SGD([w], lr=0.1, momentum=momentum, weight_decay=weight_decay)
        places = []
        for _ in range(50):
            sgd.zero_grad()
            (F.mse_loss(x @ w, y) + added(w)).backward()
            sgd.step()
            places.append(w.detach().clone())
        return torch.stack(places)

    gaps = []
    for wd, added in (
        (factor, lambda w: factor * w.square().sum()),
        (2 * factor, lambda w: factor * w.square().sum()),
        (factor, lambda w: factor * losses.l2_penalty({"w": w})),
    ):
        walks = [(walk(mu, wd, lambda w: w.sum() * 0), walk(mu, 0.0, added)) for mu in (0.0, 0.9)]
        gaps.append(max((a - b).abs().max().item() for a, b in walks))
    return Finding(
        "D4. The penalty λ Σw² of the ℓ2 cell is not `weight_decay=λ`, as it is taken to be: its "
        "gradient is 2 λ w.",
        "50 steps of `torch.optim.SGD` in float64, momentum 0 and 0.9, λ = 0.01: largest gap "
        "between the parameters.",
        f"λ Σw² against decay λ: {gaps[0]:.1e}; against decay 2 λ: {gaps[1]:.0e}; "
        f"λ `losses.l2_penalty` (½ Σw²) against decay λ: {gaps[2]:.0e}.",
        decide(gaps[0] > 1e-4 and max(gaps[1:]) < 1e-12),
    )


def swiglu(beta: float = 0.2) -> Finding:
    """D5: two forms of SwiGLU."""
    z = random.normal(random.key(0), (1000, 80), DOUBLE)
    z1, z2 = z.chunk(2, -1)
    as_noted, as_built = F.silu(beta * z1) * z2, z1 * torch.sigmoid(beta * z1) * z2
    ratio = as_noted / as_built
    gap = (activations.swiglu(z, beta) - as_built).abs().max().item()
    return Finding(
        "D5. SwiGLU is written in two ways that differ by the factor β: `silu(β z1) z2` in the "
        "notes, `z1 σ(β z1) z2` in the notebook.",
        "Their ratio on 40,000 numbers in float64, β = 0.2; `activations.swiglu` is the second.",
        f"ratio {ratio.min():.12f} to {ratio.max():.12f}; gap of fdnn to the second {gap:.0e}.",
        decide((ratio - beta).abs().max() < 1e-12 and gap < 1e-12),
    )


def name_filter() -> Finding:
    """D6: what a filter on names leaves to decay."""
    net = batch_norm_net()
    named = dict(net.named_parameters())
    decayed = {name for name in named if "bias" not in name and "bn" not in name}
    scales = {f"{i}.weight" for i, layer in enumerate(net) if isinstance(layer, nn.BatchNorm1d)}
    by_shape = {name for name, leaf in named.items() if leaf.ndim > 1}
    by_type = set(optim.names_by_type(net, nn.BatchNorm1d))
    return Finding(
        'D6. To spare batch norms, weight decay leaves out names that hold "bn". In an '
        "`nn.Sequential` no name does: their scales are decayed all the same.",
        "The filter on the names of 784-300-100-10 with batch norm; a choice by shape, by type.",
        f"the filter keeps {', '.join(sorted(decayed))}, of which {', '.join(sorted(scales))} are "
        f"batch norm's; by shape: {', '.join(sorted(by_shape))}; `optim.names_by_type` finds all "
        f"{len(by_type)} parameters of the norms.",
        decide(scales <= decayed and not scales & by_shape and scales <= by_type),
    )


def selu(depth: int = 1000, width: int = 100) -> Finding:
    """D12: the signal after 1,000 layers of SELU."""
    x = random.normal(random.key(0), (500, width))
    std = {}
    for name, weight in (("He", initializers.he_uniform()), ("LeCun", initializers.lecun_normal())):
        signal = x
        for key in random.split(random.key(1), depth):
            signal = activations.selu(signal @ weight(key, (width, width)).T)
        std[name] = signal.std().item()
    return Finding(
        "D12. The cells on SELU initialize by `kaiming_uniform_`; SELU keeps its signal only under "
        "LeCun's.",
        f"Standard deviation after {depth:,} layers of {width} units, standard normal inputs.",
        f"He {std['He']:.1e}, LeCun {std['LeCun']:.2f}.",
        decide(not std["He"] < 1e6 and 0.5 < std["LeCun"] < 2),
    )


def reads_global() -> Finding:
    """D13: a function that looks at a global, and one that cannot."""
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    model = functionalize(net)
    params, buffers = model.init(random.key(0))
    one, other = (random.normal(random.key(i), (5, 4)) for i in (1, 2))
    notebook = {"X_new": one}

    def as_written(x: Tensor) -> Tensor:
        return model.apply(params, buffers, notebook["X_new"])[0]

    def pure(x: Tensor, key: Tensor) -> Tensor:
        keys = random.split(key, 100)
        return vmap(lambda k: model.apply(params, buffers, x, key=k, train=True)[0])(keys).mean(0)

    blind = torch.equal(as_written(one), as_written(other))
    before = pure(one, random.key(3))
    torch.manual_seed(1)
    notebook["X_new"] = other
    same = torch.equal(before, pure(one, random.key(3)))
    differs = not torch.equal(before, pure(other, random.key(3)))
    return Finding(
        "D13. `mean_prediction(model, X, n)` uses the notebook's `X_new` and not `X`; "
        "`test_optimizer` does not use its `batch_size`.",
        "The notebook's code by reading. What follows: a function of ours with the first mistake; "
        "and MC dropout as a pure function of parameters, inputs and key, called before and after "
        "globals and torch's generator were changed.",
        f"with the mistake, two inputs give the same bits: {yes(blind)}. Pure: the same call gives "
        f"the same bits: {yes(same)}; another input another result: {yes(differs)}.",
        BY_READING if blind and same and differs else NOT_CONFIRMED,
    )


def loose_ends() -> Finding:
    """D14: pieces of the notes that cannot run, or not well."""
    x, target = random.normal(random.key(0), (64, 8)), random.normal(random.key(1), (64, 1))
    ends_in_relu = functionalize(
        nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 1), nn.ReLU())
    )
    report = inspect.check(ends_in_relu, batch=(x, target), criterion=F.mse_loss)
    found = any(one.mistake == "output activation" for one in report)
    unreachable = (target < 0).double().mean().item()
    try:
        losses.mse_loss(torch.zeros(32, 10), torch.zeros(32))
        message = ""
    except (ValueError, RuntimeError) as refused:
        message = str(refused).split(";")[0]
    net = [784 * 100 + 100, 100 * 100 + 100, 100 * 100 + 100, 100 + 1]
    return Finding(
        "D14. The notes lack `apply_max_norm`, measure multiclass accuracy beside an MSE loss, end "
        "a regression in ReLU, and unfreeze all layers where the notebook leaves the first frozen.",
        "The texts by reading. What follows: `inspect.check` on a regression that ends in ReLU; "
        "MSE of 10 logits and class numbers; parameters that train after either unfreezing.",
        f"“output activation” found: {yes(found)}, {unreachable:.0%} of standardized targets are "
        f"out of reach; MSE: “{message}”; {sum(net):,} parameters against {sum(net[1:]):,}.",
        decide(found and message),
    )


def loader() -> Finding:
    """D16: the order of batches in torch's loader, and in a run of fdnn."""
    numbers = TensorDataset(torch.arange(512))

    def epochs(shuffle: bool) -> list[Tensor]:
        loads = DataLoader(
            numbers, 128, shuffle=shuffle, generator=torch.Generator().manual_seed(0)
        )
        return [torch.cat([batch for (batch,) in loads]) for _ in range(2)]

    fixed, shuffled = (torch.equal(*epochs(shuffle)) for shuffle in (False, True))
    ours = torch.equal(*(train.epoch_order(random.key(0), epoch, 512) for epoch in range(2)))
    return Finding(
        "D16. The exercise's loaders do not shuffle; its step 5 changes NAdam to SGD together with "
        "SELU; its step 6 leaves MC dropout out; prose and log disagree (43 % and 4 s, 38.0 % and "
        "12.8 s).",
        "The loader: `DataLoader` as it is without `shuffle`, two epochs. The rest by reading; the "
        "steps one by one: `examples/chapter/h10_recipe.py`.",
        f"two epochs in the same order: {yes(fixed)} (with `shuffle=True`: {yes(shuffled)}; "
        f"`train.epoch_order`: {yes(ours)}).",
        decide(fixed and not shuffled and not ours),
    )


def norms() -> Finding:
    """D17: a norm over dim 1 of parameters that have one dimension."""
    net = batch_norm_net()
    weights = {name: p for name, p in net.named_parameters() if not name.endswith("bias")}
    failed = []
    for name, weight in weights.items():
        try:
            torch.linalg.vector_norm(weight, dim=1)
        except IndexError:
            failed.append(name)
    params = dict(net.named_parameters())
    tx = optim.max_norm(2.0)
    updates, _ = tx.update({n: p * 99 for n, p in params.items()}, tx.init(params), params)
    kept = all(torch.equal(updates[name], params[name] * 99) for name in failed)
    return Finding(
        "D17. `apply_max_norm(dim=1)` raises IndexError for a net with batch norm, whose scales "
        "have one dimension.",
        "A norm over `dim=1` of every weight of 784-300-100-10 with batch norm; and "
        "`optim.max_norm`, which takes leaves of two dimensions or more.",
        f"IndexError for {', '.join(failed)} of {len(weights)} weights; `optim.max_norm` leaves "
        f"these alone: {yes(kept)}.",
        decide(failed and kept),
    )


def yes(is_so: bool) -> str:
    return "yes" if is_so else "no"
