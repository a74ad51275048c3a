"""What the adapters learn: which pixels are abnormal (focal and Dice) and which images are (detection)."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .model import MVFAOutput
from .scoring import logits, pixel_logits
from .tokens import grid_of, pair, stacked

_SMOOTH = 1e-5  # of the focal loss


def losses(
    output: MVFAOutput,
    text: Tensor,
    mask: Any,
    label: Any,
    size: int | Sequence[int],
    *,
    temperature: float = 0.01,
    align_corners: bool = True,
    detection: Literal["probability", "log-odds"] = "probability",
) -> dict[str, Tensor]:
    """The losses of a batch, means over its images, level by level and in all.

    Args: text: (E, 2), normal and abnormal; or (B, E, 2), one an image.  mask: (B, *size) or (B, 1, *size), abnormal
          pixels above 0.5; None: images have labels alone.  label: (B,), 1 is abnormal.  size: rows and columns.
          detection: "probability": the paper's, which takes the mean probability for a log-odds, so that no level gets
          below 0.31; "log-odds": that of the mean probability.
    Returns: focal, dice, det: (levels,).  pixel: the sum of all, image: that of det.  Without mask: det and image.
    Raises: ValueError: masks or labels of another number or size.
    """
    det = stacked(output.det_tokens)
    truth = torch.as_tensor(label, dtype=det.dtype, device=det.device).reshape(-1)
    if len(truth) != det.shape[1]:
        raise ValueError(f"There are {len(truth)} labels for {det.shape[1]} images")
    patches = logits(det, text, temperature)
    if detection == "log-odds":
        apart = patches[..., 1] - patches[..., 0]
        odds = F.logsigmoid(apart).logsumexp(2) - F.logsigmoid(-apart).logsumexp(2)
    else:
        odds = patches.softmax(-1)[..., 1].mean(2)
    found = F.binary_cross_entropy_with_logits(odds, truth.expand_as(odds), reduction="none").mean(1)
    if mask is None:
        return {"det": found, "image": found.sum()}
    rows, columns = pair(size)
    marked = _marked(mask, det.shape[1], (rows, columns), det.device)
    seg = stacked(output.seg_tokens)
    grid = grid_of(output.seg_tokens, seg.shape[2] - 1, (rows, columns))
    chance = pixel_logits(logits(seg, text, temperature), grid, size, align_corners).softmax(2)
    focal, dice = _focal(chance, marked), _dice(chance[:, :, 1], marked)
    return {
        "focal": focal,
        "dice": dice,
        "det": found,
        "pixel": (focal + dice + found).sum(),
        "image": found.sum(),
    }


def _marked(mask: Any, images: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """(B, H, W) bool."""
    marked = torch.as_tensor(mask, device=device)
    marked = marked.squeeze(1) if marked.ndim == 4 else marked.unsqueeze(0) if marked.ndim == 2 else marked
    if tuple(marked.shape) != (images, *size):
        raise ValueError(
            f"The masks are {' x '.join(map(str, marked.shape))}; {images} images of {size[0]} x {size[1]} pixels "
            f"need {images} x {size[0]} x {size[1]}"
        )
    return marked > 0.5


def _focal(chance: Tensor, marked: Tensor) -> Tensor:
    """Mean over pixels of ``-(1 - p)^2 log p``, p the probability of what a pixel is, kept off 0; a level.

    Lin et al. 2017, arXiv:1708.02002.
    """
    truth = torch.stack([~marked, marked], 1).to(chance.dtype).clamp(_SMOOTH, 1 - _SMOOTH)
    p = (truth * chance).sum(2) + _SMOOTH
    return -((1 - p) ** 2 * p.log()).flatten(1).mean(1)


def _dice(abnormal: Tensor, marked: Tensor) -> Tensor:
    """One less ``(2 |A B| + 1) / (|A| + |B| + 1)``, mean over images; a level.

    Milletari et al. 2016, arXiv:1606.04797.
    """
    truth = marked.to(abnormal.dtype)
    both, either = (abnormal * truth).sum((2, 3)), abnormal.sum((2, 3)) + truth.sum((1, 2))
    return 1 - ((2 * both + 1) / (either + 1)).mean(1)
