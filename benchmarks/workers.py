"""What a trial costs besides its training: by a process of its own, and by a warm worker. And what the journal bears.

    python benchmarks/workers.py [TRIALS]        30 if not given; some minutes, most of them the processes' imports

Both ways carry out the same small trials of the classification template, two at a time, in the sandbox. Start-up is the
wall time of a trial less that of its training, as the script measured it; a worker's own start counts among its trials.
"""

import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory

from m3dspy.optimizers.storage import journal_storage
from m3dspy.signatures.values import Design, Fingerprint, Index, Plan, Request, Source
from m3dspy.workspace import training
from m3dspy.workspace.emit import TEMPLATES, emit
from m3dspy.workspace.runs import Run
from m3dspy.workspace.workers import Worker

JOBS = 2
WRITERS, EACH = 4, 100
SETTINGS = {"epochs": 1, "width": 8}
HOW = {"trusted": True, "unsafe": False}


def small_run(home: Path, **design: object) -> Run:
    """A run on the made-up images of the classification template, up to its script. Args: design: what differs."""
    sys.path.insert(0, str(TEMPLATES))
    from classify import made_up  # pyright: ignore[reportMissingImports]

    data = home / "data"
    data.mkdir()
    index = Index.model_validate({"task": "classification", **made_up(data)})
    run = Run.create(Request(text="large or small", data=str(data)), home / "runs")
    run.commit("index", index)
    run.commit("fingerprint", Fingerprint(files=24, megabytes=1, formats={}))
    source = Source(kind="table", path="labels.csv")
    plan = {"task": "classification", "goal": "x", "modality": "other", "dims": 3, "images": "*.npy"}
    run.commit("plan", Plan.model_validate({**plan, "labels": index.labels, "source": source}))
    usual = {"template": "classify", "network": "cnn", "dims": 3, "size": (24, 24, 24), "intensity": "zscore"}
    usual |= {"loss": "ce", "lr": 2e-3, "batch": 8, "epochs": 3}
    run.commit("design", chosen := Design.model_validate(usual | design))
    emit(chosen, index, run.folder / "code")
    return run


def trained(run: Run, name: str) -> float:
    """Seconds of a trial's training."""
    return json.loads((run.folder / "attempts" / name / "result.json").read_text())["seconds"]


def by_processes(run: Run, trials: int) -> list[float]:
    """Start-up of each trial, in seconds."""

    def one(number: int) -> float:
        name, began = f"process-{number}", time.perf_counter()
        assert list(training.epochs(run, name, SETTINGS, resume=False, test=False, **HOW))
        return time.perf_counter() - began - trained(run, name)

    with ThreadPoolExecutor(JOBS) as pool:
        return list(pool.map(one, range(trials)))


def by_workers(run: Run, trials: int) -> list[float]:
    """Start-up of each trial, in seconds; the first of each worker starts it."""
    spare: SimpleQueue[Worker] = SimpleQueue()
    crew = [Worker(run, threads=1, **HOW) for _ in range(JOBS)]
    for worker in crew:
        spare.put(worker)

    def one(number: int) -> float:
        worker, name = spare.get(), f"warm-{number}"
        began = time.perf_counter()
        assert list(worker.epochs(name, SETTINGS, resume=False))
        spare.put(worker)
        return time.perf_counter() - began - trained(run, name)

    with ThreadPoolExecutor(JOBS) as pool:
        seconds = list(pool.map(one, range(trials)))
        for worker in crew:
            worker.close()
    return seconds


def write_trials(journal: str, count: int) -> None:
    """Ask for, report and tell this many trials, as the controller and a worker do."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.RandomSampler()
    study = optuna.create_study(
        study_name="s", storage=journal_storage(Path(journal)), sampler=sampler, load_if_exists=True
    )
    for _ in range(count):
        trial = study.ask()
        trial.suggest_float("a", 0, 1)
        trial.suggest_float("b", 0, 1)
        trial.report(0.5, 0)
        trial.set_user_attr("k", trial.number)
        study.tell(trial, 0.5)


def journal_speed(folder: Path, writers: int) -> float:
    """Trials a second that so many processes write into one journal."""
    path = str(folder / f"journal-{writers}.log")
    with ProcessPoolExecutor(writers) as pool:
        list(pool.map(write_trials, [path] * writers, [1] * writers))  # imports
        began = time.perf_counter()
        list(pool.map(write_trials, [path] * writers, [EACH] * writers))
    return writers * EACH / (time.perf_counter() - began)


def main() -> None:
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    with TemporaryDirectory() as home:
        run = small_run(Path(home))
        warm, cold = by_workers(run, trials), by_processes(run, trials)
        mean = {"process": sum(cold) / trials, "warm worker": sum(warm) / trials}
        for way, seconds in mean.items():
            print(f"{way}: {seconds:.2f} s of start-up a trial, {trials} trials, {JOBS} at a time")
        print(
            f"ratio {mean['process'] / mean['warm worker']:.1f}; once warm {min(warm):.3f} to {sorted(warm)[-3]:.3f} s"
        )
        for writers in (1, WRITERS):
            print(f"journal: {journal_speed(Path(home), writers):.0f} trials/s by {writers} processes")


if __name__ == "__main__":
    main()
