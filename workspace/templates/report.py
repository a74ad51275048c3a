"""Train a writer of radiology reports on 2D or 3D images and their reports, and report the test cases.

    python report.py                                                         on made-up images, in seconds
    python train.py --index index.json --data ROOT --out DIR [--weights FOLDER] [--set lr=3e-4 ...] [--smoke] [--resume]
    python train.py --predict ITEMS.json --data ROOT --model DIR --out DIR   ITEMS: [{"id": ..., "image": ...}, ...]
    python train.py --space                                                  what Optuna may try, and defaults, as JSON

Prints one JSON line an epoch, {"epoch": 3, "loss": 0.41, "score": 0.83}. The score is the F1 of telling words over the
validation cases: words that stand in few training reports, in sentences that deny nothing ("effusion" of "small left
effusion", not of "no effusion"), found in the report that was written and in the radiologist's. A constant report
scores near 0. The rest is log and goes to stderr. DIR receives checkpoint.pt (every epoch), model.safetensors and
settings.json with the tokenizer (the best epoch), predictions/reports.json ({id: {"findings", "impression"}}) and,
last of all, result.json: its presence means done. --smoke takes one step on four cases and writes nothing. --weights:
a causal language model in transformers' form (config.json, safetensors, tokenizer.json) that the decoder starts from.
"""

import json
import math
import re
import shutil
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import lean  # noqa: F401

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from optuna.distributions import FloatDistribution
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from harness import (
    Problem,
    Training,
    answered,
    channels_last,
    command_line,
    commit,
    cosine,
    fabric_for,
    log,
    saved_settings,
    say,
)
from images import Room, augmented, fitted, normalised, on_device, read_image, resized, size_at, upright, with_channels
from network import network
from writer import Words, Writer, drawn, known, learnt_tokens, places, pretrained, small

TASK = "report_generation"
LOSSES = ("rare_words", "ce")  # cross entropy of the next token: rare ones weigh more, or all alike
HELPERS = ("writer.py",)
DENIALS = {"no", "not", "without", "normal", "unremarkable", "clear", "free", "negative", "none", "nor", "absent"}
TELLING = (0.01, 0.4)  # share of the training reports in which a telling word stands
JUDGED = 200  # validation cases, at most, that are reported after every epoch


@dataclass(frozen=True)
class Settings:
    """Every choice of this run."""

    network: str = "report_cnn"
    dims: int = 2
    channels: int = 1
    size: tuple[int, ...] = (32, 32)  # voxels the network sees
    spacing: tuple[float, ...] | None = None  # mm to resample to, then crop or pad; None: fit the image to `size`
    intensity: str = "zscore"  # or "percentile", or "window": a fixed range
    window: tuple[float, float] | None = None
    flips: tuple[int, ...] = ()  # axes that may be mirrored; never left-right, reports name sides
    augment: float = 0.5  # strength, 0 to 1
    loss: str = "rare_words"
    rarity: float = 0.5  # the weight of a token is (share of reports that hold it) ** -rarity
    bag: float = 1.0  # weight of the second task: which telling words the report has, in any order
    lr: float = 2e-3
    weight_decay: float = 2e-2
    batch: int = 16
    epochs: int = 30
    patience: int = 30  # epochs without a better score before stopping
    width: int = 16  # channels of the encoder's first layer
    dim: int = 96  # of a token
    depth: int = 2  # layers of a decoder that starts from random weights
    dropout: float = 0.1
    beams: int = 3  # texts that the search for a report follows
    longest: int = 400  # tokens of a report, at most; lowered to the longest of the training reports
    tokens: int = 5000  # that are learnt from the training reports, at most
    tokenizer: str = ""  # as JSON; filled in from the training reports or --weights
    decoder: str = ""  # its config as JSON; filled in likewise
    telling: tuple[str, ...] = ()  # words by which the training reports differ; filled in
    seed: int = 0
    shuffled: bool = False  # the control: patients exchange reports
    workers: int = 2  # threads that read images
    cache_gb: float = 4.0  # prepared images stay in memory up to this size, else in a file below --out
    precision: str = "auto"  # or any of Lightning Fabric, "32-true"


SETTINGS = Settings()

SPACE = {
    "lr": FloatDistribution(5e-4, 5e-3, log=True),
    "augment": FloatDistribution(0.0, 1.0),
    "dropout": FloatDistribution(0.0, 0.3),
    "rarity": FloatDistribution(0.0, 1.0),
    "bag": FloatDistribution(0.25, 4.0, log=True),
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


# ---------------------------------------------------------------------------------------------------- reports
def report_of(item: dict) -> dict[str, str]:
    """The findings and the impression of an item."""
    if not isinstance(item.get("findings"), str):
        raise Problem(f"item {item['id']}: has no findings")
    return {"findings": item["findings"], "impression": item.get("impression") or ""}


def exchanged(items: list[dict], seed: int) -> list[dict]:
    """The control: every patient gets the report of another."""
    last = {item["patient"]: item for item in items}
    patients = [list(last)[i] for i in np.random.default_rng(seed).permutation(len(last))]
    dealt = dict(zip(patients, patients[1:] + patients[:1], strict=True))
    reports = {
        patient: {key: last[other].get(key) for key in ("findings", "impression")} for patient, other in dealt.items()
    }
    return [{**item, **reports[item["patient"]]} for item in items]


def words_of(text: str) -> list[str]:
    """The words, numbers and punctuation marks of a text in lower case.

    >>> words_of("No X-ray changes; 2.5 cm.")
    ['no', 'x-ray', 'changes', ';', '2.5', 'cm', '.']
    """
    return re.findall(r"\d+(?:\.\d+)+|[^\W_]+(?:[-'/][^\W_]+)*|[^\w\s]", text.lower())


def affirmed(report: dict[str, str]) -> set[str]:
    """The words of all sentences that deny nothing."""
    found, sentence = set(), set()
    for word in words_of(f"{report['findings']} . {report['impression']} ."):
        if word in (".", ";"):
            found |= sentence if not sentence & DENIALS else set()
            sentence = set()
        elif word.isalpha():
            sentence.add(word)
    return found


def telling_words(said: list[set[str]]) -> tuple[str, ...]:
    """The words by which reports differ. Args: said: `affirmed` of every training report."""
    counts = Counter(word for words in said for word in words)
    least, most = (share * len(said) for share in TELLING)
    return tuple(sorted(word for word, count in counts.items() if max(2, least) <= count <= most))


def token_weights(texts: list[list[int]], words: Words, s: Settings) -> torch.Tensor:
    """(tokens,): what each token counts in the loss; those of most reports, and marks, count 1."""
    share = torch.ones(words.size)
    if s.loss == "ce":
        return share
    counts = Counter(token for text in texts for token in set(text))
    share = torch.tensor([counts[token] / len(texts) for token in range(words.size)])
    share[words.marks] = 1
    return (0.4 / share.clamp(0.02, 0.4)) ** s.rarity


def agreement(written: list[set[str]], truth: list[set[str]]) -> float:
    """F1 of the telling words over all cases; 0 where nothing agrees."""
    right = sum(len(a & b) for a, b in zip(written, truth, strict=True))
    return 2 * right / max(1, sum(map(len, written)) + sum(map(len, truth)))


# ---------------------------------------------------------------------------------------------------- training
def write(net: Writer, images: list[np.ndarray], s: Settings, fabric: Fabric, beams: int) -> list[dict[str, str]]:
    """A report an image."""
    net.eval()
    with torch.inference_mode(), fabric.autocast():
        seen = [net.look(on_device(images[i : i + 32], fabric.device))[0] for i in range(0, len(images), 32)]
        return [net.words.texts(tokens) for tokens in net.write(torch.cat(seen), beams)]


def writer(s: Settings, decoder: PreTrainedModel) -> Writer:
    """The network with its decoder."""
    return Writer(channels_last(network(s), s), decoder, s)


def begun(s: Settings, reports: list[dict[str, str]], weights: Path | None) -> tuple[Settings, Writer]:
    """The settings with what the training reports fill in, and the network before training.

    Args: weights: the folder of a language model; None: random ones. The first numbers drawn are those of the seed.
    """
    torch.manual_seed(s.seed)
    try:
        model, tokenizer = pretrained(weights) if weights else (None, learnt_tokens(reports, s.tokens))
    except ValueError as error:
        raise Problem(f"the weights are {error}") from None
    words = Words(tokenizer)
    most = max(len(words.numbered(**report)) for report in reports)
    s = replace(s, tokenizer=tokenizer, longest=min(s.longest, most, places(model) if model else most))
    config = model.config if model else small(s, words)
    s = replace(s, decoder=config.to_json_string(), telling=telling_words([affirmed(report) for report in reports]))
    return s, writer(s, model or drawn(config))


def train(
    index: dict, root: Path, out: Path, s: Settings, smoke: bool, resume: bool, weights: Path | None = None
) -> None:
    """Data, model, epochs, result."""
    # ---- data
    started = time.perf_counter()
    lists = {
        "training": index["training"][: 3 if smoke else None],
        "validation": index["validation"][: 1 if smoke else None],
    }
    for name, items in lists.items():
        if not items:
            raise Problem(f"the index has no {name} cases")
        if s.shuffled:
            lists[name] = exchanged(items, s.seed)
    lists["validation"] = lists["validation"][:: math.ceil(len(lists["validation"]) / JUDGED)]
    reports = {name: [report_of(item) for item in items] for name, items in lists.items()}
    s, net = begun(s, reports["training"], weights)
    if not s.telling and not smoke:
        raise Problem("the training reports hold no word that some have and others lack: there is nothing to learn")
    texts = [net.words.numbered(**report)[: s.longest] for report in reports["training"]]
    said = {name: [affirmed(report) & set(s.telling) for report in told] for name, told in reports.items()}
    bags = torch.tensor([[word in words for word in s.telling] for words in said["training"]], dtype=torch.float32)
    room = Room(s.cache_gb, out / "cache")
    images = {name: load_all(items, root, s, room) for name, items in lists.items()}
    log(f"{len(texts)} training and {len(images['validation'])} validation images read; {net.words.size} tokens")

    # ---- model
    steps = 1 if smoke else math.ceil(len(texts) / s.batch)
    run = Training(s, steps, out, resume, cosine, net=net)
    costs = token_weights(texts, net.words, s).to(run.fabric.device)

    # ---- epochs
    for epoch in run.epochs():
        for rows in torch.randperm(len(texts)).repeat(s.batch)[: steps * s.batch].split(s.batch):
            x, _ = augmented(on_device([images["training"][row] for row in rows], run.fabric.device), s)
            words = pad_sequence([torch.tensor(texts[row]) for row in rows], True, net.words.pad).to(run.fabric.device)
            logits, bag = run.net(x, words[:, :-1])
            loss = F.cross_entropy(
                logits.float().flatten(0, 1), words[:, 1:].flatten(), costs, ignore_index=net.words.pad
            )
            if s.telling:
                loss = loss + s.bag * F.binary_cross_entropy_with_logits(bag.float(), bags[rows].to(run.fabric.device))
            run.step(loss)
        written = write(run.ema, images["validation"], s, run.fabric, beams=1)  # pyright: ignore[reportArgumentType]
        if smoke:
            say(smoke=True, loss=run.losses[0], seconds=time.perf_counter() - started)
            return
        run.record(epoch, agreement([affirmed(report) & set(s.telling) for report in written], said["validation"]))

    # ---- result
    failed = predict(index["test"], root, out / "predictions", s, run.best_model(), run.fabric)
    shutil.rmtree(room.folder, ignore_errors=True)
    run.finish(failed)


# ---------------------------------------------------------------------------------------------------- answers
def saved_writer(folder: Path, kind: type, weights: Path | None = None) -> tuple[Settings, Writer, Fabric]:
    """Settings, network and device of a finished training. Args: weights: what it started from; no longer needed."""
    s = saved_settings(folder, kind)
    net = writer(s, drawn(known(s.decoder)))
    net.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"))
    fabric = fabric_for(s, net)
    return s, net.to(fabric.device), fabric


def predict(items: list[dict], root: Path, folder: Path, s: Settings, net, fabric: Fabric) -> list[str]:
    """Write reports.json; returns the ids of the cases that could not be answered, each with a line in the log."""

    def answer(item: dict) -> dict[str, str]:
        return write(net, [load(item, root, s)], s, fabric, s.beams)[0]

    answers = answered(items, root, folder, answer)
    commit(folder / "reports.json", json.dumps(answers.rows, indent=1, ensure_ascii=False).encode())
    return answers.failed


def made_up(folder: Path) -> dict:
    """Write 48 noisy pictures with a bright spot on the left, on the right, or none; returns their index."""
    random, items = np.random.default_rng(0), []
    rows, columns = np.mgrid[:40, :40]
    for i in range(48):
        picture = random.normal(0, 0.5, rows.shape)
        side, column = (("left", 10), ("right", 30), ("", 20))[i % 3]
        if side:
            picture += 2 * (np.hypot(rows - random.integers(14, 26), columns - column) < 5)
        findings = f"There is a nodule on the {side}. No effusion." if side else "The lungs are clear. No effusion."
        impression = f"{side.capitalize()} nodule." if side else "Normal."
        np.save(folder / f"{i}.npy", picture.astype(np.float32))
        report = {"findings": findings, "impression": impression}
        items.append({"id": f"case{i}", "patient": f"p{i}", "image": f"{i}.npy", **report})
    test = [{"id": item["id"], "patient": item["patient"], "image": item["image"]} for item in items[39:]]
    return {"labels": [], "training": items[:30], "validation": items[30:39], "test": test}


if __name__ == "__main__":
    sys.exit(command_line(SETTINGS, SPACE, LOSSES, train, predict, made_up, saved_writer, files=("weights",)))
