"""`peak_bytes` against closed forms; a study's tasks, watched, stay within their budget."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fdnn import functionalize, metrics, optim, random, study, train, tree
from fdnn.study.memory import available_memory, peak_bytes, sizes, tree_bytes
from fdnn.study.task import Lanes, begin, run_task

N = 1000  # float32: 4000 bytes


def chain(x: Tensor) -> Tensor:
    for _ in range(5):
        x = x + 1
    return x


def all_kept(x: Tensor) -> list[Tensor]:
    return [x + i for i in range(5)]


def views(x: Tensor) -> Tensor:
    return x.view(10, 100).t()[3:].unsqueeze(0).expand(7, 97, 10)


def in_place(x: Tensor) -> Tensor:
    y = x + 1
    return y.mul_(2).add_(x).relu_()


def in_place_on_the_argument(x: Tensor) -> Tensor:
    return x.mul_(2)


def freed(x: Tensor) -> Tensor:
    y = torch.cat([x] * 8)
    total = y.sum()
    del y
    return total + torch.cat([x] * 3).sum()


def view_keeps(x: Tensor) -> Tensor:
    """A view of one number keeps all 8 parts, besides which two more are made."""
    first = torch.cat([x] * 8)[:1]
    return first + torch.cat([x] * 2)


def made_from_nothing(x: Tensor) -> Tensor:
    return torch.zeros(N, dtype=torch.float64)


def backward(x: Tensor) -> Tensor:
    """`exp` keeps its result, which the gradient is a product with: 1, 1, and the sum's ones."""
    (gradient,) = torch.autograd.grad(x.requires_grad_().exp().sum(), x)
    return gradient


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (chain, 2 * 4 * N),
        (all_kept, 5 * 4 * N),
        (views, 0),
        (in_place, 4 * N),
        (in_place_on_the_argument, 0),
        (freed, 8 * 4 * N + 4),
        (view_keeps, (8 + 2 + 2) * 4 * N),
        (made_from_nothing, 8 * N),
        (backward, 2 * 4 * N + 4),
    ],
)
def test_closed_forms(fn: Callable[[Tensor], Any], expected: int) -> None:
    # A sum or two more may be alive: numbers of 4 bytes.
    assert expected <= peak_bytes(fn, torch.ones(N)) <= expected + 8


def test_closures_count_nothing() -> None:
    """Data that a step looks up was there before."""
    data = torch.ones(10 * N)
    assert peak_bytes(lambda: data[1:].view(-1, 3)) == 0
    assert peak_bytes(lambda: data[torch.arange(5)]) == 5 * 8 + 5 * 4


@given(st.lists(st.tuples(st.sampled_from("nvfi"), st.integers(1, 50)), max_size=12))
def test_any_program(program: list[tuple[str, int]]) -> None:
    """New tensors, views, in-place changes and frees, against a simulation."""

    def run() -> None:
        alive: list[Tensor] = []
        for what, size in program:
            if what == "n":
                alive.append(torch.zeros(size))
            elif alive and what == "v":
                alive.append(alive[size % len(alive)][None])
            elif alive and what == "i":
                alive[size % len(alive)].add_(1)
            elif alive and what == "f":
                del alive[size % len(alive)]

    live: list[int] = []  # names of storages, one for each tensor
    nbytes: dict[int, int] = {}
    names, peak = itertools.count(), 0
    for what, size in program:
        if what == "n":
            live.append(next(names))
            nbytes[live[-1]] = 4 * size
        elif live and what == "v":
            live.append(live[size % len(live)])
        elif live and what == "f":
            del live[size % len(live)]
        peak = max(peak, sum(nbytes[name] for name in set(live)))
    assert peak_bytes(run) == peak


def mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("lanes", [1, 2, 8])
@pytest.mark.parametrize(("tx", "slots"), [(optim.sgd(lr=0.1), 0), (optim.adam(), 2)])
def test_a_step_takes_state_gradients_and_activations(tx: Any, slots: int, lanes: int) -> None:
    """The new parameters and slots, the gradients and the activations, within 15 %."""
    widths, batch = [100, 50, 50, 10], 32
    model = functionalize(mlp(*widths))
    x = random.normal(random.key(1), (200, 100))
    data = x, torch.arange(200) % 10
    step = train.make_step(train.supervised(model, F.cross_entropy), tx)
    keys = random.split(random.key(0), lanes)
    states = tree.map(torch.clone, torch.vmap(lambda key: train.init(model, tx, key))(keys))
    index = torch.arange(batch).repeat(lanes, 1)
    run = torch.vmap(lambda state, i: step(state, (x[i], data[1][i])))
    parameters = 4 * lanes * sum(a * b + b for a, b in itertools.pairwise(widths))
    # The batch, what goes into each ReLU and what comes out, and the logits.
    activations = 4 * lanes * batch * (widths[0] + 2 * sum(widths[1:-1]) + widths[-1])
    expected = (1 + slots) * parameters + parameters + activations
    assert 0.95 * expected < peak_bytes(run, states, index) < 1.15 * expected


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: mlp(20, 30, 3), (20,)),
    "norm": (
        lambda: nn.Sequential(
            nn.Linear(20, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Dropout(0.2), nn.Linear(30, 3)
        ),
        (20,),
    ),
    "conv": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3),
            nn.ReLU(), nn.Flatten(), nn.Linear(16, 3),
        ),
        (1, 8, 8),
    ),
}  # fmt: skip


def experiment(
    net: str, tx: str = "adam", stopping: bool = False, batch_size: int = 16
) -> study.Experiment:
    module, shape = NETS[net]
    model = functionalize(module())
    x = random.normal(random.key(1), (64, *shape))
    data = x, torch.arange(64) % 3
    stop = {"stop": train.early_stopping("valid_loss", patience=2)} if stopping else {}
    return study.training(
        model,
        train.supervised(model, F.cross_entropy),
        getattr(optim, tx)(lr=0.01),
        data,
        epochs=2,
        batch_size=batch_size,
        evaluate=train.evaluator(model, {"loss": metrics.cross_entropy()}, valid=data),
        monitors=stop,
    )


def lanes_of(count: int) -> Lanes:
    return Lanes(list(range(count)), [{}] * count)


@pytest.mark.parametrize("tx", ["sgd", "adam"])
@pytest.mark.parametrize("net", list(NETS))
def test_the_chunk_chosen_stays_within_the_budget(net: str, tx: str) -> None:
    """Its step alone, and the task as a whole: order of the data, epochs, monitors, evaluation."""
    arm = experiment(net, tx, stopping=True)
    with pytest.raises(ValueError, match="`memory`") as refused:
        sizes(arm, lanes_of(1), "auto", 0)
    least = int(str(refused.value).split("at least ")[1].split()[0])
    x, y = arm.data
    chunks = []
    for memory in (least, int(3.7 * least), 12 * least):
        chunk, together = sizes(arm, lanes_of(50), "auto", memory)
        chunks.append(chunk)
        assert 1 <= chunk <= together
        states = begin(arm, lanes_of(chunk))
        index = torch.arange(16).repeat(chunk, 1)
        step = torch.vmap(lambda state, i: arm.step(state, (x[i], y[i])))
        assert tree_bytes(states) + peak_bytes(step, states, index) <= memory
        options: dict[str, Any] = {"jit": False, "folder": None, "progress": False}
        run = lambda: run_task(arm, lanes_of(together), chunk_size=chunk, **options)  # noqa: E731, B023
        assert peak_bytes(run) <= memory
    assert chunks[0] == 1
    assert chunks[0] < chunks[1] < chunks[2]


def test_evaluation_counts() -> None:
    """A large test set, not cut into batches."""
    arm = experiment("mlp")
    arm = arm._replace(evaluate=lambda state: {"x": torch.zeros(*state.count.shape, 10**6).sum(-1)})
    assert sizes(arm, lanes_of(50), "auto", 10**7)[0] == 2


def test_at_most_64_at_once_and_what_is_asked_for() -> None:
    arm = experiment("mlp")
    assert sizes(arm, lanes_of(64), "auto", 10**10)[0] == 64
    assert sizes(arm, lanes_of(200), "auto", 10**10)[0] == 50  # four chunks of one size
    assert sizes(arm, lanes_of(200), 100, 10**10)[0] == 100
    assert sizes(arm, lanes_of(20), 100, 10**10)[0] == 20


def test_a_step_stays_within_the_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """What evaluation takes does not count: it comes once an epoch."""
    arm = experiment("mlp")
    arm = arm._replace(evaluate=lambda state: {"x": torch.zeros(*state.count.shape, 10**6).sum(-1)})
    index = torch.arange(16)[None]
    states = begin(arm, lanes_of(1))
    step = torch.vmap(lambda state, i: arm.step(state, tuple(part[i] for part in arm.data)))
    lane = tree_bytes(states) + peak_bytes(step, states, index)
    monkeypatch.setattr("fdnn.study.memory._WORKING_SET", 8 * lane)
    assert 4 <= sizes(arm, lanes_of(64), "auto", 10**10)[0] <= 8
    assert sizes(arm, lanes_of(64), 20, 10**10)[0] == 20
    monkeypatch.setattr("fdnn.study.memory._WORKING_SET", lane // 2)
    assert sizes(arm, lanes_of(64), "auto", 10**10)[0] == 1


def test_workers_share_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fdnn.study.memory.available_memory", lambda device: 40 * 2**20)
    arm = experiment("mlp")
    assert sizes(arm, lanes_of(1), 1, None, 4) == sizes(arm, lanes_of(1), 1, 5 * 2**20)


def test_available_memory_is_a_number_of_bytes() -> None:
    with open("/proc/meminfo") as file:
        total = int(file.readline().split()[1]) * 1024
    assert 2**20 < available_memory(torch.device("cpu")) <= total


def test_tree_bytes() -> None:
    assert tree_bytes({"a": torch.ones(3), "b": [torch.ones(2, 2).double()]}) == 12 + 32
