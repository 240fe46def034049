"""What the chapter says of MC dropout, and what follows, judged."""

from __future__ import annotations

from typing import Any

import numpy as np
from _chapter import DOES_NOT, HOLDS, OPEN, Claim
from _contrast import Contrast, contrast, together
from _uncertain_nets import MEMBERS

from fdnn import study

OFF, MC, MC_LOGITS = "dropout, off", "MC dropout", "MC dropout, logits"
NONE, ENSEMBLE, ENSEMBLE_OFF = "no dropout", "ensemble, no dropout", "ensemble, dropout off"
PREDICTORS = (OFF, MC, MC_LOGITS, NONE, ENSEMBLE, ENSEMBLE_OFF)
SCALED = ", scaled"
# The smallest differences that matter, chosen before any run.
ACCURACY, NLL, ECE = 0.002, 0.005, 0.005

Units = list[dict[str, Any]]


def by_unit(units: Units, predictor: str, score: str) -> Any:
    return np.array([unit["scores"][predictor][score] for unit in units])


def claims(found: dict[str, Units]) -> list[Claim]:
    """Judge what the chapter says of MC dropout, and what follows."""

    def above(a: str, b: str, score: str) -> dict[str, Contrast]:
        return {
            f"trained on {regime}": Contrast(
                a, by_unit(units, a, score), b, by_unit(units, b, score)
            )
            for regime, units in found.items()
        }

    return [
        contrast(
            "MC dropout makes a trained net more accurate. (Printed of Keras, one seed: .8717 "
            "against .8700.)",
            above(MC, OFF, "accuracy"),
            delta=ACCURACY,
        ),
        contrast(
            "Its probabilities are to be trusted more than those of the same net with dropout off "
            "(ECE off − MC).",
            above(OFF, MC, "ece"),
            delta=ECE,
            points=False,
        ),
        contrast(
            "They are better in all: their negative log-likelihood is lower (off − MC).",
            above(OFF, MC, "nll"),
            delta=NLL,
            points=False,
        ),
        contrast(
            "Average probabilities, never logits (NLL of averaged logits − of averaged "
            "probabilities).",
            above(MC_LOGITS, MC, "nll"),
            delta=NLL,
            points=False,
        ),
        rule(found),
        contrast(
            "Ours: MC dropout gives more than one temperature, at a hundredth of its cost, gives "
            "(NLL of the net with dropout off and scaled − of MC dropout).",
            above(OFF + SCALED, MC, "nll"),
            delta=NLL,
            points=False,
        ),
        contrast(
            "Ours: averaged probabilities beat averaged logits even if a temperature scales both "
            "(NLL, logits − probabilities).",
            above(MC_LOGITS + SCALED, MC + SCALED, "nll"),
            delta=NLL,
            points=False,
        ),
        contrast(
            f"Lakshminarayanan et al.: an ensemble of {MEMBERS} nets beats MC dropout (NLL, MC − "
            "ensemble without dropout).",
            above(MC, ENSEMBLE, "nll"),
            delta=NLL,
            points=False,
        ),
    ]


def rule(found: dict[str, Units]) -> Claim:
    """Judge whether the sign of confidence - accuracy tells which average is better."""
    said, verdicts, right, total = [], {}, 0, 0
    for regime, units in found.items():
        excess = np.array([unit["valid_excess"] for unit in units])
        gain = by_unit(units, MC_LOGITS, "nll") - by_unit(units, MC, "nll")
        right += int((np.sign(excess) == np.sign(gain)).sum())
        total += len(units)
        known = [study.summarize(x) for x in (excess, gain)]
        signs = [
            0 if one.t_interval[0] <= 0 <= one.t_interval[1] else np.sign(one.mean) for one in known
        ]
        when = f"trained on {regime}"
        verdicts[when] = OPEN if 0 in signs else HOLDS if signs[0] == signs[1] else DOES_NOT
        said.append(
            f"when {when}, confidence − accuracy "
            + ", NLL of logits − of probabilities ".join(
                f"{one.mean:+.4f} (95 % {one.t_interval[0]:+.4f} to {one.t_interval[1]:+.4f})"
                for one in known
            )
        )
    return Claim(
        "Ours: which average is better can be told beforehand, by the net with dropout off on the "
        "validation images: probabilities if its mean confidence is above its accuracy, else "
        "logits.",
        "; ".join(said) + f"; right in {right} of {total} units",
        together(verdicts),
    )
