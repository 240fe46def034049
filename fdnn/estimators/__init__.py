"""scikit-learn's estimators: networks for pipelines, grid search and cross-validation.

Needs scikit-learn (the extra `sklearn`), so `import fdnn` alone does not import it.
"""

from fdnn.estimators.classifier import FdnnClassifier
from fdnn.estimators.regressor import FdnnRegressor

__all__ = ["FdnnClassifier", "FdnnRegressor"]
