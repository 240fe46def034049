"""The pictures show the numbers that they were given."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib
import numpy as np
import pytest
import torch

from fdnn import uncertainty

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

GENERATOR = torch.Generator().manual_seed(0)
PROBS = (2 * torch.randn(3, 60, 4, generator=GENERATOR)).softmax(-1)
TARGETS = torch.randint(4, (60,), generator=GENERATOR)


@pytest.fixture
def ax() -> Iterator[Axes]:
    yield pyplot.subplots()[1]
    pyplot.close("all")


def test_reliability_of_one_run(ax: Axes) -> None:
    found = uncertainty.reliability(PROBS[0], TARGETS, 5)
    assert uncertainty.plot_reliability(found, ax, label="one") is ax
    x, y = ax.lines[0].get_data()
    np.testing.assert_allclose(x, found.confidence, rtol=1e-6)
    np.testing.assert_allclose(y, found.accuracy, rtol=1e-6)
    heights = [bar.get_height() for bar in ax.patches]
    np.testing.assert_allclose(heights, found.counts / 60)
    assert not ax.collections
    assert ax.get_legend().get_texts()[0].get_text() == "one"


def test_reliability_of_lanes_is_that_of_all_examples(ax: Axes) -> None:
    lanes = torch.vmap(uncertainty.reliability, in_dims=(0, None))(PROBS, TARGETS)
    uncertainty.plot_reliability(lanes, ax)
    together = uncertainty.reliability(PROBS.flatten(0, 1), TARGETS.repeat(3))
    x, y = ax.lines[0].get_data()
    np.testing.assert_allclose(x, together.confidence, rtol=1e-5)
    np.testing.assert_allclose(y, together.accuracy, rtol=1e-5)
    assert len(ax.collections) == 1 and ax.get_legend() is None


def test_risk_coverage(ax: Axes) -> None:
    errors = (PROBS.argmax(-1) != TARGETS).float()
    uncertain = uncertainty.predictive_entropy(PROBS)
    one = uncertainty.risk_coverage(uncertain[0], errors[0])
    assert uncertainty.plot_risk_coverage(one, ax) is ax
    x, y = ax.lines[0].get_data()
    np.testing.assert_allclose(x, one.coverage, rtol=1e-6)
    np.testing.assert_allclose(y, one.risk, rtol=1e-6)
    lanes = torch.vmap(uncertainty.risk_coverage)(uncertain, errors)
    uncertainty.plot_risk_coverage(lanes, ax, label="three")
    np.testing.assert_allclose(ax.lines[1].get_ydata(), lanes.risk.median(0).values, rtol=1e-6)
    assert len(ax.collections) == 1


def test_entropies_share_their_bins(ax: Axes) -> None:
    near, far = torch.linspace(0, 1, 50), torch.linspace(1, 2, 30)
    assert uncertainty.plot_entropies({"in": near, "out": far}, ax, num_bins=4) is ax
    for patch in ax.patches:
        x = patch.get_xy()[:, 0]
        assert set(np.round(x, 6)) <= {0.0, 0.5, 1.0, 1.5, 2.0}
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["in", "out"]
    with pytest.raises(ValueError, match="`entropies` must have an entry"):
        uncertainty.plot_entropies({}, ax)
    with pytest.raises(ValueError, match="`num_bins`"):
        uncertainty.plot_entropies({"in": near}, ax, num_bins=0)


def test_probabilities_of_one_image(ax: Axes) -> None:
    members = PROBS[:, 0]
    assert uncertainty.plot_probabilities(members, ax, target=2, quantiles=(0.0, 1.0)) is ax
    heights = [bar.get_height() for bar in ax.patches]
    np.testing.assert_allclose(heights, members.mean(0), rtol=1e-6)
    assert [bar.get_fill() for bar in ax.patches] == [False, False, True, False]
    segments = np.array(ax.collections[0].get_segments())
    np.testing.assert_allclose(segments[:, 0, 1], members.amin(0), rtol=1e-6)
    np.testing.assert_allclose(segments[:, 1, 1], members.amax(0), rtol=1e-6)
    with pytest.raises(ValueError, match="`class_names` must be 4 names, got 1"):
        uncertainty.plot_probabilities(members, ax, class_names=["boot"])
    with pytest.raises(ValueError, match=r"`member_probs` must have shape \(samples, classes\)"):
        uncertainty.plot_probabilities(PROBS, ax)


def test_a_new_figure_without_axes() -> None:
    before = pyplot.get_fignums()
    curve = uncertainty.risk_coverage(torch.tensor([0.1, 0.2]), torch.tensor([0, 1]))
    assert uncertainty.plot_risk_coverage(curve).figure.number not in before
    pyplot.close("all")
