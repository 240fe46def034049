"""The reader of printed text that the package `legere` ships, and digits placed for it to read."""

from __future__ import annotations

from importlib import resources

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fdnn import Model, functionalize

try:
    from legere import CHARSET
    from legere.model import CompactCRNN
except ModuleNotFoundError:
    raise SystemExit("this example needs legere: pip install 'fdnn-torch[finetune]'") from None

DIGITS = [1 + CHARSET.index(str(digit)) for digit in range(10)]  # 0 is the blank of CTC
# The parts that are released and slowed down together, from the input to the output.
PARTS = {
    "lower": ("crnn.stem.", "crnn.blocks.0.", "crnn.blocks.1.", "crnn.blocks.2."),
    "upper": ("crnn.blocks.3.", "crnn.blocks.4.", "crnn.blocks.5."),
    "rnn": ("crnn.rnn.",),
    "head": ("crnn.head.",),
}


class Reader(nn.Module):
    """The logit of each character, wherever in the image it stands."""

    def __init__(self) -> None:
        super().__init__()
        self.crnn = CompactCRNN()

    def forward(self, images: Tensor) -> Tensor:
        return self.crnn(images).logsumexp(1)  # over the places, one for every four columns


def place(images: Tensor) -> Tensor:
    """Set digits of 8 x 8 pixels as a printed line would have them: dark ink, 20 of 32 rows."""
    ink = F.interpolate(images[:, None], (20, 20), mode="bilinear")
    return 1 - 2 * F.pad(ink, (2, 2, 6, 6))  # -1 is black, 1 is white


def pretrained() -> tuple[Model, dict[str, Tensor]]:
    """Load the weights that legere ships: the model, and its tensors by dotted name."""
    path = resources.files("legere") / "data" / "model.pt"
    weights = torch.load(str(path), weights_only=True)["model"]
    module = Reader()
    module.crnn.load_state_dict(weights)
    model = functionalize(module)
    return model, {**model.params, **model.buffers}


def names(model: Model) -> dict[str, list[str]]:
    """The names of all tensors, by part."""
    tensors = {**model.params, **model.buffers}
    return {
        part: [name for name in tensors if name.startswith(starts)]
        for part, starts in PARTS.items()
    }
