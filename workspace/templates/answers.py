"""What detectors say of images, as files: a table of scores, a map an image, and the map laid over the image.

It lies beside train.py in an emitted folder.
"""

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from few_shot import Case, load
from harness import Answers, Problem, commit
from mvfa import MVFA, Detector, Reader, Scores, Threshold, upsampled

KEPT = 500  # test images at most whose tokens are kept: the control asks for them again


class Judge(NamedTuple):
    """Something that scores images: `parts` of their tokens, `answers` of those; `folder`: below the predictions."""

    folder: str
    reader: Reader
    parts: Callable
    answers: Callable[..., Scores]


class Finished(NamedTuple):
    """A trained detector, and all who are to answer."""

    detector: Detector
    judges: list[Judge]


def answered(items: list[dict], root: Path, folder: Path, s, model: Finished, overlays=False) -> list[str]:
    """Write predictions.csv and a map an image, of every judge; returns the ids of images that could not be answered.

    Each of these has a line in the log. Args: overlays: also write pictures with the map laid over them.
    """
    answers = Answers(items, root, folder)
    readers = {judge.reader.model: judge.reader for judge in model.judges}
    keep = len(items) <= KEPT

    def batches() -> Iterator[tuple[list[dict], list[Case], dict[MVFA, torch.Tensor]]]:
        left = answers.left
        for start in range(0, len(left), 8):
            read = []
            for item in left[start : start + 8]:
                try:
                    read.append((item, load({**item, "mask": None}, root, s)))
                except Problem as problem:
                    answers.fail(item, problem)
            if read:
                images = torch.stack([case.image for _, case in read])
                tokens = {
                    net: reader.batch(reader.arrays(images)) if keep else reader.fresh(images)
                    for net, reader in readers.items()
                }
                yield [item for item, _ in read], [case for _, case in read], tokens

    if s.scale == "test":
        parts = [model.detector.parts(tokens[model.detector.model]) for *_, tokens in batches()]
        model.detector.scale_on(parts, extremes=True)
        model.detector.thresholds = Threshold(0.5, 0.25), Threshold(0.5, 0.25)  # the paper has none
        answers.failed.clear()
    for some, cases, tokens in batches():
        rows: list[dict[str, list]] = [{} for _ in some]
        for judge in model.judges:
            name, scores = judge.folder, judge.answers(judge.parts(tokens[judge.reader.model]))
            found = zip(some, cases, rows, scores.image.tolist(), scores.pixels.cpu(), strict=True)
            for item, case, row, chance, pixels in found:
                row[name] = [item["id"], s.labels[chance > 0.5], f"{1 - chance:.9f}", f"{chance:.9f}"]
                pixels = upsampled(pixels, case.shape, align_corners=s.align_corners)
                commit(folder / name / f"{item['id']}.png", png((pixels * 65535).round().numpy().astype(np.uint16)))
                if overlays:
                    commit(folder / "overlays" / f"{item['id']}.png", png(overlaid(case, pixels)))
        for item, row in zip(some, rows, strict=True):
            answers.keep(item, row)
    for judge in model.judges:
        text, lines = io.StringIO(), [row[judge.folder] for row in answers.rows.values()]
        csv.writer(text, lineterminator="\n").writerows([["id", "label", *s.labels], *lines])
        commit(folder / judge.folder / "predictions.csv", text.getvalue().encode())
    return answers.failed


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def overlaid(case: Case, pixels: torch.Tensor) -> np.ndarray:
    """The image in grey with what lies above the threshold in red, the more opaque the further above."""
    image = F.interpolate(case.image[None], case.shape, mode="bilinear", align_corners=False)[0]
    share = ((pixels - 0.5) * 2).clamp(0, 1)
    red = torch.tensor([1.0, 0.15, 0.1])[:, None, None]
    return ((image * (1 - share) + red * share) * 255).round().byte().permute(1, 2, 0).numpy()
