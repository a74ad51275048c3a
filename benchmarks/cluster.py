"""What a Dask cluster costs, and that nothing is lost when its workers are killed: scheduler, workers, all on loopback.

    python benchmarks/cluster.py overhead        seconds to connect, and for each piece of work that does nothing
    python benchmarks/cluster.py bench           four datasets through the whole job, once a dataset
    python benchmarks/cluster.py tune            24 short trials of one run; with PostgreSQL where it is installed

Without a word: all three, some twenty minutes on two busy cores. `bench` and `tune` go one and three at a time on this
machine, then on three workers of which some are killed amid their work and replaced. What comes out must be
complete, and of `bench` the same three times over. Wall times are also told as a multiple of that of one at a time.
"""

import os
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from dask_here import Dask, process
from postgresql_here import BINARIES, PostgreSQL
from workers import small_run  # pyright: ignore[reportAttributeAccessIssue]

from m3dspy import cluster, job
from m3dspy.m3bench import task as datasets
from m3dspy.m3bench.bench import bench as run_bench
from m3dspy.optimizers.tune import tune
from m3dspy.signatures.values import Request

WORKERS = 3
DATASETS = ("ADNI", "BTCV", "COVID19", "CT-kidney")  # at their smallest, as a quick try, without tuning
TRIALS, EPOCHS = 24, 30  # a trial trains for a third of the epochs


# ------------------------------------------------------------------------------------------------ overhead
def overhead(scratch: Path, batches: int = 7, pieces: int = 100) -> None:
    """The least and the median of several batches: whatever else the machine does only adds to them."""
    with Dask(scratch, WORKERS) as dask:
        begun = time.perf_counter()
        with cluster.executor(dask.address, None, scratch) as pool:
            assert pool
            print(f"connect: {time.perf_counter() - begun:.3f} s")
            pool.submit(process).result()

            def one_after_another() -> None:
                for _ in range(pieces):
                    pool.submit(process).result()

            def all_at_once() -> None:
                for future in [pool.submit(process) for _ in range(pieces)]:
                    future.result()

            for name, batch in (("one after another", one_after_another), (f"{WORKERS} at a time", all_at_once)):
                each = [_timed(batch) / pieces * 1000 for _ in range(batches)]
                told = f"{min(each):.1f} ms each, the least of {batches} batches; median {statistics.median(each):.1f}"
                print(f"{name}: {told}")


# ------------------------------------------------------------------------------------------------ what is killed
class Killer:
    """Kills a worker at its work when it is told to, and starts another in its place."""

    def __init__(self, dask: Dask):
        self.dask, self.killed = dask, 0

    def strike(self) -> None:
        victim = self.dask.workers.pop(0)
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()
        self.killed += 1
        self.dask.add(f"replacement-{self.killed}")


# ------------------------------------------------------------------------------------------------ bench
def bench(scratch: Path) -> None:
    tasks, folders = [], {name: scratch / "data" / name for name in DATASETS}
    for name, folder in folders.items():
        found = datasets.make(name, folder, size=datasets.find(name).smallest)
        tasks.append(replace(found, requests=(f"{found.requests[0]}, as a quick try",)))
    candidate = job.Candidate(Request(text="-", data=".", trials=0), force=False)

    def go(way: str, pool: Any, listen: Callable[[dict[str, Any]], None]) -> tuple[float, dict[str, Any]]:
        begun = time.perf_counter()
        table = run_bench(candidate, tasks, 1, scratch / way, data=folders, executor=pool, listen=listen)
        seconds = time.perf_counter() - begun
        return seconds, {row.dataset: (row.s1.successes, row.score, row.failures) for row in table.rows}

    again: list[str] = []

    def heard(event: dict[str, Any]) -> None:
        again.extend([event["text"]] if "once more" in event.get("text", "") else [])

    with cluster.executor(None, 1, scratch) as pool:
        alone, expected = go("alone", pool, heard)
    print(f"bench, one at a time here: {alone:.0f} s, {_done(expected)}", flush=True)
    with cluster.executor(None, WORKERS, scratch) as pool:
        seconds, found = go("side-by-side", pool, heard)
    _same(f"{WORKERS} at a time here", seconds, alone, found, expected)
    with Dask(_folder(scratch, "dask-bench"), WORKERS) as dask:
        killer = Killer(dask)
        stop = threading.Event()

        def strike_when_training() -> None:
            out = scratch / "cluster"
            while not stop.wait(0.2):
                if any('"epoch"' in path.read_text() for path in out.glob("*/round-*/*/events.jsonl")):
                    killer.strike()
                    return

        thread = threading.Thread(target=strike_when_training)
        thread.start()
        with cluster.executor(dask.address, None, scratch) as pool:
            seconds, found = go("cluster", pool, heard)
        stop.set()
        thread.join()
    how = f"{WORKERS} workers, {killer.killed} killed, {len(again)} begun once more"
    _same(how, seconds, alone, found, expected)


def _done(found: dict[str, Any]) -> str:
    return f"{sum(s1 for s1, _, _ in found.values())} of {len(found)} done"


def _same(how: str, seconds: float, alone: float, found: dict[str, Any], expected: dict[str, Any]) -> None:
    same = "the same scores" if found == expected else f"DIFFERENT: {found} instead of {expected}"
    print(f"bench, {how}: {seconds:.0f} s ({seconds / alone:.2f}), {_done(found)}, {same}", flush=True)


# ------------------------------------------------------------------------------------------------ tune
def tune_all(scratch: Path) -> None:
    alone = 0.0
    for jobs in (1, WORKERS):
        seconds, said = _tuned(_folder(scratch, f"tune-{jobs}"), jobs, None, None, lambda event: None)
        alone = alone or seconds
        print(f"tune, {jobs} at a time here: {seconds:.0f} s ({seconds / alone:.2f}), {said}", flush=True)
    with Dask(_folder(scratch, "dask-tune"), WORKERS) as dask, _database() as storage:
        killer = Killer(dask)
        ends, again = 0, 0

        def heard(event: dict[str, Any]) -> None:
            nonlocal ends, again
            again += event["kind"] == "warning" and "once more" in event["text"]
            if event["kind"] == "trial":
                ends += 1
                if ends in (4, 10, 16):
                    threading.Timer(1, killer.strike).start()  # amid the trials that follow

        home = _folder(scratch, "tune-cluster")
        with cluster.executor(dask.address, WORKERS, home) as pool:
            seconds, said = _tuned(home, WORKERS, pool, storage, heard)
        where = "PostgreSQL" if storage else "a journal"
        how = f"{WORKERS} workers and {where}, {killer.killed} killed, {again} begun once more"
        print(f"tune, {how}: {seconds:.0f} s ({seconds / alone:.2f}), {said}", flush=True)


def _tuned(
    home: Path, jobs: int, pool: Any, storage: str | None, listen: Callable[[dict[str, Any]], None]
) -> tuple[float, str]:
    """Wall time, and what came of the trials."""
    run = small_run(home, epochs=EPOCHS, space={"lr": {"low": 1e-4, "high": 1e-1, "log": True}})
    run.listen = listen
    begun = time.perf_counter()
    with run.lock():
        found = tune(run, TRIALS, trusted=True, unsafe=False, jobs=jobs, executor=pool, storage=storage)
    seconds = time.perf_counter() - begun
    told = sorted(event["number"] for event in run.events() if event["kind"] == "trial")
    states = [trial.state for trial in found.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("complete", "pruned", "failed"))
    whole = told == [trial.number for trial in found.trials] == list(range(TRIALS))
    return seconds, f"{len(states)} of {TRIALS} trials, {'each told once' if whole else f'told: {told}'} ({counts})"


@contextmanager
def _database() -> Iterator[str | None]:
    server = PostgreSQL() if BINARIES else None
    try:
        yield server.url if server else None
    finally:
        if server:
            server.end()


def _folder(scratch: Path, name: str) -> Path:
    (scratch / name).mkdir()
    return scratch / name


def _timed(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


PARTS = {"overhead": overhead, "bench": bench, "tune": tune_all}


def main(*chosen: str) -> None:
    for name in chosen or PARTS:
        with TemporaryDirectory(prefix="m3dspy-cluster-") as scratch:
            PARTS[name](Path(scratch))


if __name__ == "__main__":
    main(*sys.argv[1:])
