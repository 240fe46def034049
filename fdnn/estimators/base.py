"""What the classifier and the regressor have in common: parameters, training, outputs, pickling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fdnn import random, train, tree
from fdnn.estimators.scikit_learn import (
    BaseEstimator,
    check_is_fitted,
    check_random_state,
    check_sample_weight,
    train_test_split,
    validate_data,
)
from fdnn.estimators.training import (
    build_module,
    build_optimizer,
    integer,
    mean_loss,
    weighted_loss,
)
from fdnn.model import Model, functionalize
from fdnn.train import fit
from fdnn.types import GradientTransformation

__all__ = ["FdnnEstimator"]

_ROWS_AT_ONCE = 1000  # outside of training


class FdnnEstimator(BaseEstimator):  # type: ignore[misc]
    """The base of `FdnnClassifier` and `FdnnRegressor`, which say what the parameters mean."""

    _criterion: Callable[..., Tensor]

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
        self.module = module
        self.hidden_features = hidden_features
        self.depth = depth
        self.activation = activation
        self.norm = norm
        self.dropout = dropout
        self.criterion = criterion
        self.optimizer = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.epochs = epochs
        self.batch_size = batch_size
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.num_members = num_members
        self.dtype = dtype
        self.device = device
        self.compile = compile
        self.progress = progress
        self.random_state = random_state

    @property
    def model_(self) -> Model:
        """The network as pure functions, which take `state_.params` and `state_.buffers`."""
        check_is_fitted(self)
        if "_model" not in vars(self):  # after unpickling
            self._model = functionalize(self._module)
        return self._model

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the model: its functions do not pickle, and are made of the module again."""
        state = dict(super().__getstate__())
        state.pop("_model", None)
        return state

    def _validated(
        self, X: Any, y: Any, sample_weight: Any, **options: Any
    ) -> tuple[Any, Any, Any]:
        """Return inputs, targets and weights as arrays, without the rows of weight 0."""
        if self.dtype not in (None, "float32", "float64"):
            raise ValueError(f"`dtype` must be 'float32', 'float64' or None, got {self.dtype!r}")
        dtypes = ["float64", "float32"] if self.dtype is None else [self.dtype]
        # Of several, what has none of them becomes the first.
        X, y = validate_data(self, X, y, dtype=dtypes, **options)
        weight = check_sample_weight(sample_weight, X, dtype=X.dtype, ensure_non_negative=True)
        used = weight > 0
        if not used.any():
            raise ValueError("`sample_weight` must not be zero for all rows")
        return (X, y, weight) if used.all() else (X[used], y[used], weight[used])

    def _train(self, X: Any, y: Any, weight: Any, out_features: int, classes: Any = None) -> None:
        """Train on arrays; the rows of `classes` are in both parts if some are held out."""
        members = integer("num_members", self.num_members)
        if members < 1:
            raise ValueError(f"`num_members` must be at least 1, got {members}")
        numbers = check_random_state(self.random_state)
        seed = int(numbers.randint(np.iinfo(np.int32).max))
        keys = random.split(random.key(seed, device="cpu"), members)
        made = build_module(
            self.module,
            (X.shape[1], out_features),
            seed,
            hidden_features=self.hidden_features,
            depth=self.depth,
            activation=self.activation,
            norm=self.norm,
            dropout=self.dropout,
        )
        self._module = made.cpu().to(torch.float64 if X.dtype == np.float64 else torch.float32)
        self._model, self._dtype = functionalize(self._module), X.dtype
        criterion = type(self)._criterion if self.criterion is None else self.criterion

        # torch.tensor copies: arrays may be read-only.
        data = [torch.tensor(part, device=self.device) for part in (X, y, weight / weight.mean())]
        fitted, measure, monitors = self._held_out(data, classes, criterion, numbers)
        size = len(fitted[0])
        batch_size = size
        if self.batch_size is not None:
            batch_size = min(size, integer("batch_size", self.batch_size))
        epochs = integer("epochs", self.epochs)
        tx = build_optimizer(
            self.optimizer,
            epochs * -(-size // max(batch_size, 1)),
            lr=self.lr,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
        )
        runs = [train.init(self._model, tx, key) for key in keys]
        start = runs[0] if members == 1 else tree.stack(runs)
        state, history = fit(
            train.make_step(weighted_loss(self._model, criterion, out_features), tx),
            tree.map(lambda leaf: leaf.to(self.device), start),
            fitted,
            epochs=epochs,
            batch_size=batch_size,
            evaluate=measure,
            monitors=monitors,
            compile=self.compile,
            progress=self.progress,
        )
        self.state_ = tree.map(Tensor.cpu, state._replace(monitors={}))
        self.history_ = {name: value.cpu().numpy() for name, value in history.items()}
        loss = history.get("loss", torch.empty(0))  # none if interrupted in the first epoch
        self.n_iter_ = len(loss)
        self.loss_curve_ = loss.reshape(len(loss), -1).nanmean(1).tolist()

    def _held_out(
        self, data: list[Tensor], classes: Any, criterion: Callable[..., Tensor], numbers: Any
    ) -> tuple[tuple[Tensor, ...], Any, dict[str, train.Monitor]]:
        """Return the rows to fit, and what measures the others and stops by them, if asked for."""
        if not self.early_stopping:
            return tuple(data), None, {}
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"`validation_fraction` must be in (0, 1), got {self.validation_fraction}"
            )
        rows = train_test_split(
            np.arange(len(data[0])),
            test_size=self.validation_fraction,
            random_state=numbers,
            stratify=classes,
        )
        fitted, held_out = ([part[each] for part in data] for each in map(torch.tensor, rows))
        fitted[2] = fitted[2] / fitted[2].mean()
        batches = zip(*(torch.split(part, _ROWS_AT_ONCE) for part in held_out), strict=True)
        measure = train.evaluator(
            self._model,
            {"loss": mean_loss(criterion)},
            valid=[(x, (y, weight)) for x, y, weight in batches],
        )
        stop = train.early_stopping("valid_loss", patience=integer("patience", self.patience))
        return tuple(fitted), measure, {"stop": stop}

    def _outputs(self, X: Any) -> Tensor:
        """Return the outputs of all members, of shape `(members, rows, outputs)`, on the CPU."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=self._dtype)
        state = tree.map(lambda leaf: leaf.to(self.device), self.state_)
        inputs = torch.tensor(X, device=self.device)
        found: Tensor = train.predict(self.model_, state, inputs, batch_size=_ROWS_AT_ONCE).cpu()
        return found if state.count.ndim else found[None]
