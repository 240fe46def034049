"""What is said of uncertainty under shift, judged."""

from __future__ import annotations

from typing import Any

import numpy as np
from _chapter import Claim
from _contrast import Contrast, contrast
from _mc_dropout_findings import ENSEMBLE, MC, NONE, OFF, SCALED, Units
from _shift import ANGLES, NOISES, angle_name, noise_name
from _uncertain_nets import MEMBERS

PREDICTORS = (OFF, OFF + SCALED, MC, NONE, NONE + SCALED, ENSEMBLE)
PLAIN = [angle_name(0)]
SHIFTS = {
    "images are rotated": [angle_name(angle) for angle in ANGLES[1:]],
    "pixels are noisy": [noise_name(sd) for sd in NOISES],
}
SETS = {"images are as in training": PLAIN} | SHIFTS
# The smallest differences that matter, chosen before any run.
BRIER, ECE, AUROC = 0.01, 0.01, 0.01


def mean_of(units: Units, sets: list[str], predictor: str, score: str) -> Any:
    """Average a score over some sets, unit by unit."""
    return np.array(
        [np.mean([unit["scores"][name][predictor][score] for name in sets]) for unit in units]
    )


def by_uncertainty(units: Units, predictor: str, kind: str) -> Any:
    return np.array([unit["auroc"][predictor][kind] for unit in units])


def claims(units: Units) -> list[Claim]:
    """Judge what is said of uncertainty under shift."""

    def above(a: str, b: str, score: str, *, plain: bool = False) -> dict[str, Contrast]:
        sets = SETS if plain else SHIFTS
        return {
            when: Contrast(a, mean_of(units, names, a, score), b, mean_of(units, names, b, score))
            for when, names in sets.items()
        }

    def foreign_by(a: str, kind_a: str, b: str, kind_b: str) -> Contrast:
        return Contrast(
            f"{a} by {kind_a}",
            by_uncertainty(units, a, kind_a),
            f"{b} by {kind_b}",
            by_uncertainty(units, b, kind_b),
        )

    rises = {
        when: Contrast(
            "shifted",
            mean_of(units, names, NONE, "ece"),
            "not",
            mean_of(units, PLAIN, NONE, "ece"),
        )
        for when, names in SHIFTS.items()
    }
    brier = {"delta": BRIER, "points": False}
    ece = {"delta": ECE, "points": False}
    return [
        contrast(
            "Calibration gets worse under shift (ECE of the net without dropout).", rises, **ece
        ),
        contrast(
            "MC dropout's probabilities are to be trusted more than those of the same net with "
            "dropout off (ECE, off − MC).",
            above(OFF, MC, "ece", plain=True),
            **ece,
        ),
        contrast(
            f"An ensemble of {MEMBERS} predicts better than one net (Brier score, one − ensemble).",
            above(NONE, ENSEMBLE, "brier", plain=True),
            **brier,
        ),
        contrast(
            "And better than MC dropout (Brier score, MC − ensemble).",
            above(MC, ENSEMBLE, "brier", plain=True),
            **brier,
        ),
        contrast(
            "A temperature fitted without shift improves calibration (ECE of the net without "
            "dropout, as it is − scaled).",
            above(NONE, NONE + SCALED, "ece", plain=True),
            **ece,
        ),
        contrast(
            "Under shift an ensemble is better calibrated than one net with a temperature (ECE, "
            "scaled − ensemble).",
            above(NONE + SCALED, ENSEMBLE, "ece"),
            **ece,
        ),
        contrast(
            "An average of predictions tells foreign images better than one net (AUROC by "
            "predictive entropy).",
            {
                "it is MC dropout": foreign_by(MC, "entropy", OFF, "entropy"),
                "it is an ensemble": foreign_by(ENSEMBLE, "entropy", NONE, "entropy"),
            },
            delta=AUROC,
        ),
        contrast(
            "Mutual information, what the predictions disagree on, tells them better than the "
            "entropy of their average (AUROC).",
            {
                f"it is {name}": foreign_by(one, "mutual information", one, "entropy")
                for name, one in (("MC dropout", MC), ("an ensemble", ENSEMBLE))
            },
            delta=AUROC,
        ),
    ]
