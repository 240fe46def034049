"""Test images that are not as those in training: rotated, noisy, or of something else."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from fdnn import data, random

ANGLES = (0, 15, 30, 45, 60, 90, 135, 180)
NOISES = (0.1, 0.2, 0.3, 0.5)


def rotated(images: Tensor, degrees: float) -> Tensor:
    """Turn images counterclockwise about their center: bilinear, black where nothing was."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = images.new_tensor([[cos, -sin, 0.0], [sin, cos, 0.0]]).expand(len(images), 2, 3)
    grid = F.affine_grid(matrix, [len(images), 1, *images.shape[1:]], align_corners=False)
    return F.grid_sample(images.unsqueeze(1), grid, align_corners=False).squeeze(1)


def noisy(images: Tensor, sd: float) -> Tensor:
    """Add normal noise to each pixel, and cut off what is not between black and white."""
    return (images + sd * random.normal(random.key(0), images.shape)).clamp(0, 1)


def foreign(like: Tensor) -> Tensor:
    """Enlarge scikit-learn's 1,797 handwritten digits to the size of these images (bilinear)."""
    digits = torch.cat([part.inputs for part in data.digits()]).unsqueeze(1)
    return F.interpolate(digits, like.shape[1:], mode="bilinear").squeeze(1)


def shifted(images: Tensor) -> dict[str, Tensor]:
    """Make all shifted versions of test images, by name, the unshifted one first."""
    turned = {angle_name(angle): rotated(images, angle) for angle in ANGLES[1:]}
    return {angle_name(0): images, **turned, **{noise_name(sd): noisy(images, sd) for sd in NOISES}}


def angle_name(degrees: int) -> str:
    return f"rotated by {degrees}°"


def noise_name(sd: float) -> str:
    return f"noise {sd:g}" if sd else angle_name(0)
