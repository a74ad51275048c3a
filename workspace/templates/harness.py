"""The part of a training script that is the same for every task: command line, optimiser steps, files, exact resume.

It lies beside train.py in an emitted folder. `Training` owns one folder, --out:

    checkpoint.pt      after every epoch: weights, their average, optimiser, the lines printed so far
    model.safetensors  the averaged weights of the epoch that is kept (see `steady`); settings.json beside it
    result.json        last of all: its presence means done

Of several folds, each has a folder of its own, fold-0, fold-1, ..., until all are one model.

Every file is written whole or not at all (temporary name, fsync, rename). Random numbers start afresh from
(seed, epoch) in every epoch, so that a training that was killed and resumed ends with the very same weights.

    python train.py --worker --index index.json --data ROOT --out ROOT

pays for imports once: it takes trial after trial from stdin, one JSON line each, and trains it in ROOT/<trial> as a
process of its own would, to the bit. Every line it prints names its trial:

    {"trial": "trial-003", "settings": {"lr": 3e-4}, "resume": false, "test": false}     in: train
    {"stop": "trial-003"}                                                                in: end it within a step
    {"trial": "trial-003", "epoch": 0, "loss": 0.41, "score": 0.83}                      out: an epoch
    {"trial": "trial-003", "done": true}, or with "error": "in one line"                 out: it is over

An error that is no Problem ends the worker, with its traceback; so does the end of stdin, at once, and idleness.
"""

import argparse
import copy
import gc
import io
import itertools
import json
import math
import os
import queue
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_type_hints

import numpy as np
import safetensors.torch
import torch
from lightning_fabric import Fabric
from optuna.distributions import distribution_to_json
from sklearn.model_selection import StratifiedGroupKFold

from network import network

IDLE = 600.0  # seconds without a trial after which a worker ends
JOURNAL = "answered.jsonl"  # of --predict, in --out


class Problem(Exception):
    """Something the user can mend, in one line."""


class Ended(Exception):
    """The trial at work is to stop."""


class Orders:
    """What a worker is told on its stdin. `trial`: the one at work; "" in a script that trains once."""

    def __init__(self):
        self.trial = ""
        self.stopped: set[str] = set()
        self.waiting: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def listen(self) -> None:
        """Take orders until nobody is left to give any."""
        with open(0, "rb", buffering=0, closefd=False) as stdin:  # a buffer's lock would outlast the interpreter
            for line in stdin:
                order = json.loads(line)
                if "stop" in order:
                    self.stopped.add(order["stop"])
                else:
                    self.stopped.discard(order["trial"])
                    self.waiting.put(order)
        os._exit(0)

    def check(self) -> None:
        """Raises: Ended: the trial at work is to stop."""
        if self.trial in self.stopped:
            raise Ended


ORDERS = Orders()


def log(*words) -> None:
    """Stdout is for JSON lines only."""
    print(*words, file=sys.stderr, flush=True)


def say(**line) -> None:
    print(json.dumps({"trial": ORDERS.trial, **line} if ORDERS.trial else line), flush=True)


def commit(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)  # it would keep a full disk full
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


# ---------------------------------------------------------------------------------------------------- training
def channels_last(net: torch.nn.Module, s) -> torch.nn.Module:
    """The memory layout in which convolutions are fastest: a 3D network trains twice as fast on a CPU."""
    return net.to(memory_format=torch.channels_last if s.dims == 2 else torch.channels_last_3d)


def fabric_for(s, net: torch.nn.Module) -> Fabric:
    """One device, a GPU if there is one; bfloat16 where it computes in it, else float32 (float16 on an old GPU)."""
    if s.precision != "auto":
        precision = s.precision
    elif torch.cuda.is_available():
        precision = "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    else:
        fast = torch.cpu._is_avx512_bf16_supported() and not meets_two_slices(net, s)
        precision = "bf16-mixed" if fast else "32-true"
    return Fabric(accelerator="auto", devices=1, precision=precision)


def meets_two_slices(net: torch.nn.Module, s) -> bool:
    """Whether a 3D convolution is given exactly two slices.

    oneDNN's bfloat16 gradient of its weights is then uninitialised memory (torch 2.14 on a CPU): float32 is needed.
    """
    depths: list[int] = []
    layers = [m for m in net.modules() if isinstance(m, torch.nn.Conv3d | torch.nn.ConvTranspose3d)]
    hooks = [layer.register_forward_pre_hook(lambda _, given: depths.append(given[0].shape[2])) for layer in layers]
    with torch.no_grad():
        net.eval()(torch.zeros(1, s.channels, *s.size))
    for hook in hooks:
        hook.remove()
    return 2 in depths


def cosine(done: float) -> float:
    """Share of the learning rate after a share of the steps: along a cosine from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * done))


def poly(done: float) -> float:
    """nnU-Net's schedule (Isensee et al. 2021): from 1 to 0, almost straight."""
    return (1 - done) ** 0.9


def constant(done: float) -> float:
    """No schedule."""
    return 1.0


def steady(scores: Sequence[float]) -> list[float]:
    """Mean of each epoch's validation score and the two before it: one lucky epoch among few cases does not win."""
    return [float(np.mean(scores[max(0, epoch - 2) : epoch + 1])) for epoch in range(len(scores))]


class Ensemble(torch.nn.Module):
    """The networks of several folds as one: logits whose softmax (multilabel: sigmoid) is the mean of theirs."""

    def __init__(self, members: Iterable[torch.nn.Module], multilabel: bool):
        super().__init__()
        self.members, self.multilabel = torch.nn.ModuleList(members), multilabel

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answers = torch.stack([member(x).float() for member in self.members])
        if self.multilabel:
            return answers.sigmoid().mean(0).logit(eps=1e-6)
        return answers.log_softmax(2).logsumexp(0) - math.log(len(self.members))


def built(s) -> torch.nn.Module:
    """The network that a finished training has."""
    if s.folds == 1:
        return network(s)
    return Ensemble([network(s) for _ in range(s.folds)], s.multilabel)


def folds(training: list[dict], validation: list[dict], kinds: list[str], s) -> list[tuple[list[int], list[int]]]:
    """What each fold learns from and is checked on, as places in `training` + `validation`; of one, just these two.

    Args: kinds: of every case, to be spread evenly; those with fewer cases than folds count as one.
    """
    items = [*training, *validation]
    if s.folds == 1:
        return [(list(range(len(training))), list(range(len(training), len(items))))]
    patients = [item["patient"] for item in items]
    if len(set(patients)) < s.folds:
        raise Problem(f"{s.folds} folds need as many patients; there are {len(set(patients))}: lower folds")
    often = Counter(kinds)
    kinds = [kind if often[kind] >= s.folds else "rare" for kind in kinds]
    dealt = StratifiedGroupKFold(s.folds, shuffle=True, random_state=s.seed).split(items, kinds, patients)
    return [(learnt.tolist(), checked.tolist()) for learnt, checked in dealt]


def unscored(why: str, fold: int, s) -> Problem:
    """What is wrong with a fold whose cases tell nothing of a model."""
    return Problem(f"validation: {why}" if s.folds == 1 else f"fold {fold + 1} of {s.folds}: {why}; lower folds")


def started(s, weights: Path | None) -> torch.nn.Module:
    """The network before training. Args: weights: a file of pretrained ones; None: random."""
    try:
        return network(s, *([weights] if weights else []))
    except ValueError as error:
        raise Problem(str(error)) from None


@dataclass(frozen=True)
class Habits:
    """How to train, beside what Settings say: our own ways, or those of a paper that is to be reproduced."""

    betas: tuple[float, float] = (0.9, 0.999)  # of Adam
    warm: float = 0.05  # share of the steps over which the learning rate rises
    norm: float | None = 10.0  # of all gradients together, clipped to it
    averaged: bool = True  # the model is a running average of the weights
    last: bool = False  # keep the last epoch, not the one with the best `steady` score


class Training:
    """Epochs of one network, kept on disk.

    Args: s: Settings.  steps: optimiser steps an epoch.  out: folder to write to.  resume: go on from checkpoint.pt.
          schedule: share of the steps done -> share of s.lr, after a short rise.  net: what is trained, if it is not
          `network(s)` as a whole.  fabric: where it is, if `fabric_for` is not to choose.  first: the number that its
          first epoch is told under.  weights: a file that `network(s)` starts from.

        run = Training(s, steps, out, resume, cosine)
        for epoch in run.epochs():
            for x, y in batches:
                run.step(loss(run.net(x), y))
            run.record(epoch, score(run.ema))
        run.finish(predict(..., run.best_model(), run.fabric))
    """

    def __init__(
        self,
        s,
        steps: int,
        out: Path,
        resume: bool,
        schedule: Callable[[float], float],
        net: torch.nn.Module | None = None,
        fabric: Fabric | None = None,
        habits: Habits = Habits(),
        first: int = 0,
        weights: Path | None = None,
    ):
        self.s, self.steps, self.out, self.schedule, self.habits, self.first = s, steps, out, schedule, habits, first
        self.started = time.perf_counter()
        torch.manual_seed(s.seed)
        self.plain = net or channels_last(started(s, weights), s)
        self.fabric = fabric or fabric_for(s, self.plain)
        optimizer = torch.optim.AdamW(self.plain.parameters(), lr=s.lr, betas=habits.betas, weight_decay=s.weight_decay)
        self.net, self.optimizer = self.fabric.setup(self.plain, optimizer)
        self.ema = copy.deepcopy(self.plain)
        self.history: list[dict[str, Any]] = []
        self.losses: list[float] = []
        if resume and (out / "checkpoint.pt").is_file():
            self._restore()

    def epochs(self) -> Iterator[int]:
        """The epochs still to do, each with its own random numbers; none after `patience` without a better score."""
        while len(self.history) < self.s.epochs:
            epoch = len(self.history)
            if epoch and epoch - self.best["epoch"] > self.s.patience:
                log(f"no better score since epoch {self.best['epoch']}: stopped")
                return
            ORDERS.check()
            torch.manual_seed(self.s.seed * 1_000_003 + epoch + 1)
            self.net.train()
            self.losses = []
            yield epoch

    def step(self, loss: torch.Tensor) -> None:
        """One optimiser step; averaged weights follow by a tenth at first, by 2 % later."""
        ORDERS.check()
        if not torch.isfinite(loss):
            raise Problem(f"the loss became {loss.item()} in epoch {len(self.history)}: lower lr (now {self.s.lr})")
        done, total = len(self.history) * self.steps + len(self.losses), self.steps * self.s.epochs
        warm = max(1, int(total * self.habits.warm))
        for group in self.optimizer.param_groups:
            group["lr"] = self.s.lr * min((done + 1) / warm, self.schedule(done / total))
        self.fabric.backward(loss)
        if self.habits.norm:
            self.fabric.clip_gradients(self.net, self.optimizer, max_norm=self.habits.norm, error_if_nonfinite=False)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.losses.append(loss.item())
        with torch.no_grad():
            weight = 1 - min(0.98, (1 + done) / (10 + done)) if self.habits.averaged else 1.0
            for kept, new in zip(self.ema.state_dict().values(), self.plain.state_dict().values(), strict=True):
                kept.copy_(kept.lerp(new, weight) if kept.is_floating_point() else new)

    @property
    def best(self) -> dict[str, Any]:
        """The epoch whose model is kept."""
        if self.habits.last:
            return self.history[-1]
        return self.history[int(np.argmax(steady([line["score"] for line in self.history])))]

    def record(self, epoch: int, score: float, **more) -> None:
        """Keep the epoch and print its line; the model too if it is the best so far."""
        line = {"epoch": epoch, "loss": sum(self.losses) / len(self.losses), "score": score, **more}
        self.history.append(line)
        if self.best is line:
            weights = {name: weight.contiguous() for name, weight in self.ema.state_dict().items()}
            commit(self.out / "settings.json", json.dumps(asdict(self.s), indent=1).encode())
            commit(self.out / "model.safetensors", safetensors.torch.save(weights))
        state = {"net": self.plain.state_dict(), "ema": self.ema.state_dict(), "optimizer": self.optimizer.state_dict()}
        buffer = io.BytesIO()
        torch.save(state | {"history": self.history, "settings": json.dumps(asdict(self.s))}, buffer)
        commit(self.out / "checkpoint.pt", buffer.getvalue())
        say(**self._told(line))

    def _restore(self) -> None:
        state = torch.load(self.out / "checkpoint.pt", map_location=self.fabric.device, weights_only=True)
        if state["settings"] != json.dumps(asdict(self.s)):
            raise Problem(f"{self.out} holds a training with other settings: repeat its --set, or give another --out")
        self.plain.load_state_dict(state["net"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = state["history"]
        for line in self.history:
            say(**self._told(line))

    def _told(self, line: dict[str, Any]) -> dict[str, Any]:
        return line | {"epoch": self.first + line["epoch"]}

    def best_model(self) -> torch.nn.Module:
        self.ema.load_state_dict(safetensors.torch.load_file(self.out / "model.safetensors"))
        return self.ema.eval()

    def finish(self, failed: list[str]) -> None:
        """Write result.json; `failed` names the test cases that could not be answered."""
        finish(self.out, [self], failed)


def kept(out: Path, runs: list[Training], s) -> torch.nn.Module:
    """The model of all folds, with its settings in --out as that of a single one is."""
    net = runs[0].best_model()
    if len(runs) > 1:
        net = Ensemble([run.best_model() for run in runs], s.multilabel).eval()
        weights = {name: weight.contiguous() for name, weight in net.state_dict().items()}
        commit(out / "model.safetensors", safetensors.torch.save(weights))
    commit(out / "settings.json", json.dumps(asdict(s), indent=1).encode())
    return net


def finish(out: Path, runs: list[Training], failed: list[str]) -> None:
    """Write result.json, with the mean score of the epochs kept, one a fold; what a resume needs is then of no use."""
    history = [run._told(line) for run in runs for line in run.history]
    best = [run._told(run.best) for run in runs]
    score = sum(line["score"] for line in best) / len(runs)
    epoch = max(best, key=lambda line: line["score"])["epoch"]
    result = {"score": score, "epoch": epoch, "epochs": len(history), "history": history, "failed": failed}
    result["kept"] = [line["epoch"] for line in best]
    result["seconds"] = time.perf_counter() - runs[0].started
    commit(out / "result.json", json.dumps(result, indent=1).encode())
    for run in runs:
        if run.out != out:
            shutil.rmtree(run.out)


# ---------------------------------------------------------------------------------------------------- answers
class Answers:
    """The answers to some cases. Where --predict has begun a journal in the folder, each is kept there at once.

    What the journal holds of the same files is not done again, and every case is told of as it ends:
    {"case": "scan7", "number": 3, "of": 20}, with "failed": "why" where it could not be answered.
    """

    def __init__(self, items: list[dict], root: Path, folder: Path):
        self.items, self.root, self.journal = items, root, folder / JOURNAL
        self.kept: dict[str, Any] = {}
        self.failed: list[str] = []
        self.keeps = self.journal.is_file()
        if self.keeps:
            known = {line["case"]: line for line in journalled(self.journal)[1:]}
            for item in items:
                line = known.get(item["id"])
                if line and line["files"] == self._files(item):
                    self.kept[item["id"]] = line["answer"]

    @property
    def left(self) -> list[dict]:
        return [item for item in self.items if item["id"] not in self.kept]

    @property
    def rows(self) -> dict[str, Any]:
        """Case -> answer, in the order of the items."""
        return {item["id"]: self.kept[item["id"]] for item in self.items if item["id"] in self.kept}

    def keep(self, item: dict, answer: Any) -> None:
        """Args: answer: what JSON can hold; files of the case are written by now."""
        if self.keeps:
            append(self.journal, {"case": item["id"], "files": self._files(item), "answer": answer})
        self.kept[item["id"]] = answer
        self._tell(item)

    def fail(self, item: dict, problem: Problem) -> None:
        """One line in the log: why there is no answer."""
        self.failed.append(item["id"])
        log(f"error: case {item['id']}: {problem}")
        self._tell(item, failed=str(problem))

    def _tell(self, item: dict, **more) -> None:
        if self.keeps:
            say(case=item["id"], number=len(self.kept) + len(self.failed), of=len(self.items), **more)

    def _files(self, item: dict) -> str:
        """A hash of the paths, sizes and times of a case's files."""
        paths = [item["image"]] if isinstance(item["image"], str) else item["image"]
        found = [(path, (self.root / path).stat()) for path in paths if (self.root / path).is_file()]
        seen = [(path, status.st_size, status.st_mtime_ns) for path, status in found]
        return blake2b(repr(seen).encode(), digest_size=16).hexdigest()


def answered(items: list[dict], root: Path, folder: Path, answer: Callable[[dict], Any]) -> Answers:
    """Answer case after case; one that has a Problem does not cost the others."""
    answers = Answers(items, root, folder)
    for item in answers.left:
        try:
            answers.keep(item, answer(item))
        except Problem as problem:
            answers.fail(item, problem)
    return answers


def begin_journal(folder: Path, model: Path) -> None:
    """Raises: Problem: the folder holds answers of another model."""
    hashes = [blake2b((model / name).read_bytes()).hexdigest() for name in ("model.safetensors", "settings.json")]
    if journal := journalled(folder / JOURNAL):
        if journal[0] != {"model": hashes}:
            raise Problem(f"{folder.name} holds answers of another model: give a new folder with --out")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        append(folder / JOURNAL, {"model": hashes})


def journalled(path: Path) -> list[dict[str, Any]]:
    """The lines of a journal; what a crash tore off its end is cut off there, too."""
    if not path.is_file():
        return []
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):
        commit(path, whole)
    return [json.loads(line) for line in whole.splitlines()]


def append(path: Path, line: dict[str, Any]) -> None:
    with path.open("ab") as file:
        file.write(json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


# ---------------------------------------------------------------------------------------------------- command line
def changed(s, assignments: list[str]):
    """Settings with `name=value` applied. Values are JSON; a text may go without quotes."""
    kinds, known = get_type_hints(type(s)), [field.name for field in fields(s)]
    for assignment in assignments:
        name, _, text = assignment.partition("=")
        if name not in known:
            raise Problem(f"No setting is called {name!r}. Known: {', '.join(known)}.")
        kind = kinds[name]
        try:
            value = text if kind is str else json.loads(text.lower() if kind is bool else text)
        except ValueError:
            raise Problem(
                f"--set {name}: expected a value such as {json.dumps(getattr(s, name))}, got {text!r}"
            ) from None
        if kind is float and type(value) is int:
            value = float(value)
        if kind in (bool, int, float) and type(value) is not kind:
            raise Problem(f"--set {name}: expected {kind.__name__}, got {text}")
        s = replace(s, **{name: tuple(value) if isinstance(value, list) else value})
    return s


def saved_settings(folder: Path, kind: type) -> Any:
    """The settings (of class `kind`) of a finished training."""
    kept = json.loads((folder / "settings.json").read_text())
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in kept.items()})


def saved_model(folder: Path, kind: type, weights: Path | None = None) -> tuple[Any, torch.nn.Module, Fabric]:
    """Settings, network and device of a finished training. Args: weights: what it started from; no longer needed."""
    s = saved_settings(folder, kind)
    net = channels_last(built(s), s)
    net.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"))
    fabric = fabric_for(s, net)
    return s, net.to(fabric.device), fabric


def work(trained: Callable[[str, list[str], bool, bool], None]) -> None:
    """Carry out the trials that stdin orders, each as if the process were fresh. Args: trained: as in command_line."""
    seed = torch.initial_seed()
    threading.Thread(target=ORDERS.listen, daemon=True).start()
    while True:
        try:
            order = ORDERS.waiting.get(timeout=IDLE)
        except queue.Empty:
            return
        ORDERS.trial = order["trial"]
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        words = [f"{name}={v if isinstance(v, str) else json.dumps(v)}" for name, v in order["settings"].items()]
        end: dict[str, Any] = {"done": True}
        try:
            trained(order["trial"], words, order["resume"], order["test"])
        except Ended:
            pass
        except (OSError, Problem) as problem:
            end = {"error": " ".join(str(problem).split())}
        if "torch._dynamo" in sys.modules:
            torch.compiler.reset()
        gc.collect()
        torch.cuda.empty_cache()
        say(**end)


def command_line(
    settings,
    space: dict,
    losses: tuple[str, ...],
    train,
    predict,
    made_up,
    load=saved_model,
    presets: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    files: tuple[str, ...] = (),
) -> int:
    """Run a training script as its docstring says; the exit status.

    Args: train(index, root, out, settings, smoke, resume).  predict(items, root, folder, settings, net, fabric) -> ids
          that failed.  made_up(folder) writes a small dataset and returns its index; used where no argument is given.
          load(folder, kind) -> settings, net, fabric.  presets: name -> settings that differ, for --preset.
          files: further arguments that name a path; those given are passed to `train` and `load` by name.
    """
    parser = argparse.ArgumentParser()
    for name in ("index", "data", "out", "predict", "model", *files):
        parser.add_argument(f"--{name}", type=Path)
    if presets:
        parser.add_argument("--preset", choices=["default", *presets], default="default")
    parser.add_argument("--set", action="append", nargs="+", default=[], metavar="NAME=VALUE")
    for name in ("--smoke", "--resume", "--space", "--worker"):
        parser.add_argument(name, action="store_true")
    words = sys.argv[1:]
    if not words:
        folder = Path(tempfile.mkdtemp(prefix="made-up-"))
        (folder / "index.json").write_text(json.dumps(made_up(folder)))
        log(f"made-up data in {folder}")
        words = ["--index", str(folder / "index.json"), "--data", str(folder), "--out", str(folder / "out")]
    given = parser.parse_args(words)
    if given.space:
        say(
            space={name: distribution_to_json(choice) for name, choice in space.items()},
            defaults={name: getattr(settings, name) for name in space},
        )
        return 0
    needed = ("data", "model", "out") if given.predict else ("index", "data", "out")
    if missing := [f"--{name}" for name in needed if getattr(given, name) is None]:
        parser.error(f"missing {', '.join(missing)}")
    more = {name: getattr(given, name) for name in files if getattr(given, name) is not None}

    def trained(name: str, assignments: list[str], resume: bool, test: bool) -> None:
        """Train in the folder `name` of --out. Args: test: whether the test cases are to be answered."""
        index, out = json.loads(given.index.read_text()), given.out / name
        if not test:
            index["test"] = []
        s = replace(settings, **presets[given.preset]) if presets and given.preset != "default" else settings
        s = changed(s, [*itertools.chain(*given.set), *assignments])
        if s.loss not in losses:
            raise Problem(f"No loss is called {s.loss!r}. Known: {', '.join(losses)}.")
        if resume and (out / "result.json").is_file():
            for line in json.loads((out / "result.json").read_text())["history"]:
                say(**line)
        else:
            train(index, given.data, out, s, given.smoke, resume, **more)

    try:
        if given.predict:
            begin_journal(given.out, given.model)
            s, net, fabric = load(given.model, type(settings), **more)
            return 1 if predict(json.loads(given.predict.read_text()), given.data, given.out, s, net, fabric) else 0
        if given.worker:
            work(trained)
        else:
            trained("", [], given.resume, True)
    except (OSError, Problem) as problem:
        log(f"error: {problem}")
        return 1
    return 0
