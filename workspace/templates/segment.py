"""Train a network that marks structures in 2D or 3D medical images, and mark the test cases.

    python segment.py                                                        on made-up images, in seconds
    python train.py --index index.json --data ROOT --out DIR [--set lr=3e-4 ...] [--smoke] [--resume]
    python train.py --predict ITEMS.json --data ROOT --model DIR --out DIR   ITEMS: [{"id": ..., "image": ...}, ...]
    python train.py --space                                                  what Optuna may try, and defaults, as JSON

Prints one JSON line an epoch, {"epoch": 3, "loss": 0.41, "score": 0.83, "dice": {"liver": 0.9, ...}}: the score is the
Dice of each label, mean over the validation cases that show it, mean over the labels. The rest is log and goes to
stderr. DIR receives checkpoint.pt (every epoch), model.safetensors and settings.json (the best epoch), one mask a test
case in predictions/ (<id>.nii.gz, in 2D <id>.png, in the image's own grid) and, last of all, result.json: its presence
means done. --smoke takes one step on four cases and writes nothing.
"""

import itertools
import math
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import lean  # noqa: F401

import numpy as np
import torch
from lightning_fabric import Fabric
from monai.inferers.utils import sliding_window_inference
from monai.losses.dice import DiceCELoss, DiceFocalLoss, DiceLoss
from monai.losses.ds_loss import DeepSupervisionLoss
from monai.losses.focal_loss import FocalLoss
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from torch.nn.modules.loss import _Loss

from harness import Problem, Training, answered, command_line, finish, folds, kept, log, poly, say, unscored
from images import (
    Room,
    as_stored,
    augmented,
    fitted,
    normalised,
    on_device,
    read_image,
    resized,
    size_at,
    upright,
    weathered,
    with_channels,
)
from masks import exchanged, made_up, read_mask, write_mask

TASK = "segmentation"
HELPERS = ("masks.py",)
LOSSES = ("dice_ce", "dice_focal")  # Dice + cross entropy, Dice + focal loss (small lesions)


@dataclass(frozen=True)
class Settings:
    """Every choice of this run."""

    labels: tuple[str, ...] = ("ball", "cube")
    values: tuple[int, ...] = (1, 2)  # of the labels, in the masks
    multilabel: bool = False  # labels overlap: values are bits, and a voxel holds the sum of those that cover it
    network: str = "unet"
    dims: int = 3
    channels: int = 1
    size: tuple[int, ...] = (24, 24, 24)  # voxels of a patch
    spacing: tuple[float, ...] | None = (1.0, 1.0, 1.0)  # mm to resample to; None: the image's own grid
    coarser: float = 1.0  # times that: at low resolution a patch covers more of the body
    intensity: str = "window"  # a fixed range; or "percentile", or "zscore": of the image
    window: tuple[float, float] | None = (-200.0, 200.0)
    flips: tuple[int, ...] = ()  # axes that may be mirrored; never left-right for sided labels
    augment: float = 0.5  # strength, 0 to 1; blur and fading from 0.5 on
    loss: str = "dice_ce"
    lr: float = 5e-3
    weight_decay: float = 1e-2
    batch: int = 2  # patches a step
    crops: int = 4  # patches an image and epoch
    epochs: int = 4
    patience: int = 30  # epochs without a better score before stopping
    width: int = 16  # channels of the first level
    residual: bool = False  # dynunet only: a skip a level of the encoder
    slicewise: bool = False  # dynunet only: a 2D network, which sees every slice by itself
    seed: int = 0
    folds: int = 1  # of training and validation cases; a model each, and the mean of their probabilities
    shuffled: bool = False  # the control: every image gets the mask of another patient
    workers: int = 2  # threads that read images
    cache_gb: float = 4.0  # prepared images stay in memory up to this size, the others in files below --out
    precision: str = "auto"  # or any of Lightning Fabric, "32-true"


SETTINGS = Settings()
PRESETS = {"residual": {"residual": True}, "slicewise": {"slicewise": True}}

SPACE = {
    "lr": FloatDistribution(1e-3, 2e-2, log=True),
    "augment": FloatDistribution(0.0, 1.0),
    "width": IntDistribution(8, 24, step=8),
    "loss": CategoricalDistribution(("dice_ce", "dice_focal")),
}


@dataclass(frozen=True)
class Case:
    """A prepared image and mask, and where each label can be found in it."""

    image: np.ndarray  # (channels, *space) float16
    mask: np.ndarray  # (*space) uint8, 0 for the background, 1 for the first label; multilabel: uint32, bit 0 for it
    places: list[np.ndarray]  # for each class that occurs: voxels (n, dims)


# ---------------------------------------------------------------------------------------------------- cases
def load_image(item: dict, root: Path, s: Settings) -> tuple[torch.Tensor, tuple[int, ...], np.ndarray | None]:
    """The prepared image (C, *space); the shape of the upright image before resampling; the file's affine."""
    array, affine = read_image(item["image"], root, s.dims)
    x, mm = upright(array, affine, s.dims)
    shape = tuple(x.shape[1:])
    size = [max(1, round(n / s.coarser)) for n in size_at(shape, mm, s.spacing, item["id"])]
    x = resized(with_channels(x, s.channels, item["id"]), size)
    return normalised(x, s), shape, affine


def load_case(item: dict, root: Path, s: Settings) -> Case:
    """Image and mask on the same grid, at least as large as a patch."""
    x, shape, affine = load_image(item, root, s)
    mask = numbered(read_mask(item, root, s, shape, affine), s)
    mask = resized(mask, x.shape[1:], mode="nearest-exact")
    size = [max(n, patch) for n, patch in zip(x.shape[1:], s.size, strict=True)]
    x = fitted(x, size).to(torch.float16).numpy()
    classes = fitted(mask, size, 0.0)[0].numpy().astype(np.uint32 if s.multilabel else np.uint8)
    random, places = np.random.default_rng(0), []
    for shown in (classes == 0, *(shows(classes, number, s) for number in range(1, len(s.labels) + 1))):
        found = np.flatnonzero(shown)
        if len(found):
            some = random.choice(found, min(len(found), 5000), replace=False)
            places.append(np.stack(np.unravel_index(some, classes.shape), 1).astype(np.int16))
    return Case(x, classes, places)


def numbered(y: torch.Tensor, s: Settings) -> torch.Tensor:
    """A mask in the dataset's values to one in the template's own: labels 1, 2, 3, ..., or bits 1, 2, 4, ..."""
    mask = torch.zeros_like(y)
    for number, value in enumerate(s.values):
        if s.multilabel:
            mask += (y.long() & value != 0) * 2.0**number
        else:
            mask[y == value] = number + 1
    return mask


def shows(mask, number: int, s: Settings):
    """Where a mask in the template's own values shows the label of that number, from 1 on; an array or a tensor."""
    return mask & (1 << (number - 1)) != 0 if s.multilabel else mask == number


def load_all(items: list[dict], root: Path, s: Settings, room: Room) -> list[Case]:
    """All cases, read by several threads."""

    def kept(item: dict) -> Case:
        case = load_case(item, root, s)
        return replace(case, image=room.keep(case.image, item["id"]), mask=room.keep(case.mask, f"{item['id']}-mask"))

    with ThreadPoolExecutor(max(1, s.workers)) as pool:
        return list(pool.map(kept, items))


def patch_of(case: Case, s: Settings) -> tuple[np.ndarray, np.ndarray]:
    """A patch around a voxel of a class, each class of the case as likely as the next: (C, *size) and (1, *size)."""
    places = case.places[int(torch.randint(len(case.places), ()))]
    voxel = places[int(torch.randint(len(places), ()))]
    starts = [
        min(max(int(v) - size // 2, 0), n - size) for v, size, n in zip(voxel, s.size, case.mask.shape, strict=True)
    ]
    window = tuple(slice(start, start + size) for start, size in zip(starts, s.size, strict=True))
    return case.image[(slice(None), *window)], case.mask[window][None]


# ---------------------------------------------------------------------------------------------------- training
def loss_for(s: Settings) -> torch.nn.Module:
    """(logits or, from a network with deep supervision, a list of them; truth (B, 1, *size)) -> loss."""
    if s.multilabel:
        return DeepSupervisionLoss(Overlapping(s))
    kind = {"dice_ce": DiceCELoss, "dice_focal": DiceFocalLoss}[s.loss]
    return DeepSupervisionLoss(kind(include_background=False, to_onehot_y=True, softmax=True, batch=True))


class Overlapping(_Loss):
    """The loss of labels that may lie over each other: each its own yes or no, the background channel left out."""

    def __init__(self, s: Settings):
        super().__init__()
        self.s = s
        self.overlap = DiceLoss(sigmoid=True, batch=True)
        focal = FocalLoss(use_softmax=False)
        self.doubt = torch.nn.BCEWithLogitsLoss() if s.loss == "dice_ce" else focal

    def forward(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        labels = range(1, len(self.s.labels) + 1)
        bits = torch.cat([shows(truth.long(), number, self.s) for number in labels], 1).to(logits.dtype)
        return self.overlap(logits[:, 1:], bits) + self.doubt(logits[:, 1:], bits)


def marked(net, x: torch.Tensor, s: Settings, fabric: Fabric, overlap: float) -> torch.Tensor:
    """Probabilities (1 + labels, *space) of one image (C, *space), patch by patch, centres counting most.

    Of labels that may overlap, each has its own, and the background's is 0.
    """
    how = {"cval": float(x.min()), "sw_device": fabric.device}  # the least lies around images smaller than a patch
    with torch.inference_mode(), fabric.autocast():
        whole = x[None].to(where_it_fits(x, s, fabric.device))
        logits = sliding_window_inference(
            whole, s.size, 4, lambda patch: net(patch).float(), overlap, "gaussian", device=whole.device, **how
        )
    if not s.multilabel:
        return logits[0].softmax(0)
    chances = logits[0].sigmoid()
    chances[0] = 0
    return chances


def where_it_fits(x: torch.Tensor, s: Settings, device: torch.device) -> torch.device:
    """Where the logits of a whole image are put together: on the GPU, unless they would fill it."""
    if device.type != "cuda":
        return device
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    needed = 4 * (1 + len(s.labels)) * x[0].numel() * 3  # float32: the sum, its mean and their softmax
    return device if needed < free / 2 else torch.device("cpu")


def marked_mirrored(net, x: torch.Tensor, s: Settings, fabric: Fabric) -> torch.Tensor:
    """As `marked`, the mean over the image and its allowed mirror images."""
    axes = [axis + 1 for axis in s.flips]
    ways = [list(way) for count in range(len(axes) + 1) for way in itertools.combinations(axes, count)]
    total = torch.zeros(())
    for way in ways:  # one at a time: a large volume has no room for all of them
        total = total + marked(net, x.flip(way), s, fabric, 0.5).cpu().flip(way)
    return total / len(ways)


def dice(answer: np.ndarray, truth: np.ndarray, s: Settings) -> list[float]:
    """2 |A and B| / (|A| + |B|) of each label; NaN where the truth does not show it."""
    scores = []
    for number in range(1, len(s.labels) + 1):
        a, b = shows(answer, number, s), shows(truth, number, s)
        scores.append(2 * np.count_nonzero(a & b) / (a.sum() + b.sum()) if b.any() else math.nan)
    return scores


def score_of(case: Case, run: Training, s: Settings) -> list[float]:
    """Dice of each label in one validation case, on the training grid."""
    chances = marked(run.ema, torch.from_numpy(case.image.astype(np.float32)), s, run.fabric, overlap=0.25)
    return dice(chosen(chances, s), case.mask, s)


def chosen(chances: torch.Tensor, s: Settings) -> np.ndarray:
    """Probabilities (1 + labels, *space) to a mask in the template's own values: the likeliest class, or every bit that
    is likelier than not."""
    if not s.multilabel:
        return chances.argmax(0).to(torch.int16).cpu().numpy()
    weights = 2 ** torch.arange(len(s.labels), device=chances.device).view(-1, *[1] * s.dims)
    return ((chances[1:] > 0.5) * weights).sum(0).cpu().numpy()


def train(index: dict, root: Path, out: Path, s: Settings, smoke: bool, resume: bool) -> None:
    """Data, model, epochs, result."""
    # ---- data
    started = time.perf_counter()
    if tuple(index["labels"]) != s.labels:
        raise Problem(f"the index has the labels {', '.join(index['labels'])}, the settings {', '.join(s.labels)}")
    most = {"training": 3 if smoke else None, "validation": 1 if smoke else None}
    lists = {name: index[name][:count] for name, count in most.items()}
    for name, items in lists.items():
        if not items:
            raise Problem(f"the index has no {name} cases")
        if s.shuffled:
            lists[name] = exchanged(items, s.seed)
    room, items = Room(s.cache_gb, out / "cache"), [*lists["training"], *lists["validation"]]
    cases = load_all(items, root, s, room)
    log(f"{len(lists['training'])} training and {len(lists['validation'])} validation images read")
    s, loss = replace(s, folds=1) if smoke else s, loss_for(s)

    kinds = [str(np.unique(case.mask)) for case in cases] if s.folds > 1 else []
    split = folds(lists["training"], lists["validation"], kinds, s)
    for fold, (_, checked) in enumerate(split):
        if not smoke and not any(cases[row].mask.any() for row in checked):
            raise unscored("no mask holds any of the labels", fold, s)

    # ---- model: a fold takes as many steps as one model alone
    runs, steps = [], 1 if smoke else math.ceil(len(lists["training"]) * s.crops / s.batch)
    for fold, (learnt, checked) in enumerate(split):
        folder = out / f"fold-{fold}" if s.folds > 1 else out
        run = Training(s, steps, folder, resume, poly, first=fold * s.epochs)

        # ---- epochs: every image gives `crops` patches
        for epoch in run.epochs():
            order = torch.randperm(len(learnt)).repeat(math.ceil(steps * s.batch / len(learnt)))[: steps * s.batch]
            for places in order.split(s.batch):
                drawn = (patch_of(cases[learnt[place]], s) for place in places.tolist())
                images, masks = map(list, zip(*drawn, strict=True))
                x, y = augmented(on_device(images, run.fabric.device), s, on_device(masks, run.fabric.device))
                run.step(loss(run.net(weathered(x, s.augment)), y))
            run.ema.eval()
            scores = np.array([score_of(cases[row], run, s) for row in checked])
            if smoke:
                say(smoke=True, loss=run.losses[0], seconds=time.perf_counter() - started)
                return
            shown = ~np.isnan(scores).all(0)
            each = dict(zip(np.array(s.labels)[shown].tolist(), np.nanmean(scores[:, shown], 0).tolist(), strict=True))
            run.record(epoch, float(np.mean(list(each.values()))), dice=each)
        runs.append(run)
        if s.folds > 1:
            predict([items[row] for row in checked], root, out / "validation", s, run.best_model(), run.fabric)

    # ---- result
    failed = predict(index["test"], root, out / "predictions", s, kept(out, runs, s), runs[0].fabric)
    shutil.rmtree(room.folder, ignore_errors=True)
    finish(out, runs, failed)


# ---------------------------------------------------------------------------------------------------- answers
def mask_of(item: dict, root: Path, s: Settings, net, fabric: Fabric) -> tuple[np.ndarray, np.ndarray | None]:
    """The mask in the image's own grid, in the mask values of the dataset, and the image's affine."""
    x, shape, affine = load_image(item, root, s)
    chances = marked_mirrored(net, x, s, fabric)
    most = sum(s.values) if s.multilabel else max(s.values)
    values = np.asarray([0, *s.values], np.uint8 if most < 256 else np.uint16)
    best, answer = torch.full(shape, -1.0), np.zeros(shape, values.dtype)
    for number, chance in enumerate(chances):  # one class at a time: a large volume has no room for all of them
        chance = resized(chance[None], shape)[0]
        if s.multilabel:
            answer[(chance > 0.5).numpy()] |= values[number]
            continue
        better = chance > best
        best[better], answer[better.numpy()] = chance[better], values[number]
    return as_stored(answer, affine), affine


def predict(items: list[dict], root: Path, folder: Path, s: Settings, net, fabric: Fabric) -> list[str]:
    """Write one mask a case; returns the ids of the cases that could not be answered, each with a line in the log."""

    def answer(item: dict) -> None:
        write_mask(*mask_of(item, root, s, net, fabric), folder, item["id"])

    return answered(items, root, folder, answer).failed


if __name__ == "__main__":
    sys.exit(command_line(SETTINGS, SPACE, LOSSES, train, predict, made_up))
