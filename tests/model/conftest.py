"""The modules on which `functionalize` is proved, each with inputs and what it draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fdnn import random


@dataclass(frozen=True)
class Case:
    """A module, and how it is called.

    Attributes:
        make: builds the module; its argument is the probability of every dropout in it.
        inputs: positional arguments of `forward`.
        kwargs: keyword arguments of `forward`.
        stochastic: whether train mode draws.
        noisy_train: whether train mode draws even if that probability is 0.
        noisy_eval: whether eval mode draws too.
    """

    make: Callable[[float], nn.Module]
    inputs: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    stochastic: bool = True
    noisy_train: bool = False
    noisy_eval: bool = False


class TiedLanguageModel(nn.Module):
    """An embedding whose table is the output head too."""

    def __init__(self, p: float):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.dropout = nn.Dropout(p)
        self.hidden = nn.Linear(6, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.tanh(self.hidden(self.dropout(self.embedding(tokens)))))


class Siamese(nn.Module):
    """The same layers under two names, used on two inputs."""

    def __init__(self, p: float):
        super().__init__()
        self.left = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(p))
        self.right = self.left

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) - self.right(2 * x)


class Noisy(nn.Module):
    """Adds noise by `torch.randn_like`, in eval mode as well."""

    def __init__(self, p: float):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y + 0.1 * torch.randn_like(y)


class SeveralInputs(nn.Module):
    """Two inputs, a keyword, and an output that is a pytree."""

    def __init__(self, p: float):
        super().__init__()
        self.left = nn.Linear(4, 3)
        self.right = nn.Linear(5, 3)
        self.p = p

    def forward(self, a: Tensor, b: Tensor, *, scale: float = 1.0) -> dict[str, Any]:
        y = F.dropout(self.left(a) + scale * self.right(b), self.p, self.training)
        return {"sum": y, "parts": (y.relu(), [y.sin()])}


class Gumbel(nn.Module):
    """Draws by `F.gumbel_softmax`, a Python function of torch with a draw inside."""

    def __init__(self, p: float):
        super().__init__()
        self.linear = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return F.gumbel_softmax(self.linear(x), tau=0.7)


class Recurrent(nn.Module):
    """A recurrent layer and a head."""

    def __init__(self, cell: type[nn.RNNBase], p: float, **options: Any):
        super().__init__()
        self.cell = cell(4, 3, num_layers=2, dropout=p, **options)

    def forward(self, x: Tensor) -> Any:
        return self.cell(x)


class Attention(nn.Module):
    """Self-attention that also returns its weights, or not."""

    def __init__(self, p: float, need_weights: bool):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, dropout=p, batch_first=True)
        self.need_weights = need_weights

    def forward(self, x: Tensor) -> Any:
        output, weights = self.attention(x, x, x, need_weights=self.need_weights)
        return (output, weights) if self.need_weights else output


def draw(*shape: int) -> Tensor:
    return random.normal(random.key(7), shape)


TOKENS = random.randint(random.key(8), (3, 5), 0, 11, torch.int64)

CASES = {
    "mlp with dropout": Case(
        lambda p: nn.Sequential(
            nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Dropout(p), nn.Linear(8, 3)
        ),
        (draw(6, 4),),
    ),
    "alpha dropout": Case(
        lambda p: nn.Sequential(nn.Linear(4, 8), nn.SELU(), nn.AlphaDropout(p), nn.Linear(8, 3)),
        (draw(6, 4),),
    ),
    "feature alpha dropout": Case(
        lambda p: nn.Sequential(nn.Conv1d(2, 4, 2), nn.SELU(), nn.FeatureAlphaDropout(p)),
        (draw(3, 2, 5),),
    ),
    "batch norm 1d": Case(
        lambda p: nn.Sequential(
            nn.Linear(4, 8, bias=False),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Dropout(p),
            nn.Linear(8, 3),
        ),
        (draw(6, 4),),
    ),
    "cnn with batch norm 2d": Case(
        lambda p: nn.Sequential(
            nn.Conv2d(1, 4, 3, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Dropout2d(p),
            nn.Flatten(),
            nn.Linear(36, 3),
        ),
        (draw(5, 1, 8, 8),),
    ),
    "layer norm": Case(
        lambda p: nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(), nn.Dropout(p)),
        (draw(6, 4),),
    ),
    "group norm": Case(
        lambda p: nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Dropout2d(p)),
        (draw(3, 2, 5, 5),),
    ),
    "tied embedding": Case(TiedLanguageModel, (TOKENS,)),
    "shared layers": Case(Siamese, (draw(6, 4),)),
    "lstm": Case(lambda p: Recurrent(nn.LSTM, p, bidirectional=True), (draw(5, 2, 4),)),
    "lstm with projection": Case(
        lambda p: Recurrent(nn.LSTM, p, batch_first=True, proj_size=2), (draw(2, 5, 4),)
    ),
    "gru": Case(lambda p: Recurrent(nn.GRU, p, batch_first=True), (draw(2, 5, 4),)),
    "rnn": Case(lambda p: Recurrent(nn.RNN, p, bias=False, nonlinearity="relu"), (draw(5, 4),)),
    "attention": Case(lambda p: Attention(p, need_weights=False), (draw(2, 4, 8),)),
    "attention with weights": Case(lambda p: Attention(p, need_weights=True), (draw(2, 4, 8),)),
    "transformer encoder layer": Case(
        lambda p: nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, dropout=p, batch_first=True),
        (draw(2, 4, 8),),
        {"src_key_padding_mask": torch.arange(4) >= torch.tensor([[4], [3]])},
    ),
    "attention that drops nothing": Case(
        lambda p: nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, dropout=0, batch_first=True),
        (draw(2, 4, 8),),
        {"src_key_padding_mask": torch.arange(4) >= torch.tensor([[4], [3]])},
        stochastic=False,
    ),
    "randn_like in forward": Case(Noisy, (draw(6, 4),), noisy_train=True, noisy_eval=True),
    "gumbel softmax": Case(Gumbel, (draw(6, 4),), noisy_train=True, noisy_eval=True),
    "rrelu": Case(
        lambda p: nn.Sequential(nn.Linear(4, 8), nn.RReLU(), nn.Dropout(p)),
        (draw(6, 4),),
        noisy_train=True,
    ),
    "several inputs": Case(SeveralInputs, (draw(6, 4), draw(6, 5)), {"scale": 0.5}),
    "nothing random": Case(lambda p: nn.Linear(4, 3), (draw(6, 4),), stochastic=False),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(
    params=[c for c in CASES.values() if c.stochastic],
    ids=[n for n, c in CASES.items() if c.stochastic],
)
def stochastic(request: pytest.FixtureRequest) -> Case:
    return request.param
