"""The cases of an anomaly detection: images with their masks, the few that are learnt from, and the control.

It lies beside train.py in an emitted folder.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F

from harness import Problem
from images import normalised, read_image, upright, with_channels
from mvfa import Batch


class Case(NamedTuple):
    """An image (3, *size) in 0..1; what is marked abnormal in it, (*size) bool; rows and columns of the file."""

    image: torch.Tensor
    mask: torch.Tensor | None
    shape: tuple[int, int]


def load(item: dict, root: Path, s) -> Case:
    """One image, and its mask if the item names one."""
    array, _ = read_image(item["image"], root, 2)
    x, _ = upright(array, None, 2)
    shape = (int(x.shape[1]), int(x.shape[2]))
    if s.intensity != "unit":
        x = (normalised(x, s) + 1) / 2
    elif x.min() >= 0 and x.max() <= 255:
        x = x / 255
    else:
        raise Problem(
            f"{item['image']}: values from {x.min():g} to {x.max():g} are not those of an 8-bit picture; "
            "set intensity=percentile"
        )
    x = with_channels(x, 3, item["image"])
    x = F.interpolate(x[None].float(), s.size, mode="bicubic", antialias=True, align_corners=False)[0].clamp(0, 1)
    if not item.get("mask"):
        return Case(x, None, shape)
    marked, _ = read_image(item["mask"], root, 2)
    if marked.shape[:2] != shape:
        raise Problem(
            f"{item['mask']}: a mask of {marked.shape[0]} x {marked.shape[1]} pixels for an image of {shape[0]} x "
            f"{shape[1]}; mend or leave out this case"
        )
    marked = torch.from_numpy(marked if marked.ndim == 2 else marked.max(-1))
    return Case(x, F.interpolate(marked[None, None], s.size, mode="nearest")[0, 0] > 0, shape)


def load_all(items: list[dict], root: Path, s) -> list[Case]:
    """All images, read by several threads."""
    with ThreadPoolExecutor(max(1, s.workers)) as pool:
        return list(pool.map(lambda item: load(item, root, s), items))


def drawn(items: list[dict], s) -> list[dict]:
    """`shots` normal and as many abnormal images; those of fewer shots are among those of more.

    Patient after patient gives one image before any gives a second. All images if `shots` is 0.
    """
    if not s.shots:
        return items
    chosen = []
    for label in s.labels:
        seen: dict[str, int] = {}
        ranked = []
        for item in sorted((item for item in items if item["label"] == label), key=lambda item: _lot(item, s.draw)):
            seen[item["patient"]] = seen.get(item["patient"], 0) + 1
            ranked.append((seen[item["patient"]], len(ranked), item))
        if len(ranked) < s.shots:
            raise Problem(
                f"{s.shots} {label} images were asked for, the training list holds {len(ranked)}: lower shots, or add "
                f"{label} images"
            )
        chosen += [item for *_, item in sorted(ranked, key=lambda entry: entry[:2])[: s.shots]]
    return chosen


def _lot(item: dict, draw: int) -> bytes:
    return blake2b(f"{draw} {item['id']}".encode(), digest_size=8).digest()


def exchanged(items: list[dict], cases: list[Case], s) -> tuple[list[dict], list[Case]]:
    """The control: every second normal image exchanges label and mask with an abnormal one."""
    order = sorted(range(len(items)), key=lambda k: _lot(items[k], s.draw))
    sides = [[k for k in order if items[k]["label"] == label] for label in s.labels]
    items, cases = list(items), list(cases)
    for one, other in list(zip(*sides, strict=False))[::2]:
        labels, masks = (items[one]["label"], items[other]["label"]), (cases[one].mask, cases[other].mask)
        for k, label, mask in zip((other, one), labels, masks, strict=True):
            items[k], cases[k] = items[k] | {"label": label}, cases[k]._replace(mask=mask)
    return items, cases


def undecided(batches: Iterable[Batch], masks: Sequence[torch.Tensor | None]) -> Iterator[Batch]:
    """The control's validation: each batch twice, once as if all its images were normal and once as if abnormal.

    So no part of a score is worth more than another, not even by luck; where half of some twenty images exchange
    labels, luck chooses.  masks: of all validation images; as the abnormal one each is given another's.
    """
    marked = [mask for mask in masks if mask is not None and mask.any()]
    turn = cycle(marked)

    def of_another(own: torch.Tensor) -> torch.Tensor:
        return next((mask for mask in islice(turn, 2) if mask is not own), own)

    for batch in batches:
        clear = [None if mask is None else torch.zeros_like(mask) for mask in batch.masks]
        given = [None if mask is None else of_another(mask) for mask in batch.masks]
        yield batch._replace(labels=torch.zeros_like(batch.labels), masks=clear)
        yield batch._replace(labels=torch.ones_like(batch.labels), masks=given)
