"""Studies: what a user's type checker knows of them."""

from typing import assert_type

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor, nn

from fdnn import functionalize, metrics, optim, random, study, train

x = random.normal(random.key(1), (64, 4))
data = x, x.sum(1, keepdim=True)


def experiment(width: int) -> study.Experiment:
    model = functionalize(nn.Sequential(nn.Linear(4, width), nn.Linear(width, 1)))
    return study.training(
        model,
        train.supervised(model, F.mse_loss),
        optim.sgd(lr=0.1),
        data,
        epochs=2,
        evaluate=train.evaluator(model, {"loss": metrics.mean_squared_error()}, valid=data),
    )


found = study.run(
    experiment,
    arms={"narrow": {"width": 1}, "wide": {"width": 8}},
    seeds=3,
    jit=False,
    keep_parameters=True,
    progress=False,
)
assert_type(found, study.Study)
assert_type(found.table("valid_loss"), str)
assert_type(found.summary("valid_loss"), dict[str, study.Summary])
compared = found.compare("valid_loss", "narrow", "wide")
assert_type(compared, study.Comparison)
assert_type(found.parameters("wide"), tuple[dict[str, Tensor], dict[str, Tensor]])
assert_type(found.values("valid_loss", "wide"), npt.NDArray[np.float64])
assert_type(study.summarize([0.1, 0.2, 0.3]), study.Summary)
