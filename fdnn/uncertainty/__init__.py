"""Predictions that know what they do not know.

Every method has one shape: a method returns stacked raw outputs `(samples, batch, *out)`, a
predictive turns them into a distribution, and scores are functions of its probabilities and the
targets.
"""

from fdnn.uncertainty.calibration import (
    Reliability,
    adaptive_calibration_error,
    classwise_calibration_error,
    expected_calibration_error,
    reliability,
)
from fdnn.uncertainty.conformal import (
    aps_scores,
    aps_sets,
    conformal_quantile,
    lac_scores,
    lac_sets,
    residual_interval,
    residual_scores,
    set_coverage,
)
from fdnn.uncertainty.ensemble import (
    deep_ensemble,
    linearized_ensemble,
    regroup,
)
from fdnn.uncertainty.laplace import (
    LaplaceFit,
    LaplacePosterior,
    laplace_fit,
    laplace_posterior,
    laplace_sample,
)
from fdnn.uncertainty.laplace_evidence import (
    log_marginal_likelihood,
    maximize_marginal_likelihood,
)
from fdnn.uncertainty.laplace_predictive import (
    center_logits,
    laplace_predictive,
    probit,
)
from fdnn.uncertainty.mc_dropout import (
    mc_dropout,
)
from fdnn.uncertainty.model_precision import (
    model_precision,
    predictive_log_likelihood,
)
from fdnn.uncertainty.moments import (
    Moments,
)
from fdnn.uncertainty.plotting import (
    plot_entropies,
    plot_probabilities,
    plot_reliability,
    plot_risk_coverage,
)
from fdnn.uncertainty.predictive import (
    Categorical,
    Gaussian,
    categorical,
    gaussian,
)
from fdnn.uncertainty.proper_scores import (
    brier_score,
    nll,
    sharpness,
)
from fdnn.uncertainty.ranking import (
    auroc,
    average_precision,
)
from fdnn.uncertainty.regression import (
    Interval,
    coverage,
    gaussian_crps,
    gaussian_interval,
    gaussian_nll,
    interval_width,
)
from fdnn.uncertainty.scores import (
    expected_entropy,
    max_probability,
    mutual_information,
    predictive_entropy,
    predictive_std,
    variation_ratio,
)
from fdnn.uncertainty.selective import (
    RiskCoverage,
    aurc,
    excess_aurc,
    risk_coverage,
)
from fdnn.uncertainty.snapshots import (
    Snapshots,
    snapshots,
)
from fdnn.uncertainty.streaming import (
    Stream,
    categorical_stream,
    gaussian_stream,
    streamed,
)
from fdnn.uncertainty.swag import (
    SwagState,
    swag,
    swag_init,
    swag_sample,
    swag_update,
)
from fdnn.uncertainty.temperature import (
    VectorScaling,
    apply_temperature,
    apply_vector_scaling,
    temperature_scaling,
    vector_scaling,
)

__all__ = [
    "Categorical",
    "Gaussian",
    "Interval",
    "LaplaceFit",
    "LaplacePosterior",
    "Moments",
    "Reliability",
    "RiskCoverage",
    "Snapshots",
    "Stream",
    "SwagState",
    "VectorScaling",
    "adaptive_calibration_error",
    "apply_temperature",
    "apply_vector_scaling",
    "aps_scores",
    "aps_sets",
    "aurc",
    "auroc",
    "average_precision",
    "brier_score",
    "categorical",
    "categorical_stream",
    "center_logits",
    "classwise_calibration_error",
    "conformal_quantile",
    "coverage",
    "deep_ensemble",
    "excess_aurc",
    "expected_calibration_error",
    "expected_entropy",
    "gaussian",
    "gaussian_crps",
    "gaussian_interval",
    "gaussian_nll",
    "gaussian_stream",
    "interval_width",
    "lac_scores",
    "lac_sets",
    "laplace_fit",
    "laplace_posterior",
    "laplace_predictive",
    "laplace_sample",
    "linearized_ensemble",
    "log_marginal_likelihood",
    "max_probability",
    "maximize_marginal_likelihood",
    "mc_dropout",
    "model_precision",
    "mutual_information",
    "nll",
    "plot_entropies",
    "plot_probabilities",
    "plot_reliability",
    "plot_risk_coverage",
    "predictive_entropy",
    "predictive_log_likelihood",
    "predictive_std",
    "probit",
    "regroup",
    "reliability",
    "residual_interval",
    "residual_scores",
    "risk_coverage",
    "set_coverage",
    "sharpness",
    "snapshots",
    "streamed",
    "swag",
    "swag_init",
    "swag_sample",
    "swag_update",
    "temperature_scaling",
    "variation_ratio",
    "vector_scaling",
]
