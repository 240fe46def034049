"""A network, or an ensemble of them, as scikit-learn's regressor."""

from __future__ import annotations

from typing import Any

from fdnn import losses
from fdnn.estimators.base import FdnnEstimator
from fdnn.estimators.scikit_learn import RegressorMixin

__all__ = ["FdnnRegressor"]


class FdnnRegressor(RegressorMixin, FdnnEstimator):  # type: ignore[misc]
    """A regressor: a network, or an ensemble of them, in scikit-learn's form.

    Targets are used as they are. If they are far from 0 or not of the size of 1, scale them:
    `sklearn.compose.TransformedTargetRegressor(FdnnRegressor(), transformer=StandardScaler())`.

    The mean of an ensemble's predictions is its own, and their standard deviation tells how far the
    members disagree; the noise of the targets is not in it.

    Args:
        module: as in `FdnnClassifier`, whose parameters these are, without `class_weight`; the
            outputs are the targets, of shape `(rows, targets)`.
        hidden_features: units of the MLP's hidden layers, or of each if it is one number.
        depth: how many hidden layers, if `hidden_features` is one number; 1 if left out.
        activation: of the MLP.
        norm: of the MLP: None, "batch" or "layer".
        dropout: the probability with which hidden units are dropped in training.
        criterion: `criterion(outputs, targets, reduction="none")`, the loss of each row and target;
            None for `losses.mse_loss`.
        optimizer: the function that makes it, None for `optim.adamw`, or a ready transformation.
        lr: the learning rate, None for the optimizer's own.
        weight_decay: the weight decay, None for the optimizer's own.
        schedule: `schedule(lr, total_steps)`, None for a constant rate.
        epochs: passes over the training rows, at most if `early_stopping`.
        batch_size: rows in a step; None for all of them.
        early_stopping: hold out rows, stop by the loss on them, and return to the best weights.
        validation_fraction: the share of the rows that is held out, in (0, 1).
        patience: epochs without improvement that end a member.
        num_members: how many networks.
        dtype: "float32", "float64", or None for that of `X`.
        device: where to train and to predict.
        compile: whether to compile the training step.
        progress: whether to show a progress bar.
        random_state: an int, a `RandomState`, or None to draw a seed from NumPy's generator.

    Attributes:
        n_features_in_: how many features there are.
        feature_names_in_: their names, if `X` had any.
        state_: the `TrainState` of the network; stacked if there are several.
        model_: the network as pure functions.
        history_: numbers by name, arrays of shape `(epochs,)` or `(epochs, members)`.
        loss_curve_: the training loss after each epoch, a list; the mean over members.
        n_iter_: how many epochs there were.

    Raises:
        TypeError: `module` is no module and returns none. (All errors are raised by `fit`.)
        ValueError: a parameter is out of its range, or the rows do not suit.
        FloatingPointError: training met numbers that are not finite.

    Example:
        >>> import numpy as np
        >>> X = np.linspace(-1, 1, 60).reshape(-1, 1)
        >>> y = np.sin(3 * X[:, 0])
        >>> network = FdnnRegressor(lr=0.02, batch_size=16, num_members=4, random_state=0)
        >>> bool(network.fit(X, y).score(X, y) > 0.95)
        True
        >>> mean, std = network.predict([[0.5], [9.0]], return_std=True)
        >>> bool(std[1] > std[0])  # nothing is known of 9
        True
    """

    _criterion = staticmethod(losses.mse_loss)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> FdnnRegressor:
        """Train anew.

        Args:
            X: features, `(rows, features)`.
            y: targets, `(rows,)` or `(rows, targets)`.
            sample_weight: weights of the rows, `(rows,)`, at least 0.

        Returns:
            The estimator itself.
        """
        X, y, weight = self._validated(X, y, sample_weight, multi_output=True, y_numeric=True)
        y = y.astype(X.dtype, copy=False)
        self._is_vector = y.ndim == 1
        y = y.reshape(len(y), -1)
        self._train(X, y, weight, y.shape[1])
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Predict the targets.

        Args:
            X: features, `(rows, features)`.
            return_std: whether to return the members' standard deviation as well.

        Returns:
            The mean of the members' predictions, in the shape of the targets; with `return_std` a
            pair of it and their standard deviation (divided by their number, not by one less).

        Raises:
            ValueError: `return_std` is asked of one network.
        """
        outputs = self._outputs(X)
        if self._is_vector:
            outputs = outputs.squeeze(-1)
        mean = outputs.mean(0).numpy()
        if not return_std:
            return mean
        if len(outputs) < 2:
            raise ValueError(f"`return_std` needs `num_members` of at least 2, got {len(outputs)}")
        return mean, outputs.std(0, correction=0).numpy()

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that there may be several targets."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
