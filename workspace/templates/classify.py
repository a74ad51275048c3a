"""Train a classifier of 2D or 3D medical images, with one label or several an image, and answer the test cases.

    python classify.py                                                       on made-up images, in seconds
    python train.py --index index.json --data ROOT --out DIR [--weights FILE] [--set lr=3e-4 ...] [--smoke] [--resume]
    python train.py --predict ITEMS.json --data ROOT --model DIR --out DIR   ITEMS: [{"id": ..., "image": ...}, ...]
    python train.py --space                                                  what Optuna may try, and defaults, as JSON

Prints one JSON line an epoch, {"epoch": 3, "loss": 0.41, "score": 0.83}: the score is the macro one-vs-rest AUROC of
the validation cases. The rest is log and goes to stderr. DIR receives checkpoint.pt (every epoch), model.safetensors
and settings.json (the best epoch, calibrated on the validation cases), predictions/predictions.csv (id, label, one
probability a label) and, last of all, result.json: its presence means done. --smoke takes one step on four cases and
writes nothing.
"""

import csv
import io
import itertools
import math
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import lean  # noqa: F401

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from sklearn.metrics import roc_auc_score

from harness import Problem, Training, answered, command_line, commit, cosine, finish, folds, kept, log, say, unscored
from images import (
    Room,
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

TASK = "classification"
LOSSES = ("ce", "focal")  # cross entropy, focal loss (Lin et al. 2017); their binary forms when multilabel


@dataclass(frozen=True)
class Settings:
    """Every choice of this run."""

    labels: tuple[str, ...] = ("large", "small")
    multilabel: bool = False
    network: str = "cnn"
    backbone: str = ""  # the architecture of a network that --weights were given for
    dims: int = 3
    channels: int = 1
    size: tuple[int, ...] = (24, 24, 24)  # voxels the network sees
    spacing: tuple[float, ...] | None = None  # mm to resample to, then crop or pad; None: fit the image to `size`
    intensity: str = "zscore"  # or "percentile", or "window": a fixed range
    window: tuple[float, float] | None = None
    flips: tuple[int, ...] = ()  # axes that may be mirrored
    augment: float = 0.5  # strength, 0 to 1; blur and fading from 0.5 on
    loss: str = "ce"
    smoothing: float = 0.05  # of the labels, in the cross entropy
    mixup: float = 0.0  # images are blended two by two, the more evenly the larger it is; 0: not at all
    lr: float = 2e-3
    weight_decay: float = 1e-2
    batch: int = 8
    epochs: int = 4
    patience: int = 30  # epochs without a better score before stopping
    width: int = 8  # channels of the first layer
    dropout: float = 0.3
    folds: int = 1  # of training and validation cases; a model each, and the mean of their probabilities
    temperature: float = 1.0  # of the logits; this and the next two are filled in from the cases
    priors: tuple[float, ...] = ()  # how often each label is; (): equally often, as in training
    cuts: tuple[float, ...] = ()  # probability of each label from which on it is answered
    seed: int = 0
    shuffled: bool = False  # the control: patients exchange labels
    workers: int = 2  # threads that read images
    cache_gb: float = 4.0  # prepared images stay in memory up to this size, else in a file below --out
    precision: str = "auto"  # or any of Lightning Fabric, "32-true"


SETTINGS = Settings()

SPACE = {
    "lr": FloatDistribution(3e-4, 1e-2, log=True),
    "augment": FloatDistribution(0.0, 1.0),
    "dropout": FloatDistribution(0.0, 0.5),
    "mixup": FloatDistribution(0.0, 0.4),
    "width": IntDistribution(8, 16, step=8),
    "loss": CategoricalDistribution(("ce", "focal")),
}


def load(item: dict, root: Path, s: Settings) -> np.ndarray:
    """One image as (channels, *size) float16."""
    x, mm = upright(*read_image(item["image"], root, s.dims), s.dims)
    x = with_channels(x, s.channels, item["id"])
    if s.spacing is None:
        x = resized(x, s.size)
    else:
        x = fitted(resized(x, size_at(x.shape[1:], mm, s.spacing, item["id"])), s.size)
    return normalised(x, s).to(torch.float16).numpy()


def load_all(items: list[dict], root: Path, s: Settings, room: Room) -> list[np.ndarray]:
    """All images, read by several threads."""
    with ThreadPoolExecutor(max(1, s.workers)) as pool:
        return list(pool.map(lambda item: room.keep(load(item, root, s), item["id"]), items))


# ---------------------------------------------------------------------------------------------------- labels
def targets(items: list[dict], s: Settings) -> torch.Tensor:
    """Labels as rows of 0 and 1, one column a class."""
    rows = torch.zeros(len(items), len(s.labels))
    for row, item in zip(rows, items, strict=True):
        for label in [item["label"]] if isinstance(item["label"], str) else item["label"]:
            if label not in s.labels:
                raise Problem(f"item {item['id']}: label {label!r} is none of {', '.join(s.labels)}")
            row[s.labels.index(label)] = 1
    return rows


def dealt_out(items: list[dict], seed: int) -> list[dict]:
    """The control: patients exchange labels so that in every class the new labels have the mix of all.

    A plain shuffle of few patients leaves some relation to the truth by chance, and a network makes much of it.
    """
    labels = {item["patient"]: item["label"] for item in items}
    names = {patient: str(label) for patient, label in labels.items()}
    mixed = [list(labels)[i] for i in np.random.default_rng(seed).permutation(len(labels))]
    by_class = sorted(mixed, key=names.__getitem__)
    sizes, seen, place = Counter(names.values()), Counter(), {}
    for patient in by_class:
        place[patient] = (seen[names[patient]] + 0.5) / sizes[names[patient]]
        seen[names[patient]] += 1
    spread = sorted(by_class, key=place.__getitem__)  # any stretch of it holds the mix of all
    dealt = {patient: labels[other] for patient, other in zip(by_class, spread, strict=True)}
    return [{**item, "label": dealt[item["patient"]]} for item in items]


def loss_of(logits: torch.Tensor, truth: torch.Tensor, s: Settings) -> torch.Tensor:
    """Mean loss of a batch; `truth` holds rows of 0 and 1."""
    soft = truth * (1 - s.smoothing) + s.smoothing * (0.5 if s.multilabel else 1 / len(s.labels))
    if s.multilabel:
        each = F.binary_cross_entropy_with_logits(logits, soft, reduction="none")
        right = torch.exp(-F.binary_cross_entropy_with_logits(logits, truth, reduction="none"))
    else:
        each = -(soft * logits.log_softmax(1)).sum(1)
        right = (truth * logits.softmax(1)).sum(1)
    return (each * (1 - right.detach()) ** 2 if s.loss == "focal" else each).mean()


def mixed(x: torch.Tensor, truth: torch.Tensor, s: Settings) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels of a batch, each pair blended by the same share (Zhang et al. 2018, arXiv:1710.09412)."""
    if not s.mixup:
        return x, truth
    share, other = float(torch.distributions.Beta(s.mixup, s.mixup).sample()), torch.randperm(len(x))
    return share * x + (1 - share) * x[other], share * truth + (1 - share) * truth[other]


def auroc(truth: np.ndarray, score: np.ndarray) -> float:
    """Chance that a positive case scores above a negative one; NaN where either is missing."""
    return float(roc_auc_score(truth, score)) if 0 < truth.sum() < len(truth) else math.nan


# ---------------------------------------------------------------------------------------------------- training
def logits_of(net, images: list[np.ndarray], s: Settings, fabric: Fabric, mirrored: bool = False) -> torch.Tensor:
    """(views, N, labels): of the images and, if `mirrored`, of their allowed mirror images."""
    net.eval()
    answers = []
    with torch.inference_mode(), fabric.autocast():
        for start in range(0, len(images), 32):
            x = on_device(images[start : start + 32], fabric.device)
            views = [x, *(x.flip(axis + 2) for axis in s.flips if mirrored)]
            answers.append(torch.stack([net(view).float().cpu() for view in views]))
    return torch.cat(answers, 1)


def probabilities(logits: torch.Tensor, s: Settings) -> np.ndarray:
    """(N, labels), the mean over the views. Args: logits: (views, N, labels)."""
    logits = logits / s.temperature
    if s.multilabel:
        return logits.sigmoid().mean(0).numpy()
    return (logits + (torch.tensor(s.priors).log() if s.priors else 0)).softmax(-1).mean(0).numpy()


def calibrated(logits: torch.Tensor, truth: np.ndarray, training: np.ndarray, s: Settings) -> Settings:
    """Settings with what makes the answers probabilities, and where a label is to be given.

    One temperature for all logits, the likeliest on the validation cases (Guo et al. 2017, arXiv:1706.04599); the
    priors undo that classes were drawn equally often.
    Args: logits: (views, N, labels).  truth: (N, labels) 0 or 1.  training: the same of the training cases.
    """
    often = training.mean(0).clip(1e-6)

    def surprise(s: Settings) -> float:
        chances = probabilities(logits, s).clip(1e-7, 1 - 1e-7)
        return float(-(truth * np.log(chances) + s.multilabel * (1 - truth) * np.log(1 - chances)).mean())

    priors = () if s.multilabel else tuple((often / often.sum()).tolist())
    tried = [replace(s, temperature=round(t, 3), priors=priors) for t in np.geomspace(0.1, 10, 41).tolist()]
    best = min(tried, key=surprise)
    chances = probabilities(logits, best)
    cuts = (cut(chances[:, k], truth[:, k] > 0.5, float(often[k])) for k in range(len(s.labels)))
    return replace(best, cuts=tuple(cuts))


def cut(chances: np.ndarray, truth: np.ndarray, often: float) -> float:
    """The probability that best tells where a label holds: mean of sensitivity and specificity (Youden 1950).

    Of values that do equally well, the nearest to how often the label is, which is the best one of an ideal model.
    """
    if truth.all() or not truth.any():
        return often
    values = np.unique(chances)
    tried = np.array([often, *(values[1:] + values[:-1]) / 2])
    tried = tried[(tried > 0) & (tried < 1)]
    sums = [(chances[truth] >= value).mean() + (chances[~truth] < value).mean() for value in tried]
    return float(min(tried[np.isclose(sums, max(sums))], key=lambda value: abs(value - often)))


def chosen(chances: np.ndarray, s: Settings) -> str:
    """The label of a case, or its labels with `;` between them. Args: chances: (labels,)."""
    above = chances / np.array(s.cuts or ([0.5] * len(s.labels)))
    return ";".join(itertools.compress(s.labels, above >= 1)) if s.multilabel else s.labels[int(above.argmax())]


def train(
    index: dict, root: Path, out: Path, s: Settings, smoke: bool, resume: bool, weights: Path | None = None
) -> None:
    """Data, model, epochs, result."""
    # ---- data
    started = time.perf_counter()
    if tuple(index["labels"]) != s.labels:
        raise Problem(f"the index has the labels {', '.join(index['labels'])}, the settings {', '.join(s.labels)}")
    lists = {
        "training": index["training"][: 3 if smoke else None],
        "validation": index["validation"][: 1 if smoke else None],
    }
    for name, items in lists.items():
        if not items:
            raise Problem(f"the index has no {name} cases")
        if s.shuffled:
            lists[name] = dealt_out(items, s.seed)
    items = [*lists["training"], *lists["validation"]]
    truth, room = targets(items, s), Room(s.cache_gb, out / "cache")
    images = load_all(items, root, s, room)
    log(f"{len(lists['training'])} training and {len(lists['validation'])} validation images read")
    kinds = [tuple(row) for row in truth.int().tolist()]
    s = replace(s, folds=1) if smoke else s
    split = folds(lists["training"], lists["validation"], list(map(str, kinds)), s)
    for fold, (_, checked) in enumerate(split):
        if not smoke and len({kinds[row] for row in checked}) == 1:
            raise unscored("all cases have the same label, so their AUROC does not exist", fold, s)

    # ---- model: a fold takes as many steps as one model alone
    steps = 1 if smoke else math.ceil(len(lists["training"]) / s.batch)
    runs, logits = [], torch.zeros(1 + len(s.flips), len(items), len(s.labels))
    for fold, (learnt, checked) in enumerate(split):
        counts = Counter(kinds[row] for row in learnt)
        chances = torch.tensor([1.0 if s.multilabel else 1 / counts[kinds[row]] for row in learnt])
        folder = out / f"fold-{fold}" if s.folds > 1 else out
        run = Training(s, steps, folder, resume, cosine, first=fold * s.epochs, weights=weights)

        # ---- epochs: classes are drawn equally often
        for epoch in run.epochs():
            for places in torch.multinomial(chances, steps * s.batch, replacement=True).split(s.batch):
                rows = [learnt[place] for place in places.tolist()]
                x, _ = augmented(on_device([images[row] for row in rows], run.fabric.device), s)
                x, y = mixed(weathered(x, s.augment), truth[rows].to(run.fabric.device), s)
                run.step(loss_of(run.net(x).float(), y, s))
            answers = probabilities(logits_of(run.ema, [images[row] for row in checked], s, run.fabric), s)
            if smoke:
                say(smoke=True, loss=run.losses[0], seconds=time.perf_counter() - started)
                return
            areas = [auroc(t, p) for t, p in zip(truth[checked].numpy().T, answers.T, strict=True)]
            run.record(epoch, float(np.nanmean(areas)))
        logits[:, checked] = logits_of(run.best_model(), [images[row] for row in checked], s, run.fabric, mirrored=True)
        runs.append(run)

    # ---- result
    checked = sorted(row for _, rows in split for row in rows)
    s = calibrated(logits[:, checked], truth[checked].numpy(), truth[split[0][0]].numpy(), s)
    net = kept(out, runs, s)
    if s.folds > 1:
        write(map(row_of, items, probabilities(logits, s), itertools.repeat(s)), out / "validation", s)
    failed = predict(index["test"], root, out / "predictions", s, net, runs[0].fabric)
    shutil.rmtree(room.folder, ignore_errors=True)
    finish(out, runs, failed)


def predict(items: list[dict], root: Path, folder: Path, s: Settings, net, fabric: Fabric) -> list[str]:
    """Write predictions.csv; returns the ids of the cases that could not be answered, each with a line in the log."""

    def answer(item: dict) -> list[str]:
        return row_of(item, probabilities(logits_of(net, [load(item, root, s)], s, fabric, mirrored=True), s)[0], s)

    answers = answered(items, root, folder, answer)
    write(answers.rows.values(), folder, s)
    return answers.failed


def row_of(item: dict, chances: np.ndarray, s: Settings) -> list[str]:
    """A case's row in predictions.csv."""
    return [item["id"], chosen(chances, s), *(f"{p:.6f}" for p in chances)]


def write(rows: Iterable[list[str]], folder: Path, s: Settings) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["id", "label", *s.labels], *rows])
    commit(folder / "predictions.csv", text.getvalue().encode())


def made_up(folder: Path) -> dict:
    """Write 24 noisy cubes that hold a large or a small ball; returns their index."""
    random, items = np.random.default_rng(0), []
    radius = np.linalg.norm(np.mgrid[-1:1:24j, -1:1:24j, -1:1:24j], axis=0)
    for i in range(24):
        label = ("large", "small")[i % 2]
        ball = radius < random.uniform(*((0.5, 0.8) if label == "large" else (0.3, 0.6)))
        np.save(folder / f"{i}.npy", (ball + random.normal(0, 0.5, ball.shape)).astype(np.float32))
        items.append({"id": f"case{i}", "patient": f"p{i}", "image": f"{i}.npy", "label": label})
    return {"labels": ["large", "small"], "training": items[:14], "validation": items[14:20], "test": items[20:]}


if __name__ == "__main__":
    sys.exit(command_line(SETTINGS, SPACE, LOSSES, train, predict, made_up, files=("weights",)))
