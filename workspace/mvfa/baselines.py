"""What a frozen CLIP finds without any training: by similarity to the prompts, and by distance to normal tokens."""

import torch

from .detector import Scores, Scoring
from .model import MVFA
from .scoring import MemoryBank, anomaly_map, patch_probability
from .tokens import Tokens


def clip_scores(plain: MVFA, taps: torch.Tensor, text: torch.Tensor, how: Scoring) -> Scores:
    """Plain CLIP, zero-shot: the class token against the prompts for the image, every patch for the map.

    Args: plain: an MVFA with residual (1, 0, 0) whose last level is CLIP's last block.  taps: its `frozen` images,
          (levels, B, 1 + L, W).  text: (E, 2).
    Source: as in WinCLIP, Jeong et al. 2023, arXiv:2303.14814, without its windows.
    """
    with torch.no_grad():
        projected = plain.visual.ln_post(taps[-1]) @ plain.visual.proj
        tokens = Tokens([projected], grid=plain.grid)
        chance = patch_probability([projected[:, [0, 0]]], text, temperature=how.temperature)[0, :, 0]
        maps = anomaly_map(tokens, text, how.size, temperature=how.temperature, align_corners=how.align_corners)
    return Scores(chance, maps[0])


def bank_scores(plain: MVFA, bank: MemoryBank, taps: torch.Tensor, how: Scoring) -> Scores:
    """Distance of every patch to the nearest patch of normal images, on CLIP's own tokens; of an image, the highest.

    Source: PatchCore, Roth et al. 2022, arXiv:2106.08265, without its coreset; cosine distance as in MVFA.
    """
    with torch.no_grad():
        far = bank.map(Tokens(taps, grid=plain.grid), how.size, align_corners=how.align_corners)
    return Scores(far.amax((1, 2)), far)
