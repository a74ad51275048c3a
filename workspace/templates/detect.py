"""Find what is abnormal in 2D images from a few normal and abnormal ones, by MVFA's adapters on a frozen CLIP.

    python detect.py                                                         on made-up images, in seconds
    python train.py --index index.json --data ROOT --out DIR [--weights CLIP] [--cache DIR] [--preset paper]
                    [--set lr=3e-4 ...] [--smoke] [--resume]
    python train.py --predict ITEMS.json --data ROOT --model DIR --out DIR [--weights CLIP]
    python train.py --space                                                  what Optuna may try, and defaults, as JSON

Huang et al. 2024, arXiv:2403.12570. Few-shot: `shots` normal and as many abnormal images of the training list. With 0
shots the whole list is learnt from, which must be of other datasets (zero-shot). Without --weights the CLIP is random:
all runs, but its tokens know nothing of images.

Prints one JSON line an epoch, {"epoch": 3, "loss": 0.41, "score": 0.83}: the score is the AUROC of the validation
images or, where there are masks, its mean with that of their pixels. The rest is log and goes to stderr. DIR receives

    checkpoint.pt (every epoch), model.safetensors, settings.json
    adapters.pth                                  the model as the authors of MVFA write it
    detector.json, detector.safetensors           scales and thresholds, memory bank
    predictions/predictions.csv                   id, label, normal, abnormal: above 0.5 is called abnormal
    predictions/<id>.png                          16-bit maps on the image's own grid, above 32767 is abnormal
    predictions/clip, predictions/bank            the same, by two detectors that learnt nothing
    cache                                         what CLIP made of the images
    result.json                                   last of all: its presence means done

--smoke takes one step on two images and writes nothing.
"""

import math
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import lean  # noqa: F401

import torch
from lightning_fabric import Fabric
from optuna.distributions import CategoricalDistribution, FloatDistribution

from answers import Finished, Judge, answered, png
from few_shot import Case, drawn, exchanged, load_all, undecided
from harness import (
    Habits,
    Problem,
    Training,
    command_line,
    commit,
    constant,
    cosine,
    fabric_for,
    log,
    saved_settings,
    say,
)
from mvfa import (
    MEDICAL_STATES,
    MVFA,
    PAPER_STATES,
    Detector,
    FeatureCache,
    Known,
    MemoryBank,
    Reader,
    Scores,
    Scoring,
    augment,
    bank_scores,
    clip_scores,
    fingerprint,
    judged,
    load_adapters,
    save_adapters,
    squashed,
    text_features,
)
from network import network

TASK = "anomaly_detection"
# Cross entropy of an image's log-odds; or (paper) of its probability, taken for log-odds.
LOSSES = ("log-odds", "probability")
PACKAGES = ("mvfa",)  # imported beside what all templates import, and so:
HELPERS = ("answers.py", "few_shot.py")
PRESETS = {
    "paper": {
        "residual": 0.2,
        "activation": "gelu",
        "normalize": False,
        "align_corners": True,
        "memory": "adapters",
        "bank_cls": True,
        "words": "paper",
        "loss": "probability",
        "highest": 1.0,
        "scale": "test",
        "augment": 1.0,
        "flips": (0, 1),
        "lr": 1e-3,
        "batch": 1,
        "epochs": 50,
        "beta": 0.5,
        "schedule": "constant",
        "averaged": False,
        "keep": "last",
    },
    "paper zero-shot": {
        "shots": 0,
        "residual": 0.2,
        "activation": "gelu",
        "normalize": False,
        "align_corners": True,
        "words": "paper",
        "loss": "probability",
        "highest": 0.0,
        "augment": 0.0,
        "lr": 1e-4,
        "batch": 1,
        "epochs": 50,
        "beta": 0.5,
        "schedule": "constant",
        "averaged": False,
        "keep": "last",
    },
}


@dataclass(frozen=True)
class Settings:
    """Every choice of this run."""

    labels: tuple[str, ...] = ("normal", "abnormal")
    about: str = "made-up picture"  # what the images show, for the text prompts
    network: str = "clip_vit_b16"
    dims: int = 2
    channels: int = 3
    size: tuple[int, ...] = (64, 64)  # pixels the network sees
    intensity: str = "unit"  # 8-bit pictures as they are; or "percentile", or "window": a fixed range
    window: tuple[float, float] | None = None
    shots: int = 4  # normal images to learn from, and as many abnormal ones; 0: zero-shot
    draw: int = 0  # another draw of the shots
    levels: str = "1/4 1/2 3/4 1"  # blocks whose tokens are read, as parts of CLIP's depth
    residual: float = 0.0  # share of the adapters in the tokens of the next block (paper 0.2); 0: all of CLIP is cached
    activation: str = "own"  # of CLIP: the one its weights were trained with, or "gelu" (paper), or "quick_gelu"
    normalize: bool = True  # by CLIP's mean and deviation
    words: str = "medical"  # of the text prompts, or "paper"
    temperature: float = 0.01  # of the similarity to the text
    fusion: float = 0.5  # weight of the memory bank against the text
    highest: float | None = None  # in an image's score, weight of the highest pixel against the detection adapters
    # (paper); None: adapters, bank and a linear probe count by what they are worth on the validation images
    memory: str = "trunk"  # whose tokens of normal images are remembered: CLIP's, or those of the "adapters" (paper)
    bank_cls: bool = False  # whether the memory bank holds the class tokens too
    align_corners: bool = False  # how maps are enlarged
    scale: str = "validation"  # what scores are scaled on; or "test", which needs all test images at once (paper)
    flips: tuple[int, ...] = (1,)  # axes that may be mirrored
    augment: float = 1.0  # angle and shift of the turned and moved views, in parts of the paper's; 0: no views
    loss: str = "log-odds"
    lr: float = 1e-3
    weight_decay: float = 0.0
    batch: int = 8
    epochs: int = 4
    patience: int = 30  # epochs without a better score before stopping
    beta: float = 0.9  # of Adam: how long gradients are remembered
    schedule: str = "cosine"  # of the learning rate, or "constant"
    averaged: bool = True  # whether the model is a running average of the weights
    keep: str = "best"  # the epoch with the best validation score, or "last"
    seed: int = 0
    shuffled: bool = False  # the control: half of the images learnt from exchange labels, validation ones have both
    workers: int = 2  # threads that read images
    cache_gb: float = 4.0  # tokens of CLIP stay in memory up to this size, else in files
    precision: str = "auto"  # or any of Lightning Fabric, "32-true"
    compile: bool = False  # CLIP by torch.compile, on a GPU only; needs a C compiler


SETTINGS = Settings()
SCHEDULES = {"cosine": cosine, "constant": constant}
STATES = {"medical": MEDICAL_STATES, "paper": PAPER_STATES}
CHOICES = {
    "activation": ("own", "gelu", "quick_gelu"),
    "words": tuple(STATES),
    "memory": ("trunk", "adapters"),
    "scale": ("validation", "test"),
    "schedule": tuple(SCHEDULES),
    "keep": ("best", "last"),
}

SPACE = {
    "lr": FloatDistribution(1e-4, 5e-3, log=True),
    "temperature": FloatDistribution(0.005, 0.05, log=True),
    "fusion": FloatDistribution(0.0, 1.0),
    "augment": FloatDistribution(0.25, 1.0),
    "memory": CategoricalDistribution(("trunk", "adapters")),
    "levels": CategoricalDistribution(("1/4 1/2 3/4 1", "1/4 1/2", "1/2 3/4 1")),
}


# ---------------------------------------------------------------------------------------------------- backbone
class Backbone(NamedTuple):
    """A frozen CLIP.

    adapted: reads images for the adapters that are trained.  plain: reads CLIP's own tokens, the last block's too.
    new, known: folders for tokens and texts; the former is written to.
    """

    clip: torch.nn.Module
    hash: str
    adapted: Reader
    plain: Reader
    new: Path | None
    known: list[Path]

    def text(self, about: str, words: str) -> torch.Tensor:
        """(E, 2): what a normal and an abnormal image of the subject is called."""
        text = text_features(self.clip, about, STATES[words], self.new, self.known)
        return text.to(self.plain.device)


def backbone(s: Settings, weights: Path | None, fabric: Fabric, new: Path | None, known: Path | None) -> Backbone:
    """CLIP on the device, and fresh adapters."""
    if weights is None:
        log("no --weights: CLIP's weights are random, its tokens know nothing of images")
    try:
        clip = network(s, *([weights] if weights else []))
        depth = len(clip.visual.transformer.resblocks)
        layers = tuple(sorted({max(1, round(_part(level) * depth)) for level in s.levels.split()}))
        torch.manual_seed(s.seed)
        adapted = MVFA(clip, layers, residual=(1 - s.residual, s.residual / 2, s.residual / 2))
        plain = MVFA(clip, tuple(sorted({*layers, depth})), residual=(1.0, 0.0, 0.0))
    except ValueError as error:
        raise Problem(str(error)) from None
    hash, folders = fingerprint(clip), [known] if known else []

    def reader(model: MVFA) -> Reader:
        layers = model.layers if model.all_frozen else model.layers[0]
        form = (hash, s.size, s.activation, s.normalize, layers, fabric.device.type, s.precision)
        cache = FeatureCache(repr(form), folders, new, s.cache_gb)
        if s.compile and fabric.device.type == "cuda":
            model.compiled()
        return Reader(model.to(fabric.device), cache, s.normalize, fabric.autocast)

    first = reader(adapted)
    alike = adapted.all_frozen and adapted.layers == plain.layers
    return Backbone(clip, hash, first, first if alike else reader(plain), new, folders)


def _part(text: str) -> float:
    """A part of one: "3/4" or "0.75"."""
    above, _, below = text.partition("/")
    try:
        part = float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        part = math.nan
    if not 0 < part <= 1:
        raise Problem(f"levels: expected parts of CLIP's depth such as '1/4 1/2 3/4 1', got {text!r}")
    return part


def check(s: Settings) -> None:
    """Raises: Problem: a setting that nothing can be done with."""
    for name, known in CHOICES.items():
        if getattr(s, name) not in known:
            raise Problem(f"{name}: expected one of {', '.join(known)}, got {getattr(s, name)!r}")
    for name in ("residual", "fusion", "highest"):
        if (value := getattr(s, name)) is not None and not 0 <= value <= 1:
            raise Problem(f"{name}: expected 0 to 1, got {value:g}")


def device_for(s: Settings) -> Fabric:
    """As in `fabric_for`, but float32 on every CPU: attention's bfloat16 gradients are slower there than float32."""
    cpu = s.precision == "auto" and not torch.cuda.is_available()
    return fabric_for(replace(s, precision="32-true") if cpu else s, torch.nn.Identity())


# ---------------------------------------------------------------------------------------------------- learning
def known(items: list[dict], cases: list[Case], marked: set[str], s: Settings, reader: Reader, views: bool) -> Known:
    """Labelled images as tokens. Args: marked: subjects whose anomalies have masks.  views: turn, move and mirror."""
    images, labels, masks, abouts = [], [], [], []
    for item, case in zip(items, cases, strict=True):
        about, label = item.get("about") or s.about, s.labels.index(item["label"])
        mask = case.mask
        if mask is None and label == 0 and about in marked:
            mask = torch.zeros(s.size, dtype=torch.bool)
        image, seen = case.image[None], None if mask is None else mask[None]
        if views:
            mirrors = tuple(("vertical", "horizontal")[axis] for axis in s.flips)
            image, seen = augment(image, seen, strength=s.augment, flips=mirrors)
        images.append(image)
        labels += [label] * len(image)
        masks += [None] * len(image) if seen is None else list(seen.bool())
        abouts += [about] * len(image)
    return Known(reader, reader.arrays(torch.cat(images)), torch.tensor(labels), masks, abouts, len(images[0]))


def train(
    index: dict,
    root: Path,
    out: Path,
    s: Settings,
    smoke: bool,
    resume: bool,
    weights: Path | None = None,
    cache: Path | None = None,
) -> None:
    """Data, model, epochs, result."""
    # ---- data
    started = time.perf_counter()
    check(s)
    if tuple(index["labels"]) != s.labels:
        raise Problem(f"the index has the labels {', '.join(index['labels'])}, the settings {', '.join(s.labels)}")
    kept = replace(s, shots=1) if smoke else s
    lists = {"training": drawn(index["training"], kept), "validation": index["validation"]}
    if smoke:
        lists["validation"] = drawn(index["validation"], kept)
    for name, items in lists.items():
        if {item["label"] for item in items} != set(s.labels):
            raise Problem(f"the {name} list must hold both {' and '.join(s.labels)} images")
    marked = {item.get("about") or s.about for item in lists["training"] if item.get("mask")}
    cases = {name: load_all(items, root, s) for name, items in lists.items()}
    if s.shuffled:
        lists["training"], cases["training"] = exchanged(lists["training"], cases["training"], s)
    log(f"{len(cases['training'])} training and {len(cases['validation'])} validation images read")

    # ---- model
    fabric = device_for(s)
    new = out / "cache"
    core = backbone(s, weights, fabric, None if smoke else new, cache)

    def read(reader: Reader) -> dict[str, Known]:
        views = s.shots > 0 and s.augment > 0
        return {n: known(i, cases[n], marked, s, reader, views and n == "training") for n, i in lists.items()}

    data = read(core.adapted)
    abouts = dict.fromkeys([s.about, *data["training"].abouts, *data["validation"].abouts])
    text = {about: core.text(about, s.words) for about in abouts}
    rows, columns = s.size
    highest = s.highest if marked or s.highest is None else 0.0
    scoring = (s.temperature, s.fusion, highest, s.memory, s.bank_cls, s.align_corners)
    how = Scoring((rows, columns), bool(marked), *scoring)
    count = len(data["training"].labels)
    steps = 1 if smoke else math.ceil(count / s.batch)
    habits = Habits((s.beta, 0.999), averaged=s.averaged, last=s.keep == "last" or s.shuffled)
    if s.schedule == "constant":
        habits = replace(habits, warm=0.0, norm=None)
    model = core.adapted.model
    run = Training(s, steps, out, resume, SCHEDULES[s.schedule], model.adapters, fabric, habits)
    losses = {"temperature": s.temperature, "align_corners": s.align_corners, "detection": s.loss}

    def fitted(adapters, views: bool) -> Detector:
        few, validation = data["training"], data["validation"].batches(text)
        if s.shuffled:
            validation = undecided(validation, data["validation"].masks)
        normals, taught = (few.normals(views), few.batches(text, views)) if s.shots else ((), ())
        return Detector.fitted(model, adapters, text[s.about], how, normals, validation, taught)

    # ---- epochs
    for epoch in run.epochs():
        for rows in torch.randperm(count).split(s.batch)[:steps]:
            run.step(data["training"].loss(rows.tolist(), text, s.size, **losses))
        quality = fitted(run.ema.eval(), views=False).quality
        if smoke:
            say(smoke=True, loss=run.losses[0], seconds=time.perf_counter() - started)
            return
        run.record(epoch, sum(quality.values()) / len(quality), **quality)

    # ---- result
    best = run.best_model()
    tried = [fitted(best, views) for views in ((True, False) if s.scale == "validation" and s.shots else (True,))]
    detector = max(tried, key=lambda one: sum(one.quality.values()))  # views widen what is normal, for good or ill
    commit(out / "backbone.txt", core.hash.encode())
    detector.save(out)
    save_adapters(detector.adapters, out / "adapters.pth")
    judges = [Judge("", core.adapted, detector.parts, detector.answers)]
    if s.draw == 0 and not s.shuffled and index["test"]:
        judges += untrained(data if core.plain is core.adapted else read(core.plain), text, s, core, how)
    run.finish(answered(index["test"], root, out / "predictions", s, Finished(detector, judges)))


def untrained(
    data: dict[str, Known], text: dict[str, torch.Tensor], s: Settings, core: Backbone, how: Scoring
) -> list[Judge]:
    """Two judges to compare with, which learn nothing but thresholds: plain CLIP, and a bank of its tokens."""
    plain = core.plain.model
    levels = [plain.layers.index(layer) for layer in core.adapted.model.layers]
    found = {"clip": lambda taps: clip_scores(plain, taps, text[s.about], how)}
    if s.shots:
        normals = torch.cat(list(data["training"].normals()), 1)
        bank = MemoryBank(list(normals[levels]), cls=False)
        found["bank"] = lambda taps: bank_scores(plain, bank, taps[levels], how)
    judges = []
    for name, scores in found.items():
        batches = list(data["validation"].batches(text))
        on_validation = Scores(*map(torch.cat, zip(*(scores(batch.frozen) for batch in batches), strict=True)))
        labels = torch.cat([batch.labels for batch in batches]).bool()
        thresholds, _ = judged(on_validation, labels, [mask for batch in batches for mask in batch.masks])
        judges.append(Judge(name, core.plain, scores, partial(squashed, thresholds)))
    return judges


def predict(items: list[dict], root: Path, folder: Path, s: Settings, net: Finished, fabric: Fabric) -> list[str]:
    """Answer new images in one pass, with pictures; returns the ids of those that could not be answered."""
    return answered(items, root, folder, s, net, overlays=True)


def load_model(folder: Path, kind: type, weights: Path | None = None) -> tuple[Settings, Finished, Fabric]:
    """A finished training: settings, model, device."""
    s = replace(saved_settings(folder, kind), scale="validation")
    fabric = device_for(s)
    core = backbone(s, weights, fabric, None, None)
    if core.hash != (folder / "backbone.txt").read_text():
        raise Problem(f"{folder} was trained on another CLIP: give the --weights that it was trained with")
    model = core.adapted.model
    load_adapters(model, folder / "adapters.pth")
    detector = Detector.load(folder, model, model.adapters.eval())
    judge = Judge("", core.adapted, detector.parts, detector.answers)
    return s, Finished(detector, [judge]), fabric


def made_up(folder: Path) -> dict:
    """Write 28 noisy pictures of stripes, half of them with a bright spot, and masks; returns their index."""
    random, items = torch.Generator().manual_seed(0), []
    y, x = torch.meshgrid(torch.arange(72.0), torch.arange(80.0), indexing="ij")
    for i in range(28):
        angle, down, along, radius = torch.rand(4, generator=random).tolist()
        stripes = 40 * torch.sin((x * math.cos(3 * angle) + y * math.sin(3 * angle)) / 3)
        image = 100 + stripes + 10 * torch.randn(x.shape, generator=random)
        spot = (y - 15 - 40 * down) ** 2 + (x - 15 - 40 * along) ** 2 < (7 + 5 * radius) ** 2
        item = {"id": f"case{i}", "patient": f"p{i}", "image": f"{i}.png", "label": "normal", "mask": None}
        if i % 2:
            image += 90 * spot
            item |= {"label": "abnormal", "mask": f"mask{i}.png"}
            (folder / f"mask{i}.png").write_bytes(png((spot * 255).byte().numpy()))
        (folder / f"{i}.png").write_bytes(png(image.clamp(0, 255).byte().numpy()))
        items.append(item)
    return {"labels": ["normal", "abnormal"], "training": items[:10], "validation": items[10:20], "test": items[20:]}


if __name__ == "__main__":
    files = ("weights", "cache")
    sys.exit(command_line(SETTINGS, SPACE, LOSSES, train, predict, made_up, load_model, PRESETS, files))
