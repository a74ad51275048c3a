"""A real Dask cluster on loopback, each process of it one that can be killed; and what the tests let it do."""

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from m3dspy.errors import RunFailed
from m3dspy.m3bench.candidate import Submission

ROOT = Path(__file__).resolve().parent.parent


class Dask:
    """A scheduler and workers of one thread each; `folder` takes their logs."""

    def __init__(self, folder, workers=0, *options, environment=None):
        self.folder, self.environment = (
            folder,
            {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"} | (environment or {}),
        )
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        self.address = self._printed("scheduler", r"Scheduler at:\s+(tcp://\S+)")
        self.workers = []
        for k in range(workers):
            self.add(f"worker-{k}", *options)
        for k in range(workers):
            self.registered(f"worker-{k}")

    def worker(self, name, *options, inside=()):
        """A process of one worker, which nobody starts anew when it is killed; `inside`: a command that starts it."""
        words = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--name", name)
        scratch = ("--local-directory", self.folder / "scratch")
        return self._start(name, self.address, *words, *scratch, *options, kind="worker", inside=inside)

    def add(self, name, *options, inside=()):
        self.workers.append(self.worker(name, *options, inside=inside))

    def registered(self, name):
        self._printed(name, r"Registered to:\s+(tcp://\S+)")

    def end(self):
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.end()

    def _start(self, name, *words, kind="scheduler", inside=()):
        with (self.folder / f"{name}.log").open("wb") as log:
            command = [*map(str, inside), sys.executable, "-m", "distributed.cli.dask_" + kind, *map(str, words)]
            return subprocess.Popen(command, stdout=log, stderr=log, env=self.environment, cwd=self.folder)

    def _printed(self, name, pattern, seconds=60):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := re.search(pattern, (self.folder / f"{name}.log").read_text()):
                return found.group(1)
            time.sleep(0.05)
        raise TimeoutError((self.folder / f"{name}.log").read_text())


# ------------------------------------------------------------------------------------------------ carried out far away
def process(seconds=0.0):
    """The process that does the work."""
    time.sleep(seconds)
    return os.getpid()


@dataclass(frozen=True)
class Waits:
    """A benchmark's candidate that leaves a file `begun-N` with its process in the round's folder.

    The first `times` beginnings of round 0 of the dataset called `name` take a minute.
    """

    name: str = ""
    times: int = 0

    def __call__(self, given):
        folder = given.out
        number = len(list(folder.glob("begun-*")))
        (folder / f"begun-{number}.tmp").write_text(str(os.getpid()))
        (folder / f"begun-{number}.tmp").rename(folder / f"begun-{number}")
        if (folder.parent.parent.name, given.seed) == (self.name, 0) and number < self.times:
            time.sleep(60)
        return Submission()


def begun(folder, number, seconds=60):
    """The process that began a round for the time `number`, once it has."""
    end = time.monotonic() + seconds
    while not (file := folder / f"begun-{number}").is_file():
        assert time.monotonic() < end, f"{file} never came"
        time.sleep(0.02)
    return int(file.read_text())


def ends_badly():
    raise RunFailed("The script ended badly.", Path("nowhere.log"), cut=True)
