"""The emitted script at work: its search space, smoke run, training and predictions, all behind the sandbox's walls.

What the script says of itself, its scores included, are claims: they steer tuning, and no grade is made of them. It is
shown the dataset through `public`: test labels are never mounted.

A script that starts from pretrained weights is given the request's. One whose backbone stays as it is (its folder holds
the package mvfa) is given them to predict, too, and `cache/` of the run: what the backbone made of the images before.
"""

import json
import os
import re
import shutil
import stat
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from m3dspy.errors import DataError, M3Error, RunFailed, last_text
from m3dspy.signatures.values import Design, Index, Item, Request
from m3dspy.workspace import execute, public, untrusted
from m3dspy.workspace.runs import Run, disk
from m3dspy.workspace.weights import backbone, file_of

SCRIPT = "train.py"
SMOKE_SECONDS = 600.0  # one step on four cases
SMOKE_LINES = 20
LARGEST_RESULT = 16 << 20
CACHE = "cache"
JOURNAL = "answered.jsonl"  # which cases a prediction has answered, in its folder
UNFINISHED = ".unfinished"  # in the same folder: what the script has written so far
MOST_NAMED = 5  # cases without an answer, in an error
FEATURES = re.compile(r"[0-9a-f]{32,128}\.npy")


def space(run: Run, *, trusted: bool, unsafe: bool) -> tuple[dict[str, str], dict[str, Any]]:
    """What `train.py --space` prints: setting -> its distribution as Optuna's JSON text, and setting -> its default.

    Raises: RunFailed: the script ended badly or printed something else.
    """
    lines = _lines(run, "space", ["--space"], out=run.attempt("space"), trusted=trusted, unsafe=unsafe)
    last = deque(lines, maxlen=1)
    try:
        said = untrusted.strict_json(last[0].encode(), "the line")
        distributions, defaults = said["space"], said["defaults"]
        if all(isinstance(text, str) for text in distributions.values()) and set(distributions) <= set(defaults):
            return distributions, {name: defaults[name] for name in distributions}
    except (IndexError, DataError, KeyError, TypeError, AttributeError):
        pass
    raise RunFailed(
        f'{SCRIPT} --space must print {{"space": {{name: distribution}}, "defaults": {{name: value}}}} as one line.',
        run.log("space"),
    )


def smoke(run: Run, *, trusted: bool, unsafe: bool) -> str:
    """Let the script take one step; the last lines it printed.

    Raises: RunFailed.
    """
    run.log("smoke").unlink(missing_ok=True)
    out = run.attempt("smoke")
    deque(_training_lines(run, "smoke", ["--smoke"], out, True, SMOKE_SECONDS, trusted, unsafe), maxlen=0)
    return "\n".join(last_text(run.log("smoke")).splitlines()[-SMOKE_LINES:])


def epochs(
    run: Run,
    name: str,
    settings: Mapping[str, object],
    *,
    resume: bool,
    trusted: bool,
    unsafe: bool,
    test: bool = True,
) -> Generator[dict[str, Any], None, None]:
    """Train in `attempts/<name>`; yields {"epoch", "loss", "score"} as each ends. Closing it ends the script at once.

    Args:
        settings: setting -> value, over those of the script; the seed is the request's.
        resume: go on from the checkpoint in the folder; epochs already trained come again first.
        test: whether the test cases are to be answered at the end.

    Raises: RunFailed.
    """
    out = run.attempt(name, resume=resume)
    settings = {"seed": run.load("request", Request).seed, **settings}
    epochs, folds = settings.get("epochs", run.load("design", Design).epochs), settings.get("folds", 1)
    total = epochs * folds if isinstance(epochs, int) and isinstance(folds, int) else None
    begun = any(out.iterdir())
    told = {event.get("epoch") for event in run.events() if begun and event.get("attempt") == name}
    arguments = ["--set", *(f"{key}={_spelled(value)}" for key, value in settings.items())]
    if resume:
        arguments.append("--resume")
    with disk(run.folder), closing(_training_lines(run, name, arguments, out, test, None, trusted, unsafe)) as lines:
        for line in lines:
            if epoch := as_epoch(line):
                if epoch["epoch"] not in told:
                    run.event("epoch", attempt=name, epochs=total, **epoch)
                yield epoch


def worker(run: Run, name: str, *, trusted: bool, unsafe: bool, **how: Any) -> Generator[str, None, None]:
    """The lines of `train.py --worker` in `attempts/<name>`. Args: how: threads, listen: as in `execute.stream`."""
    if _reads_clip(run):
        (run.folder / CACHE).mkdir(exist_ok=True)  # mounted from the start, to be seen when something comes
    out = run.attempt(name, resume=True)
    yield from _training_lines(run, name, ["--worker"], out, False, None, trusted, unsafe, **how)


def fit(
    run: Run, name: str, settings: Mapping[str, object], *, resume: bool, trusted: bool, unsafe: bool
) -> dict[str, Any]:
    """Train to the end; `result.json`. The folder then holds the model, and `predictions/` of the test cases.

    The control is `fit(run, "control", {**settings, "shuffled": True}, ...)`.

    Raises: RunFailed: also when it left no valid result.
    """
    deque(epochs(run, name, settings, resume=resume, trusted=trusted, unsafe=unsafe), maxlen=0)
    return _result(run.attempt(name, resume=True), run.log(name))


def predict(
    run: Run,
    items: Sequence[Item],
    root: Path,
    out: Path,
    *,
    trusted: bool,
    unsafe: bool,
    weights: str | None = None,
    model: str = "model",
    tell: Callable[[dict[str, Any]], None] = lambda case: None,
) -> None:
    """Apply the run's model to images below `root`; the predictions appear in `out`.

    Killed at any instant, the same call goes on with the first case that has no answer. So it does in a folder of
    earlier answers of this model: images that were added or changed since are answered, and the tables hold all.

    Args:
        weights: of the backbone, in place of the request's.  model: the folder of the run that has it.
        tell: called as each case ends with {"case": its id, "number": 3, "of": 20}, and "failed": why it has no answer.

    Raises: RunFailed, M3Error: also when a case could not be answered, which costs no other.
    """
    work, given, failed = out / UNFINISHED, clip_of(run, weights), {}
    with TemporaryDirectory(prefix="m3dspy-predict-") as scratch:
        with disk(out):
            work.mkdir(parents=True, exist_ok=True)
            if (out / JOURNAL).is_file():
                (out / JOURNAL).replace(work / JOURNAL)
        listed = Path(scratch, "items.json")
        listed.write_text(json.dumps([item.model_dump(mode="json", include={"id", "image"}) for item in items]))
        lines = _lines(
            run,
            "predict",
            ["--predict", "{items}", "--data", "{data}", "--model", "{model}", "--out", "{out}", *_named(given)],
            out=work,
            mounts={"items": listed, "data": root, "model": run.folder / model, **given},
            trusted=trusted,
            unsafe=unsafe,
        )
        known, told = {item.id for item in items}, 0
        try:
            for line in lines:
                if (case := _as_case(line)) and case["case"] in known:
                    told = case["number"]
                    failed |= {case["case"]: case["failed"]} if "failed" in case else {}
                    tell(case)
        except RunFailed as failure:
            if not failed or told < len(items):  # it did not come to the last case
                raise
            raise _unanswered(failed, len(items), out, failure.log) from None
        finally:  # a case that cannot be answered does not cost the others
            _taken(work, out)


def _taken(work: Path, out: Path) -> None:
    """Move what the script wrote to the folder of answers, the journal last: a crash lets it begin again."""
    try:
        untrusted.refuse_odd(work)
        with disk(out):
            whole = [name for name in untrusted.files(work) if not name.endswith(".tmp")]
            for name in sorted(whole, key=lambda name: (name == JOURNAL, name)):
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                (work / name).replace(out / name)
    finally:
        untrusted.remove(work)
        if not any(out.iterdir()):
            out.rmdir()


def _unanswered(failed: Mapping[str, str], total: int, out: Path, log: Path) -> M3Error:
    some = [f"{id} ({why.rstrip('.')})" for id, why in list(failed.items())[:MOST_NAMED]]
    more = f" and {len(failed) - len(some)} more" if len(failed) > len(some) else ""
    rest = f"the others are in {out}" if len(failed) < total else f"{out} holds no answer"
    return M3Error(
        f"{len(failed)} of {total} cases could not be answered: {', '.join(some)}{more}; {rest}. Mend or remove these "
        f"images and repeat the command. Log: {log}"
    )


# ------------------------------------------------------------------------------------------------ the script's world
def _training_lines(
    run: Run,
    name: str,
    arguments: Sequence[str],
    out: Path,
    test: bool,
    seconds: float | None,
    trusted: bool,
    unsafe: bool,
    **how: Any,
) -> Generator[str, None, None]:
    """The lines of a training run, with the index and the dataset as a script may see them.

    When it has ended, what it made of the images is kept for the next.
    """
    index, data = public.shown(run, test=test, trusted=trusted)
    given = clip_of(run) | _start(run) | _features(run)
    try:
        yield from _lines(
            run,
            name,
            ["--index", "{index}", "--data", "{data}", "--out", "{out}", *_named(given), *arguments],
            out=out,
            mounts={"index": index, "data": data, **given},
            seconds=seconds,
            trusted=trusted,
            unsafe=unsafe,
            **how,
        )
    except RunFailed as failure:
        failure.args = (public.with_names(str(failure), run.load("index", Index)),)
        raise
    finally:
        keep_features(run, out)


def _lines(
    run: Run, name: str, arguments: Sequence[str], *, out: Path, seconds: float | None = None, **how: Any
) -> Generator[str, None, None]:
    code, log = run.folder / "code", run.log(name)
    return execute.stream(code, SCRIPT, arguments, out=out, log=log, seconds=seconds, **{"gpus": "all", **how})


def clip_of(run: Run, weights: str | None = None) -> dict[str, Path]:
    """What a script that reads a pretrained backbone is given: name of the argument -> what is mounted."""
    weights = weights or run.load("request", Request).weights
    if not weights or not _reads_clip(run):
        return {}
    return {"weights": file_of(weights, run.load("design", Design).network)}


def _start(run: Run) -> dict[str, Path]:
    """The weights that a training starts from and then changes, in the same form."""
    weights, network = run.load("request", Request).weights, run.load("design", Design).network
    return {"weights": file_of(weights, network)} if weights and backbone(weights, network) else {}


def _features(run: Run) -> dict[str, Path]:
    """What earlier attempts made of the images, in the same form."""
    folder = run.folder / CACHE
    return {CACHE: folder} if folder.is_dir() and _reads_clip(run) else {}


def _reads_clip(run: Run) -> bool:
    return (run.folder / "code" / "mvfa").is_dir()


def _named(mounts: Mapping[str, Path]) -> list[str]:
    """The arguments that name these mounts."""
    return [word for name in mounts for word in (f"--{name}", f"{{{name}}}")]


def keep_features(run: Run, attempt: Path) -> None:
    """Move the features that a script left in its `cache/` to the run's; anything else there is thrown away.

    The script may still be at work and exchange things for links: all is named from folders that are held open.
    """
    kept, only = run.folder / CACHE, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    with ExitStack() as stack:
        try:
            folder = os.open(attempt, only)
            stack.callback(os.close, folder)
            left = os.open(CACHE, only, dir_fd=folder)
            stack.callback(os.close, left)
        except (FileNotFoundError, NotADirectoryError):  # a link is none, either
            return
        with disk(kept):
            kept.mkdir(exist_ok=True)
            for entry in list(os.scandir(left)):
                name, status = entry.name, entry.stat(follow_symlinks=False)
                if FEATURES.fullmatch(name) and stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                    os.rename(name, kept / name, src_dir_fd=left)
            shutil.rmtree(CACHE, dir_fd=folder)


def _spelled(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


# ------------------------------------------------------------------------------------------------ the script's claims
def as_epoch(line: str) -> dict[str, Any] | None:
    """The line as an epoch, if it is one."""
    if not line.startswith("{"):
        return None
    try:
        said = untrusted.strict_json(line.encode(), "the line")
    except DataError:
        return None
    loss, score, epoch = said.get("loss"), said.get("score"), said.get("epoch")
    if type(epoch) is int and epoch >= 0 and untrusted.finite(loss) and untrusted.finite(score):
        return {"epoch": epoch, "loss": float(loss), "score": float(score)}
    return None


def _as_case(line: str) -> dict[str, Any] | None:
    """The line as a case that was answered, or could not be, if it is one."""
    if not line.startswith("{"):
        return None
    try:
        said = untrusted.strict_json(line.encode(), "the line")
    except DataError:
        return None
    texts = (said.get("case"), said.get("failed", ""))
    numbers = (said.get("number"), said.get("of"))
    if all(isinstance(text, str) for text in texts) and all(type(number) is int for number in numbers):
        return {name: said[name] for name in ("case", "number", "of", "failed") if name in said}
    return None


def _result(folder: Path, log: Path) -> dict[str, Any]:
    """The result.json that a script left."""
    try:
        result = untrusted.strict_json(untrusted.read(folder, "result.json", LARGEST_RESULT), "result.json")
        if (
            not isinstance(result, dict)
            or not untrusted.finite(result.get("score"))
            or type(result.get("epoch")) is not int
        ):
            raise DataError('result.json must say {"score": 0.83, "epoch": 3, ...}.')
    except DataError as problem:
        raise RunFailed(f"{SCRIPT} left no valid result.json: {problem}", log) from None
    return result
