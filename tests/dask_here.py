"""A real Dask cluster on loopback, each process of it one that can be killed."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Dask:
    """A scheduler and workers of one thread each; `folder` takes their logs."""

    def __init__(self, folder, workers=0, *options, environment=None):
        self.folder, self.environment = folder, {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        self.address = self._printed("scheduler", r"Scheduler at:\s+(tcp://\S+)")
        self.workers = [self.worker(f"worker-{k}", *options) for k in range(workers)]
        for k in range(workers):
            self._printed(f"worker-{k}", r"Registered to:\s+(tcp://\S+)")

    def worker(self, name, *options):
        """A process of one worker, which nobody starts anew when it is killed."""
        words = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--name", name)
        return self._start(
            name, self.address, *words, "--local-directory", self.folder / "scratch", *options, kind="worker"
        )

    def end(self):
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.end()

    def _start(self, name, *words, kind="scheduler"):
        with (self.folder / f"{name}.log").open("wb") as log:
            command = [sys.executable, "-m", "distributed.cli.dask_" + kind, *map(str, words)]
            return subprocess.Popen(command, stdout=log, stderr=log, env=self.environment, cwd=self.folder)

    def _printed(self, name, pattern, seconds=60):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := re.search(pattern, (self.folder / f"{name}.log").read_text()):
                return found.group(1)
            time.sleep(0.05)
        raise TimeoutError((self.folder / f"{name}.log").read_text())


def kill(pid):
    os.kill(pid, signal.SIGKILL)
