"""Images as the frozen tokens that adapters read: made once, kept, and put together in batches to learn from."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .detector import Batch
from .features import FeatureCache
from .losses import losses
from .model import MVFA, MVFAOutput
from .tokens import Tokens

CLIP_MEAN, CLIP_DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of OpenAI's
_IMAGES = 16  # at a time


@dataclass(frozen=True)
class Reader:
    """Images in 0..1 to tokens of one model. normalize: by CLIP's mean and deviation.  autocast: to compute in."""

    model: MVFA
    cache: FeatureCache
    normalize: bool = True
    autocast: Callable[[], AbstractContextManager] = nullcontext

    @property
    def device(self) -> torch.device:
        return next(self.model.visual.parameters()).device

    def arrays(self, images: torch.Tensor) -> list[np.ndarray]:
        """`MVFA.frozen` of every image of (N, 3, H, W), one array an image, from the cache if it is there."""
        return [array for some in images.split(_IMAGES) for array in self.cache.of(some, self._computed)]

    def fresh(self, images: torch.Tensor) -> torch.Tensor:
        """`MVFA.frozen` of images that nobody will ask for again."""
        frozen = self._computed(images)
        return frozen.transpose(0, 1) if self.model.all_frozen else frozen

    def _computed(self, images: torch.Tensor) -> torch.Tensor:
        x = images.to(self.device)
        if self.normalize:
            mean, deviation = (x.new_tensor(numbers)[:, None, None] for numbers in (CLIP_MEAN, CLIP_DEVIATION))
            x = (x - mean) / deviation
        with self.autocast():
            frozen = self.model.frozen(x).to(x.dtype)
        return frozen.transpose(0, 1) if self.model.all_frozen else frozen

    def batch(self, arrays: Sequence[np.ndarray]) -> torch.Tensor:
        """Arrays of some images as `MVFA.adapted` takes them."""
        x = torch.from_numpy(np.stack(arrays)).to(self.device)
        return x.transpose(0, 1) if self.model.all_frozen else x


@dataclass(frozen=True)
class Known:
    """Labelled images. Each list has one entry an image.

    labels: 1 is abnormal.  masks: (H, W) bool; None for images of a kind in which nobody marked what is abnormal.
    abouts: what each shows.  views: so many in a row are views of one image, which comes first.
    """

    reader: Reader
    arrays: list[np.ndarray]
    labels: torch.Tensor
    masks: list[torch.Tensor | None]
    abouts: list[str]
    views: int = 1

    def batches(self, text: dict[str, torch.Tensor], views: bool = True, size: int = _IMAGES) -> Iterator[Batch]:
        """All images, in batches of one subject. Args: text: subject -> (E, 2).  views: all, or an image's first."""
        for about in dict.fromkeys(self.abouts):
            rows = [row for row, other in enumerate(self.abouts) if other == about and (views or row % self.views == 0)]
            for start in range(0, len(rows), size):
                some = rows[start : start + size]
                frozen = self.reader.batch([self.arrays[row] for row in some])
                yield Batch(frozen, text[about], self.labels[some].to(frozen.device), [self.masks[row] for row in some])

    def normals(self, views: bool = True, size: int = _IMAGES) -> Iterator[torch.Tensor]:
        """Tokens of the normal images, for a memory bank; without their other views it answers sooner."""
        rows = [
            row for row, label in enumerate(self.labels.tolist()) if label == 0 and (views or row % self.views == 0)
        ]
        for start in range(0, len(rows), size):
            yield self.reader.batch([self.arrays[row] for row in rows[start : start + size]])

    def loss(self, rows: list[int], text: dict[str, torch.Tensor], size, **how: Any) -> torch.Tensor:
        """Detection loss of some images, and the segmentation loss of those among them that have masks.

        Args: size: of the masks.  how: as in `losses`.
        """
        frozen = self.reader.batch([self.arrays[row] for row in rows])
        with self.reader.autocast():
            output = self.reader.model.adapted(frozen)

        def plain(tokens: Tokens, of: Any = slice(None)) -> Tokens:
            return Tokens((level[of].to(frozen.dtype) for level in tokens), grid=tokens.grid)

        seg, det = plain(output.seg_tokens), plain(output.det_tokens)
        words = torch.stack([text[self.abouts[row]] for row in rows])
        labels = self.labels[rows].to(frozen.device)
        loss = losses(MVFAOutput(None, seg, det), words, None, labels, size, **how)["image"]
        seen = [place for place, row in enumerate(rows) if self.masks[row] is not None]
        if seen:
            some = MVFAOutput(None, plain(seg, seen), plain(det, seen))
            truth = torch.stack([mask for row in rows if (mask := self.masks[row]) is not None]).to(frozen.device)
            found = losses(some, words[seen], truth, labels[seen], size, **how)
            loss = loss + found["focal"].sum() + found["dice"].sum()
        return loss
