"""Tokens of several levels, and the grid of patches behind them."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


class Tokens(list[Tensor]):
    """Level by level (B, 1 + L, E), the class token first; `grid`: rows and columns of the L patches."""

    def __init__(self, levels: Iterable[Tensor] = (), *, grid: tuple[int, int]):
        super().__init__(levels)
        self.grid = grid


def stacked(tokens: Sequence[Tensor] | Tensor) -> Tensor:
    """(levels, B, 1 + L, E), in float32 or float64, of a list or a tensor; without B: one image.

    Raises: ValueError: these are no tokens.
    """
    found = tokens if isinstance(tokens, Tensor) else torch.stack(tuple(tokens)) if len(tokens) else torch.empty(0)
    found = found.unsqueeze(1) if found.ndim == 3 else found
    if found.ndim != 4 or found.shape[2] < 2:
        raise ValueError(f"Tokens are {tuple(found.shape)}; give (levels, images, 1 + patches, features)")
    return found if found.dtype in (torch.float32, torch.float64) else found.float()


def pair(size: int | Sequence[int]) -> tuple[int, int]:
    """Rows and columns."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def grid_of(tokens: Sequence[Tensor] | Tensor, patches: int, size: tuple[int, int] | None = None) -> tuple[int, int]:
    """Rows and columns of the patches.

    As the tokens say; else those of images of `size` in square patches; else as many rows as columns.
    Raises: ValueError: nothing says it.
    """
    found: tuple[int, int] | None = getattr(tokens, "grid", None)
    if found is None and size is not None:
        fits = ((size[0] // patch, size[1] // patch) for patch in range(1, min(size) + 1))
        found = next((grid for grid in fits if math.prod(grid) == patches), None)
    if found is None:
        found = (math.isqrt(patches), math.isqrt(patches))
    if math.prod(found) != patches:
        raise ValueError(
            f"{patches} patches make no square grid, and nothing says their rows and columns: "
            "give the tokens as the model returns them"
        )
    return found
