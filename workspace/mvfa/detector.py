"""A finished detector: adapters, memory bank, probe, fusion scales and thresholds. It scores one image on its own.

The paper fuses by the minimum and maximum over the whole test set, so that one image has no score. Here scales and
thresholds come from labelled validation images and are part of the model, and so do the shares of the parts in an
image's score: adapters learn little where only whole images are labelled, and a bank little where normal ones differ.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch

from .model import MVFA, Adapters
from .probe import Probe, features
from .scoring import MemoryBank, Scale, anomaly_map, auroc, fuse, patch_probability
from .tokens import Tokens


@dataclass(frozen=True)
class Scoring:
    """How tokens become scores.

    size: rows and columns of a map.  pixels: masks were learnt from, so that maps come from the segmentation adapters.
    fusion: weight of the memory bank against the text, 0 to 1.  highest: in an image's score, weight of the highest
    pixel against the detection adapters, 0 to 1 (paper: 1 where there are masks); None: all parts of the score count by
    what they are worth on the validation images.  memory: whose tokens the bank holds, "trunk" or "adapters" (paper).
    """

    size: tuple[int, int]
    pixels: bool
    temperature: float = 0.01
    fusion: float = 0.5
    highest: float | None = None
    memory: str = "trunk"
    bank_cls: bool = False
    align_corners: bool = False


class Threshold(NamedTuple):
    """A score at which images (or pixels) are called abnormal, and the spread of scores around it."""

    at: float
    width: float

    def squashed(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores in (0, 1), in the same order, 0.5 at the threshold: half of ``1 + x / (1 + |x|)``, x in widths."""
        x = (scores - self.at) / self.width
        return 0.5 * (1 + x / (1 + x.abs()))


class Batch(NamedTuple):
    """Validation images of one subject.

    frozen: as `MVFA.frozen` gives it.  text: (E, 2).  labels: (B,), 1 is abnormal.  masks: (H, W) bool of each image;
    None where nobody marked what is abnormal in images of its kind.
    """

    frozen: torch.Tensor
    text: torch.Tensor
    labels: torch.Tensor
    masks: Sequence[torch.Tensor | None]


class Scores(NamedTuple):
    """image: (B,).  pixels: (B, H, W).  The higher, the more abnormal."""

    image: torch.Tensor
    pixels: torch.Tensor


class Detector:
    """Scores images; see `Detector.fitted`.

    Args: text: (E, 2), normal and abnormal.  bank: of the tokens of normal images; none in zero-shot.
          probe: of the images learnt from; none in zero-shot.
    """

    def __init__(
        self,
        model: MVFA,
        adapters: Adapters,
        text: torch.Tensor,
        how: Scoring,
        bank: MemoryBank | None = None,
        probe: Probe | None = None,
        scales: dict[str, Scale] | None = None,
        shares: dict[str, float] | None = None,
        thresholds: tuple[Threshold, Threshold] = (Threshold(0, 1), Threshold(0, 1)),
    ):
        self.model, self.adapters, self.text, self.how = model, adapters, text, how
        self.bank, self.probe, self.scales, self.thresholds = bank, probe, scales or {}, thresholds
        self.shares = shares or {}  # of the parts in an image's score; they add up to 1
        self.quality: dict[str, float] = {}  # AUROC of the validation images, and of their pixels where masks are

    # ------------------------------------------------------------------------------------------------ fitting
    @classmethod
    def fitted(
        cls,
        model: MVFA,
        adapters: Adapters,
        text: torch.Tensor,
        how: Scoring,
        normals: Iterable[torch.Tensor],
        validation: Iterable[Batch],
        taught: Iterable[Batch] = (),
    ) -> "Detector":
        """A detector whose bank holds normal images, with scales, shares and thresholds from validation images.

        Args: normals: batches of `MVFA.frozen`; none in zero-shot.  taught: images for the probe; none: no probe.
        Raises: ValueError: validation has no normal or no abnormal image.
        """
        bank, probe = _bank(model, adapters, how, normals), _probe(model, adapters, taught)
        detector = cls(model, adapters, text, how, bank, probe)
        parts, labels, masks = [], [], []
        for batch in validation:
            parts.append(detector.parts(batch.frozen, batch.text))
            labels.append(batch.labels.bool())
            masks += batch.masks
        detector.scale_on(parts)
        if how.highest is None:
            detector.shares = _shares([detector.images(part) for part in parts], torch.cat(labels))
        scores = [detector.scores(part) for part in parts]
        found = Scores(*(torch.cat(each) for each in zip(*scores, strict=True)))
        detector.thresholds, detector.quality = judged(found, torch.cat(labels), masks)
        return detector

    def scale_on(self, parts: Sequence[dict[str, torch.Tensor]], extremes: bool = False) -> None:
        """Take the scales from these parts of scores: mean and deviation, or (the paper's way) minimum and maximum."""
        self.scales = {name: _scale([part[name] for part in parts], extremes) for name in parts[0]}
        self.scales["highest"] = _scale([self._map(part).amax((1, 2)) for part in parts], extremes)
        self.scales["detection"] = _scale([self._detection(part) for part in parts], extremes)

    # ------------------------------------------------------------------------------------------------ scoring
    def parts(self, frozen: torch.Tensor, text: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """What is fused: maps, and scores of images, by text, by memory bank (sums over the levels) and by probe."""
        with torch.no_grad():
            (output, read), how = self.model.levels(frozen, self.adapters), self.how
            text = self.text if text is None else text
            mapped = output.seg_tokens if how.pixels else output.det_tokens
            given = {"temperature": how.temperature}
            maps = anomaly_map(mapped, text, how.size, align_corners=how.align_corners, **given)
            found = {
                "text map": maps.sum(0),
                "text image": patch_probability(output.det_tokens, text, **given).mean(2).sum(0),
            }
            if self.bank:
                kept = read if how.memory == "trunk" else mapped
                found["bank map"] = self.bank.map(kept, how.size, align_corners=how.align_corners)
                found["bank image"] = found["bank map"].mean((1, 2))
            if self.probe:
                found["probe image"] = self.probe(features(read))
            found |= {name.replace("map", "highest"): found[name].amax((1, 2)) for name in found if "map" in name}
        return found

    def scores(self, parts: dict[str, torch.Tensor]) -> Scores:
        """Fused scores, in the units of the validation images."""
        pixels, high = self._map(parts), self.how.highest
        if high is None:
            known = self.images(parts)
            each = [share * self.scales[name].apply(known[name]) for name, share in self.shares.items()]
            return Scores(torch.stack(each).sum(0), pixels)
        highest = self.scales["highest"].apply(pixels.amax((1, 2)))
        return Scores(high * highest + (1 - high) * self.scales["detection"].apply(self._detection(parts)), pixels)

    def images(self, parts: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What may count in an image's score: the parts that are one number an image, and the fused map's highest."""
        numbers = {name: part for name, part in parts.items() if part.ndim == 1}
        return numbers | {"highest": self._map(parts).amax((1, 2))}

    def answers(self, parts: dict[str, torch.Tensor]) -> Scores:
        """Scores in (0, 1), 0.5 at the thresholds."""
        return squashed(self.thresholds, self.scores(parts))

    def _map(self, parts: dict[str, torch.Tensor]) -> torch.Tensor:
        return self._fused(parts, "map")

    def _detection(self, parts: dict[str, torch.Tensor]) -> torch.Tensor:
        return self._fused(parts, "image")

    def _fused(self, parts: dict[str, torch.Tensor], kind: str) -> torch.Tensor:
        text = self.scales[f"text {kind}"].apply(parts[f"text {kind}"])
        if not self.bank:
            return text
        return fuse(text, self.scales[f"bank {kind}"].apply(parts[f"bank {kind}"]), self.how.fusion)

    # ------------------------------------------------------------------------------------------------ files
    def save(self, folder: Path) -> None:
        """Write `detector.json` and `detector.safetensors`; the adapters are kept elsewhere."""
        known = {
            "scoring": asdict(self.how),
            "scales": {name: asdict(scale) for name, scale in self.scales.items()},
            "shares": self.shares,
            "thresholds": self.thresholds,
        }
        tensors = {"text": self.text.contiguous().cpu()}
        if self.bank:
            tensors |= {f"bank.{level}": rows.contiguous().cpu() for level, rows in enumerate(self.bank.rows)}
        if self.probe:
            tensors |= {"probe.weight": self.probe.weight.cpu(), "probe.bias": self.probe.bias.cpu()}
        safetensors.torch.save_file(tensors, folder / "detector.safetensors")
        (folder / "detector.json").write_text(json.dumps(known, indent=1))

    @classmethod
    def load(cls, folder: Path, model: MVFA, adapters: Adapters) -> "Detector":
        """The detector that `save` wrote, on the device of the model."""
        known = json.loads((folder / "detector.json").read_text())
        device = str(next(model.visual.parameters()).device)
        tensors = safetensors.torch.load_file(folder / "detector.safetensors", device=device)
        how = Scoring(**{**known["scoring"], "size": tuple(known["scoring"]["size"])})
        rows = [tensors[f"bank.{level}"] for level in range(len(model.layers)) if f"bank.{level}" in tensors]
        scales = {name: Scale(**scale) for name, scale in known["scales"].items()}
        image, pixel = (Threshold(*numbers) for numbers in known["thresholds"])
        bank = MemoryBank.of_rows(rows) if rows else None
        probe = Probe(tensors["probe.weight"], tensors["probe.bias"]) if "probe.weight" in tensors else None
        return cls(model, adapters, tensors["text"], how, bank, probe, scales, known["shares"], (image, pixel))


def _bank(model: MVFA, adapters: Adapters, how: Scoring, normals: Iterable[torch.Tensor]) -> MemoryBank | None:
    tokens = []
    with torch.no_grad():
        for frozen in normals:
            output, read = model.levels(frozen, adapters)
            tokens.append(read if how.memory == "trunk" else output.seg_tokens if how.pixels else output.det_tokens)
    if not tokens:
        return None
    return MemoryBank(Tokens(map(torch.cat, zip(*tokens, strict=True)), grid=model.grid), cls=how.bank_cls)


def _probe(model: MVFA, adapters: Adapters, taught: Iterable[Batch]) -> Probe | None:
    found, labels = [], []
    with torch.no_grad():
        for batch in taught:
            _, read = model.levels(batch.frozen, adapters)
            found.append(features(read))
            labels.append(batch.labels)
    return Probe.fitted(torch.cat(found), torch.cat(labels)) if found else None


def _shares(images: Sequence[dict[str, torch.Tensor]], labels: torch.Tensor) -> dict[str, float]:
    """How much each part counts in an image's score: as the square of what its AUROC is above chance."""
    each = {name: torch.cat([numbers[name] for numbers in images]) for name in images[0]}
    worth = {name: max(0.0, auroc(labels, numbers) - 0.5) ** 2 for name, numbers in each.items()}
    total = sum(worth.values())
    return {name: value / total if total else 1 / len(worth) for name, value in worth.items()}


def _scale(values: Sequence[torch.Tensor], extremes: bool) -> Scale:
    flat = torch.cat([value.flatten() for value in values])
    return Scale.spanning(flat) if extremes else Scale.of(flat)


def squashed(thresholds: tuple[Threshold, Threshold], scores: Scores) -> Scores:
    """Scores in (0, 1), in the same order, 0.5 at the thresholds of images and pixels."""
    return Scores(thresholds[0].squashed(scores.image), thresholds[1].squashed(scores.pixels))


def threshold(scores: torch.Tensor, truth: torch.Tensor) -> Threshold:
    """The score above which the F1 (of pixels: Dice) is highest, midway to the next lower one; width: their deviation.

    Args: scores, truth: of one shape; truth is True where abnormal, which something must be.
    """
    order = scores.flatten().argsort(descending=True)
    ranked, right = scores.flatten()[order].double(), truth.flatten()[order].double()
    f1 = 2 * right.cumsum(0) / (torch.arange(1, len(right) + 1, device=right.device) + right.sum())
    last = torch.ones_like(right, dtype=torch.bool)
    last[:-1] = ranked[1:] < ranked[:-1]  # equal scores are called alike
    best = int(torch.where(last, f1, -1).argmax())
    below = ranked[best + 1] if best + 1 < len(ranked) else ranked[best]
    return Threshold(float((ranked[best] + below) / 2), max(float(ranked.std()), 1e-12))


def judged(
    scores: Scores, labels: torch.Tensor, masks: Sequence[torch.Tensor | None]
) -> tuple[tuple[Threshold, Threshold], dict[str, float]]:
    """Thresholds of images and pixels; and the AUROC of "image" and, where masks are known, of "pixel".

    Without any mask, a pixel counts as abnormal if its image does.
    Raises: ValueError: there is no normal or no abnormal image.
    """
    if not 0 < int(labels.sum()) < len(labels):
        raise ValueError("the validation images must hold normal and abnormal ones: thresholds are set on them")
    quality = {"image": auroc(labels, scores.image)}
    marked = [number for number, mask in enumerate(masks) if mask is not None]
    if marked:
        truth = torch.stack([mask for mask in masks if mask is not None]).to(labels.device)
        pixels = scores.pixels[marked]
        if truth.any() and not truth.all():
            quality["pixel"] = auroc(truth, pixels)
    else:
        pixels = scores.pixels
        truth = labels[:, None, None].expand_as(pixels)
    return (threshold(scores.image, labels), threshold(pixels, truth)), quality
