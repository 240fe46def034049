"""Parts of a model under other names."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fdnn import functionalize, random, transfer


def test_the_innermost_part_counts() -> None:
    match = transfer.rename({"": "all", "body": "encoder", "body.1": "other.0"})
    assert match("head.weight") == "all.head.weight"
    assert match("body.0.weight") == "encoder.0.weight"
    assert match("body.1.weight") == "other.0.weight"
    assert match("body.10.weight") == "encoder.10.weight"


def test_a_part_is_whole_steps_of_a_name() -> None:
    match = transfer.rename({"body": "", "weight": "kernel"})
    assert match("body.weight") == "weight"
    assert match("body_2.weight") is None
    assert match("weight") == "kernel"


def test_there_must_be_a_part() -> None:
    with pytest.raises(ValueError, match="`parts` must name at least one part, got none"):
        transfer.rename({})


def test_reuse_of_a_renamed_part() -> None:
    source = functionalize(nn.ModuleDict({"encoder": nn.Linear(3, 2), "decoder": nn.Linear(2, 3)}))
    into = functionalize(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1)))
    params, _, report = transfer.reuse(
        source.params, into, key=random.key(0), match=transfer.rename({"0": "encoder"})
    )
    assert report.reused == ("0.weight", "0.bias")
    assert torch.equal(params["0.weight"], source.params["encoder.weight"])
