"""A run on a small disk that is filled amid its final training, and freed again: `python full_disk.py DISK DATA`."""

import json
import os
import sys
from pathlib import Path

from test_resume import REQUEST, command, events, finish

disk, data = map(Path, sys.argv[1:])


def epochs(run):
    return [event["epoch"] for event in events(run) if event["kind"] == "epoch" and event["attempt"] == "final"]


def fill():
    with (disk / "ballast").open("wb") as file:
        try:
            while True:
                os.write(file.fileno(), bytes(1 << 16))
        except OSError:
            return


process = command(disk, "run", REQUEST, "--data", str(data), "--trials", "1")
run = None
while run is None or not epochs(run):
    run = next(disk.glob("runs/[!.]*"), None)
    assert process.poll() is None, process.stderr.read().decode()
fill()
out, err = process.communicate(timeout=300)
told = err.decode().splitlines()
assert process.returncode == 1, told
assert told[-1].endswith("is full. Free some space, then resume the run."), told
assert not [line for line in told if "Traceback" in line], told
before = epochs(run)
(disk / "ballast").unlink()
finish(command(disk, "resume", str(run)))
after = epochs(run)
assert after[: len(before)] == before
assert len(set(after)) == len(after), after
assert [trial["state"] for trial in json.loads((run / "tuned.json").read_text())["trials"]] == ["complete"]
print("done")
