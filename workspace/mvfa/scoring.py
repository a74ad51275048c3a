"""From tokens to scores: probabilities by text, distances to a bank of normal tokens, their fusion, and the AUROC."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .tokens import grid_of, pair, stacked

_CELLS = 1 << 24  # similarities held at a time


# ------------------------------------------------------------------------------------------------ by text
def logits(tokens: Tensor, text: Tensor, temperature: float) -> Tensor:
    """(levels, B, L, 2): cosine of every patch with "normal" and "abnormal", over the temperature.

    Raises: ValueError: texts of another number of features than the tokens (levels, B, 1 + L, E).
    """
    text = text.to(tokens)
    if text.shape[-2:] != (tokens.shape[-1], 2):
        raise ValueError(
            f"Text features are {tuple(text.shape)}; these tokens need ({tokens.shape[-1]}, 2), normal and abnormal"
        )
    with torch.autocast(tokens.device.type, enabled=False):
        return (1 / temperature) * F.normalize(tokens[:, :, 1:], dim=-1) @ text


def pixel_logits(logits: Tensor, grid: tuple[int, int], size: int | Sequence[int], align_corners: bool) -> Tensor:
    """(levels, B, 2, H, W), from patches (levels, B, L, 2)."""
    return upsampled(logits.transpose(2, 3).unflatten(3, grid), size, align_corners=align_corners)


def patch_probability(tokens: Sequence[Tensor] | Tensor, text: Tensor, *, temperature: float = 0.01) -> Tensor:
    """(levels, B, L): probability that a patch is abnormal.

    Args: tokens: level by level (B, 1 + L, E), class token first.  text: (E, 2), or (B, E, 2).
    """
    return logits(stacked(tokens), text, temperature).softmax(-1)[..., 1]


def anomaly_map(
    tokens: Sequence[Tensor] | Tensor,
    text: Tensor,
    size: int | Sequence[int],
    *,
    temperature: float = 0.01,
    align_corners: bool = True,
) -> Tensor:
    """(levels, B, H, W): probability that a pixel is abnormal; logits are interpolated, not probabilities.

    Args: as in `patch_probability`.  size: of the images, rows and columns.
          align_corners: the paper's way; it shifts the map at the edges by up to half a patch.
    """
    found = stacked(tokens)
    grid = grid_of(tokens, found.shape[2] - 1, pair(size))
    return pixel_logits(logits(found, text, temperature), grid, size, align_corners).softmax(2)[:, :, 1]


def upsampled(maps: Tensor, size: int | Sequence[int], *, align_corners: bool = True) -> Tensor:
    """Bilinear, (..., h, w) -> (..., H, W)."""
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    found = F.interpolate(flat, pair(size), mode="bilinear", align_corners=align_corners)
    return found.reshape(*maps.shape[:-2], *found.shape[-2:])


# ------------------------------------------------------------------------------------------------ by memory
class MemoryBank:
    """Tokens of normal images; how far from the nearest of them others are.

    Args: tokens: level by level (N, 1 + L, E).  cls: keep the class tokens too, as the paper does.
    """

    def __init__(self, tokens: Sequence[Tensor] | Tensor, *, cls: bool = True):
        self.grid: tuple[int, int] | None = getattr(tokens, "grid", None)
        levels = (stacked([level.detach()])[0, :, 0 if cls else 1 :] for level in tokens)
        self.rows = [F.normalize(level.flatten(0, 1), dim=-1) for level in levels]

    @classmethod
    def of_rows(cls, rows: Sequence[Tensor]) -> "MemoryBank":
        """A bank of tokens (M, E) of length 1, level by level: what `rows` holds."""
        bank = cls.__new__(cls)
        bank.grid, bank.rows = None, list(rows)
        return bank

    @torch.no_grad()
    def distance(self, tokens: Sequence[Tensor] | Tensor) -> Tensor:
        """(levels, B, h, w): 1 less the highest cosine, patch by patch; 0 is "seen before".

        Raises: ValueError: another number of levels or features than the bank's.
        """
        found = stacked(tokens)
        if (len(found), found.shape[-1]) != (len(self.rows), self.rows[0].shape[1]):
            raise ValueError(
                f"The bank holds {len(self.rows)} levels of {self.rows[0].shape[1]} features; "
                f"the tokens have {len(found)} of {found.shape[-1]}"
            )
        images, patches = found.shape[1], found.shape[2] - 1
        known: Any = self if not hasattr(tokens, "grid") and self._of(patches) else tokens
        grid = grid_of(known, patches)
        with torch.autocast(found.device.type, enabled=False):
            far = [
                1 - self._nearest(rows, level[:, 1:].flatten(0, 1))
                for rows, level in zip(self.rows, found, strict=True)
            ]
        return torch.stack(far).reshape(len(far), images, *grid)

    def map(
        self, tokens: Sequence[Tensor] | Tensor, size: int | Sequence[int], *, align_corners: bool = True
    ) -> Tensor:
        """(B, H, W): the levels' distances, summed; interpolation is linear, so one of the sum is enough."""
        return upsampled(self.distance(tokens).sum(0), size, align_corners=align_corners)

    def _of(self, patches: int) -> bool:
        return self.grid is not None and self.grid[0] * self.grid[1] == patches

    @staticmethod
    def _nearest(rows: Tensor, queries: Tensor) -> Tensor:
        """The highest cosine of each query, in pieces that bound the memory."""
        queries = F.normalize(queries, dim=-1).to(rows)
        return torch.cat([(part @ rows.T).amax(1) for part in queries.split(max(1, _CELLS // len(rows)))])


# ------------------------------------------------------------------------------------------------ fusion
@dataclass(frozen=True)
class Scale:
    """Brings a score to the units of a reference set, so that scores of different kinds can be added."""

    shift: float
    width: float

    @classmethod
    def of(cls, values: Tensor) -> "Scale":
        """Mean and deviation of the reference set."""
        values = values.double()
        return cls(float(values.mean()), max(float(values.std(correction=0)), 1e-12))

    @classmethod
    def spanning(cls, values: Tensor) -> "Scale":
        """Minimum and maximum of the set, which become 0 and 1."""
        low, high = float(values.min()), float(values.max())
        return cls(low, max(high - low, 1e-12))

    def apply(self, values: Tensor) -> Tensor:
        """Scores in the units of the set: 0 is its mean (or minimum), 1 a deviation (or the range) above."""
        return (values - self.shift) / self.width


def min_max(values: Tensor) -> Tensor:
    """Scores of a whole test set, brought to 0 to 1: the paper's way, which gives one image alone no score."""
    return Scale.spanning(values).apply(values)


def fuse(text: Any, bank: Any, weight: float) -> Any:
    """Both scores, `weight` (0 to 1) of it the bank's."""
    return (1 - weight) * text + weight * bank


# ------------------------------------------------------------------------------------------------ AUROC
def auroc(truth: Any, score: Any) -> float:
    """The share of pairs (abnormal, normal) in which the abnormal one scores higher; ties count half.

    Args: truth, score: of one shape, any; truth is above 0 where abnormal.
    Raises: ValueError: one of the two kinds is missing, or a score is no number.
    """
    wanted, values = (np.asarray(part.detach().cpu() if isinstance(part, Tensor) else part) for part in (truth, score))
    if wanted.shape != values.shape:
        raise ValueError(f"There are {wanted.size} truths for {values.size} scores")
    abnormal = np.sort(values[wanted > 0], axis=None)
    normal = np.sort(values[~(wanted > 0)], axis=None)
    if not len(abnormal) or not len(normal):
        raise ValueError(
            f"AUROC needs normal and abnormal cases; given {len(normal)} normal and {len(abnormal)} abnormal"
        )
    if np.isnan(abnormal[-1]) or np.isnan(normal[-1]):
        raise ValueError("AUROC: a score is not a number")
    below = int(np.searchsorted(normal, abnormal, "left").sum()) + int(np.searchsorted(normal, abnormal, "right").sum())
    return below / (2 * len(abnormal) * len(normal))
