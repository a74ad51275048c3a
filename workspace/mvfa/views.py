"""Eleven views of every few-shot image: as it is, turned, moved and mirrored."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_ANGLES = (-math.pi / 8, -math.pi / 16, math.pi / 16, math.pi / 8)
_SHIFTS = ((0.1, 0.1), (-0.1, 0.1), (-0.1, -0.1), (0.1, -0.1))  # x and y, in half widths and heights of the image
_FLIPS = {"horizontal": -1, "vertical": -2}


def augment(
    images: Tensor,
    masks: Tensor | None = None,
    *,
    strength: float = 1.0,
    flips: Sequence[str] = ("horizontal", "vertical"),
) -> tuple[Tensor, Tensor | None]:
    """All images as they are, then all turned by -22.5, -11.25, 11.25 and 22.5 degrees, moved four ways, and mirrored.

    What comes in at an edge is the image reflected.
    Args: images: (N, C, H, W) floats.  masks: (N, H, W) or (N, 1, H, W).  strength: factor of angles and distances.
          flips: "horizontal" (left and right change places), "vertical".
    Returns: images (11 N, C, H, W); masks alike, bool, or None.
    Raises: ValueError: masks that are not of the images' size, or images that are no floats.
    """
    if not images.is_floating_point():
        raise ValueError(f"The images are {str(images.dtype).removeprefix('torch.')}; give floats from 0 to 1")
    if masks is None:
        return torch.cat(_views(images, strength, flips)), None
    if (len(masks), *masks.shape[-2:]) != (len(images), *images.shape[-2:]):
        raise ValueError(f"The masks are {tuple(masks.shape)}, for images of {tuple(images.shape)}")
    marked = (masks > 0.5).to(images.dtype).reshape(len(masks), 1, *masks.shape[-2:])
    views = torch.cat(_views(marked, strength, flips)) > 0.5
    return torch.cat(_views(images, strength, flips)), views.reshape(-1, *masks.shape[1:])


def _views(images: Tensor, strength: float, flips: Sequence[str]) -> list[Tensor]:
    tall = images.shape[2] / images.shape[3]
    turns = [
        ((math.cos(a), -math.sin(a) * tall, 0.0), (math.sin(a) / tall, math.cos(a), 0.0))
        for a in (strength * angle for angle in _ANGLES)
    ]
    moves = [((1.0, 0.0, strength * x), (0.0, 1.0, strength * y)) for x, y in _SHIFTS]
    return [
        images,
        *(_warped(images, matrix) for matrix in (*turns, *moves)),
        *(images.flip(_FLIPS[flip]) for flip in flips),
    ]


def _warped(images: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    """Images sampled where the matrix sends each pixel, in units of half the image's width and height."""
    theta = torch.tensor(matrix, dtype=images.dtype, device=images.device).expand(len(images), 2, 3)
    where = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, where, padding_mode="reflection", align_corners=False)
