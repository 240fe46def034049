"""Masked tokens: what is chosen, what stands in its place, and the loss on it."""

from __future__ import annotations

import functools
import math
from collections import OrderedDict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_close, assert_equal
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn, vmap

from fdnn import Model, functionalize, optim, pretrain, random, train, transfer, tree
from fdnn.nn import TokenEncoder

GATE = 5.0  # standard errors
PADDING, MASK, WORDS = 0, 3, 12  # the mask among the others, so that draws must go around it
OPTIONS: dict[str, Any] = {"mask_token": MASK, "num_tokens": WORDS, "ignore": (PADDING, 5)}
mask = functools.partial(pretrain.mask_tokens, **OPTIONS)


def draw_tokens(seed: int, *shape: int) -> Tensor:
    return random.randint(random.key(seed), shape, 0, WORDS, torch.int64)


def language_model(dropout: float = 0.1, outputs: int = WORDS) -> Model:
    encoder = TokenEncoder(
        WORDS, 8, 2, 1, max_length=7, dropout=dropout, padding_idx=PADDING, dtype=torch.float64
    )
    output = nn.Linear(8, outputs, dtype=torch.float64)
    return functionalize(nn.Sequential(OrderedDict(encoder=encoder, output=output)))


def assert_share(found: Tensor, share: float) -> None:
    error = math.sqrt(share * (1 - share) / found.numel())
    assert abs(found.double().mean().item() - share) < GATE * error


def test_rates() -> None:
    """Of each hundred tokens 15 are chosen, of which 80 % are masked, 10 % random, 10 % kept."""
    tokens = draw_tokens(0, 300, 1000)
    corrupted, chosen = mask(random.key(1), tokens)
    eligible = (tokens != PADDING) & (tokens != 5)
    assert_share(chosen[eligible], 0.15)
    before, after = tokens[chosen], corrupted[chosen]
    words = before != MASK  # of a mask one cannot tell whether it was masked
    assert_share((after == MASK)[words], 0.8)
    # One of nine random words is the one that was there.
    assert_share((after == before)[words], 0.1 + 0.1 / 9)
    drawn = after[words & (after != before) & (after != MASK)]
    counts = torch.bincount(drawn, minlength=WORDS)
    assert_equal(counts.nonzero()[:, 0], torch.tensor([1, 2, 4, 6, 7, 8, 9, 10, 11]))
    for word in counts.nonzero()[:, 0]:
        assert_share(drawn == word, 1 / 9)


def test_sequences_and_places_are_independent() -> None:
    chosen = mask(random.key(2), torch.full((20_000, 2, 2), 7), rate=0.5)[1].flatten(1).double()
    correlations = torch.corrcoef(chosen.T) - torch.eye(4)
    assert correlations.abs().max() < GATE / math.sqrt(len(chosen))


@pytest.mark.parametrize(
    ("shares", "becomes"), [((0, 0), MASK), ((1, 0), 7), ((0, 1), None)], ids=str
)
def test_extremes(shares: tuple[float, float], becomes: int | None) -> None:
    keep, replace = shares
    tokens = torch.full((50,), 7)
    corrupted, chosen = mask(random.key(3), tokens, rate=1, keep=keep, replace=replace)
    assert chosen.all()
    if becomes is None:
        assert len(corrupted.unique()) > 4 and not (corrupted == MASK).any()
    else:
        assert (corrupted == becomes).all()
    corrupted, chosen = mask(random.key(3), tokens, rate=0, keep=keep, replace=replace)
    assert not chosen.any() and torch.equal(corrupted, tokens)


@given(
    shape=st.lists(st.integers(0, 5), max_size=3),
    seed=st.integers(0, 2**32 - 1),
    rate=st.floats(0, 1),
    keep=st.floats(0, 1),
    dtype=st.sampled_from([torch.int16, torch.int32, torch.int64]),
)
def test_what_is_not_chosen_stays(
    shape: list[int], seed: int, rate: float, keep: float, dtype: torch.dtype
) -> None:
    tokens = draw_tokens(seed % 7, *shape).to(dtype)
    corrupted, chosen = mask(random.key(seed), tokens, rate=rate, keep=keep, replace=1 - keep)
    assert corrupted.shape == chosen.shape == tokens.shape
    assert corrupted.dtype == dtype and chosen.dtype == torch.bool
    assert torch.equal(corrupted[~chosen], tokens[~chosen])
    assert not ((tokens == PADDING) | (tokens == 5))[chosen].any()
    assert ((corrupted >= 0) & (corrupted < WORDS)).all()


def test_rates_that_are_tensors_are_numbers_and_lanes() -> None:
    tokens = draw_tokens(4, 40)
    rates = torch.tensor([0.0, 0.3, 1.0])

    def corrupt(rate: Any) -> Any:
        return mask(random.key(5), tokens, rate=rate, keep=rate / 3, replace=rate / 2)

    assert_equal(vmap(corrupt)(rates), tree.stack([corrupt(rate) for rate in rates.tolist()]))


def test_one_token_to_ignore() -> None:
    tokens = draw_tokens(4, 40)
    options = {"mask_token": MASK, "num_tokens": WORDS, "rate": 0.5}
    one, several = (
        pretrain.mask_tokens(random.key(0), tokens, ignore=ignore, **options)
        for ignore in (2, [2, 2])
    )
    assert_equal(one, several)
    with_mask = pretrain.mask_tokens(random.key(0), tokens, ignore=MASK, **options)
    assert not with_mask[1][tokens == MASK].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 1.2}, r"`rate` must be in \[0, 1\], got 1.2"),
        ({"keep": -0.1}, r"`keep` must be in \[0, 1\], got -0.1"),
        ({"replace": 2}, r"`replace` must be in \[0, 1\], got 2"),
        ({"keep": 0.7, "replace": 0.5}, r"`keep \+ replace` must be at most 1, got 0.7 \+ 0.5"),
        ({"mask_token": 12}, r"`mask_token` must be in \[0, 12\), got 12"),
        ({"ignore": (0, -1)}, r"`ignore` must be in \[0, 12\), got -1"),
        ({"num_tokens": 2, "mask_token": 1, "ignore": 0}, "`num_tokens` must be above 2.*got 2"),
    ],
    ids=str,
)
def test_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mask(random.key(0), draw_tokens(0, 3), **options)
    with pytest.raises(ValueError, match=message):
        pretrain.masked_tokens(language_model(), **{**OPTIONS, **options})


def test_what_is_no_token() -> None:
    for dtype in (torch.float32, torch.bool, torch.complex64):
        with pytest.raises(TypeError, match=f"`tokens` must be integers, got {dtype}"):
            mask(random.key(0), torch.zeros(3, dtype=dtype))


def test_loss_is_torchs_cross_entropy_of_the_chosen() -> None:
    model, tokens, key = language_model(dropout=0.3), draw_tokens(6, 5, 7), random.key(8)
    params, buffers = model.init(random.key(0))
    loss = pretrain.masked_tokens(model, rate=0.4, **OPTIONS)
    grads, (value, _) = torch.func.grad_and_value(loss, has_aux=True)(
        params, buffers, (tokens, "labels"), key
    )

    key_mask, key_apply = random.split(key)
    corrupted, chosen = mask(key_mask, tokens, rate=0.4)
    targets = tokens.clone()
    targets[~chosen] = -100
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in params.items()}
    logits, _ = model.apply(leaves, buffers, corrupted, key=key_apply, train=True)
    total, count = torch.zeros((), dtype=torch.float64), 0
    for sequence, wanted in zip(logits, targets, strict=True):
        asked = int((wanted != -100).sum())
        if asked:
            total = total + asked * F.cross_entropy(sequence, wanted, ignore_index=-100)
        count += asked
    assert count > 5
    expected = torch.autograd.grad(total / count, list(leaves.values()))
    torch.testing.assert_close(value, (total / count).detach(), rtol=1e-12, atol=0)
    assert_close(grads, dict(zip(params, expected, strict=True)), rtol=1e-9, atol=1e-12)


def test_nothing_chosen_costs_nothing() -> None:
    model = language_model()
    loss = pretrain.masked_tokens(model, **OPTIONS)
    nothing = torch.full((2, 7), PADDING)
    grads, (value, _) = torch.func.grad_and_value(loss, has_aux=True)(
        model.params, model.buffers, (nothing,), random.key(0)
    )
    assert value == 0
    assert_equal(grads, tree.zeros_like(model.params))


def test_key_decides() -> None:
    model, batch = language_model(dropout=0.0), (draw_tokens(6, 5, 7),)
    loss = pretrain.masked_tokens(model, **OPTIONS)
    one, same, other = (
        loss(model.params, model.buffers, batch, random.key(seed))[0] for seed in (1, 1, 2)
    )
    assert one == same != other


def test_output_of_another_shape() -> None:
    model = language_model(outputs=WORDS + 1)
    loss = pretrain.masked_tokens(model, **OPTIONS)
    with pytest.raises(ValueError, match=r"`model`.*\(2, 7, 12\), got \(2, 7, 13\)"):
        loss(model.params, model.buffers, (draw_tokens(0, 2, 7),), random.key(0))


def test_lanes_are_solo_runs() -> None:
    model, tokens, tx = language_model(), draw_tokens(6, 10, 7), optim.adam(1e-2)
    step = train.make_step(pretrain.masked_tokens(model, **OPTIONS), tx)

    def run(state: Any) -> Any:
        return train.fit(
            step, state, (tokens,), epochs=2, batch_size=5, compile=False, progress=False
        )

    def start(key: Tensor) -> Any:
        return train.init(model, tx, key)

    keys = random.split(random.key(0), 2)
    states, histories = zip(*(run(start(key)) for key in keys), strict=True)
    lanes, history = run(vmap(start)(keys))
    assert_close(lanes, tree.stack(list(states)), rtol=1e-7, atol=1e-9)
    losses = torch.stack([found["loss"] for found in histories], 1)
    torch.testing.assert_close(history["loss"], losses, rtol=1e-9, atol=1e-12)


def test_it_learns_what_can_be_learned_and_hands_it_on() -> None:
    """Each token of a sequence is the one before it plus 1, so any neighbour tells it."""
    start = random.randint(random.key(1), (400, 1), 0, 8, torch.int64)
    tokens = 4 + (start + torch.arange(6)) % 8
    model, tx = language_model(dropout=0.0), optim.adam(2e-2)
    loss = pretrain.masked_tokens(model, mask_token=1, num_tokens=WORDS, ignore=PADDING)
    step, state = train.make_step(loss, tx), train.init(model, tx, random.key(2))
    state, history = train.fit(
        step, state, (tokens,), epochs=30, batch_size=50, compile=False, progress=False
    )
    # A random token tells nothing, but the loss is far below that of the best constant guess.
    assert history["loss"][-1] < 0.4 * math.log(8)
    classifier = transfer.replace_head(model, 2)
    params, _, report = transfer.reuse(state.params, into=classifier, key=random.key(3))
    assert report.reinitialized.keys() == {"output.weight", "output.bias"}
    assert torch.equal(params["encoder.token.weight"], state.params["encoder.token.weight"])
