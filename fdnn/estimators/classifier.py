"""A network, or an ensemble of them, as scikit-learn's classifier."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fdnn import losses
from fdnn.estimators.base import FdnnEstimator
from fdnn.estimators.scikit_learn import (
    ClassifierMixin,
    check_classification_targets,
    compute_class_weight,
)
from fdnn.types import GradientTransformation

__all__ = ["FdnnClassifier"]


class FdnnClassifier(ClassifierMixin, FdnnEstimator):  # type: ignore[misc]
    r"""A classifier: a network, or an ensemble of them, in scikit-learn's form.

    It minimizes $\frac{1}{n} \sum_i w_i \ell(f(x_i), y_i)$ by minibatches, where $w_i$ is the
    row's `sample_weight` times its class's `class_weight`, over their mean, and $\ell$ is
    `criterion`. The outputs $f$ are logits, one for each class, two if there are two. A row of
    weight 0 is as if it were not there; with all rows in one batch, weight 2 is the same as the row
    twice. Rows and dropout are drawn by `random_state`.

    An ensemble trains its members at once, by `torch.vmap`; they differ in their first weights, in
    their order of the rows and in dropout, and the probabilities are the mean of theirs. Member i
    is the same whatever `num_members` is, and `num_members=1` is member 0.

    Args:
        module: the network: None for an `fdnn.nn.MLP`; a function of the numbers of features and of
            classes that returns a module (`nn.Linear` is one); or a module, which is copied. Its
            weights are drawn anew, by `Model.init`; it must take `(rows, features)` and return
            `(rows, classes)`.
        hidden_features: units of the MLP's hidden layers, or of each if it is one number. This one
            and the next four are without effect if `module` is given.
        depth: how many hidden layers, if `hidden_features` is one number; 1 if left out.
        activation: of the MLP, by name or as it takes them.
        norm: None, "batch" or "layer". With "batch" no batch may be of one row: choose
            `batch_size` so that the last has more.
        dropout: the probability with which hidden units are dropped in training.
        criterion: `criterion(outputs, targets, reduction="none")`, the loss of each row, where
            targets are places in `classes_`; None for `losses.cross_entropy`. A
            `functools.partial` gives it other arguments.
        class_weight: weights by class, in a dict; "balanced" for the inverse of each class's share
            of `sample_weight`; None for 1.
        optimizer: the function that makes it (`optim.sgd`, a `functools.partial` of one), called
            with `lr` and `weight_decay` if they are given; None for `optim.adamw`; or a ready
            transformation.
        lr: the learning rate, None for the optimizer's own.
        weight_decay: the weight decay, None for the optimizer's own.
        schedule: `schedule(lr, total_steps)`, such as `schedules.one_cycle`; None for a constant
            rate.
        epochs: passes over the training rows, at most if `early_stopping`.
        batch_size: rows in a step; None for all of them.
        early_stopping: hold out rows, stop each member when its loss on them no longer gets
            better, and give it back its best weights.
        validation_fraction: the share of the rows that is held out, in (0, 1), with equal shares of
            all classes.
        patience: epochs without improvement that end a member.
        num_members: how many networks.
        dtype: "float32" or "float64", in which to train and to predict; None, as elsewhere in
            scikit-learn, for that of `X` if it is one of the two, and else "float64".
        device: where to train and to predict; the result is kept on the CPU.
        compile: whether to compile the training step; pays in long runs.
        progress: whether to show a progress bar.
        random_state: an int, a `RandomState`, or None to draw a seed from NumPy's generator.

    Attributes:
        classes_: the labels, sorted.
        n_features_in_: how many features there are.
        feature_names_in_: their names, if `X` had any.
        state_: the `TrainState` of the network; stacked if there are several.
        model_: the network as pure functions: `model_.to_module(state_.params, state_.buffers)` is
            the trained module.
        history_: numbers by name ("loss", "lr", "valid_loss", ...), arrays of shape `(epochs,)` or
            `(epochs, members)`; those of a member that has stopped are nan.
        loss_curve_: the training loss after each epoch, a list; the mean over members.
        n_iter_: how many epochs there were.

    Raises:
        TypeError: `module` is no module and returns none. (All errors are raised by `fit`.)
        ValueError: a parameter is out of its range, the rows do not suit, or `y` has one class.
        FloatingPointError: training met numbers that are not finite.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.model_selection import cross_val_score
        >>> from sklearn.pipeline import make_pipeline
        >>> from sklearn.preprocessing import StandardScaler
        >>> network = FdnnClassifier(hidden_features=16, lr=0.02, epochs=20, random_state=0)
        >>> scores = cross_val_score(
        ...     make_pipeline(StandardScaler(), network), *load_iris(return_X_y=True), cv=3
        ... )
        >>> bool(scores.mean() > 0.9)
        True

    References:
        Lakshminarayanan, Pritzel, Blundell (2017), "Simple and scalable predictive uncertainty
        estimation using deep ensembles". Without its adversarial examples.
    """

    _criterion = staticmethod(losses.cross_entropy)

    def __init__(
        self,
        module: nn.Module | Callable[[int, int], nn.Module] | None = None,
        *,
        hidden_features: int | Sequence[int] = 100,
        depth: int | None = None,
        activation: Any = "relu",
        norm: str | None = None,
        dropout: float = 0.0,
        criterion: Callable[..., Tensor] | None = None,
        class_weight: Mapping[Any, float] | str | None = None,
        optimizer: GradientTransformation | Callable[..., GradientTransformation] | None = None,
        lr: float | None = None,
        weight_decay: float | None = None,
        schedule: Callable[[float, int], Any] | None = None,
        epochs: int = 100,
        batch_size: int | None = 64,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 10,
        num_members: int = 1,
        dtype: str | None = None,
        device: str | torch.device = "cpu",
        compile: bool = False,
        progress: bool = False,
        random_state: Any = None,
    ):
        super().__init__(
            module,
            hidden_features=hidden_features,
            depth=depth,
            activation=activation,
            norm=norm,
            dropout=dropout,
            criterion=criterion,
            optimizer=optimizer,
            lr=lr,
            weight_decay=weight_decay,
            schedule=schedule,
            epochs=epochs,
            batch_size=batch_size,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            patience=patience,
            num_members=num_members,
            dtype=dtype,
            device=device,
            compile=compile,
            progress=progress,
            random_state=random_state,
        )
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> FdnnClassifier:
        """Train anew.

        Args:
            X: features, `(rows, features)`.
            y: labels, `(rows,)`, of any kind.
            sample_weight: weights of the rows, `(rows,)`, at least 0.

        Returns:
            The estimator itself.
        """
        X, y, weight = self._validated(X, y, sample_weight)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"`y` must have at least two classes, got one class: {self.classes_}")
        weight = weight * self._class_weights(codes, weight)[codes].astype(weight.dtype)
        self._train(X, codes, weight, len(self.classes_), classes=codes)
        return self

    def predict(self, X: Any) -> Any:
        """Return the label with the highest probability, for each row of `X`."""
        best = self.predict_proba(X).argmax(1)
        return self.classes_[best]

    def predict_proba(self, X: Any) -> Any:
        """Return probabilities, `(rows, classes)`, in the order of `classes_`."""
        return np.exp(self.predict_log_proba(X))

    def predict_log_proba(self, X: Any) -> Any:
        """Return the logarithms of the probabilities; they do not underflow."""
        outputs = self._outputs(X)
        mean = outputs.log_softmax(-1).logsumexp(0) - math.log(len(outputs))
        return mean.numpy()

    def _class_weights(self, codes: Any, weight: Any) -> Any:
        """Return the weight of each class; "balanced" means by the sums of the rows' weights."""
        if self.class_weight == "balanced":
            return weight.sum() / (len(self.classes_) * np.bincount(codes, weight))
        return compute_class_weight(
            self.class_weight, classes=self.classes_, y=self.classes_[codes]
        )
