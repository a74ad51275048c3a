"""The share of a training step that is spent on waiting for images: drawing patches, moving them to the device.

    python benchmarks/data_wait.py [--phantoms COVID19 BTCV IU-Xray] [--cache-gb 0] [--epochs 3]

The default script of each phantom, as emitted; images are read once, before the first epoch, which is not counted.
--cache-gb 0 keeps them in a file, as those of a dataset larger than memory. Augmentation runs on the device and counts
as computing.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from default_script import default_script

from m3dspy.m3bench import task as datasets

WATCHED = """
import json, sys, time
sys.path.insert(0, "")
import harness, train
stepped, waited, pending, last = 0.0, 0.0, 0.0, 0.0

def watched(name):
    call = getattr(train, name, None)
    def timed(*given):
        global pending
        began = time.perf_counter()
        found = call(*given)
        pending += time.perf_counter() - began
        return found
    if call:
        setattr(train, name, timed)

def step(run, loss, step=harness.Training.step):
    global stepped, waited, pending, last
    step(run, loss)
    now = time.perf_counter()
    stepped, waited, pending, last = stepped + now - last, waited + pending, 0.0, now

def epochs(run, epochs=harness.Training.epochs):
    global pending, last
    for epoch in epochs(run):
        pending, last = 0.0, time.perf_counter()
        yield epoch

watched("patch_of"), watched("on_device")
harness.Training.step, harness.Training.epochs = step, epochs
status = train.command_line(train.SETTINGS, train.SPACE, train.LOSSES, train.train, train.predict, train.made_up)
print(json.dumps({"stepped": stepped, "waited": waited}))
sys.exit(status)
"""


def shares(name: str, epochs: int, cache_gb: float, home: Path) -> tuple[str, float, float]:
    """The network; seconds of all steps; the share of them that was spent on waiting."""
    task, root, out = datasets.find(name), home / "data" / name, home / name
    datasets.make(name, root)
    design, code = default_script(task, task.gold(root, 0).model_copy(update={"test": ()}), root, out)
    words = ["--index", out / "index.json", "--data", root, "--out", out / "out"]
    words += ["--set", f"epochs={epochs}", f"cache_gb={cache_gb}"]
    said = subprocess.run(
        [sys.executable, "-c", WATCHED, *map(str, words)], cwd=code, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    found = json.loads(said.splitlines()[-1])
    return design.network, found["stepped"], found["waited"] / found["stepped"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phantoms", nargs="+", default=["COVID19", "BTCV", "IU-Xray"])
    parser.add_argument("--cache-gb", type=float, default=4.0)
    parser.add_argument("--epochs", type=int, default=3)
    given = parser.parse_args()
    print("| phantom | network | seconds of steps | share waiting |\n|---|---|---|---|")
    with TemporaryDirectory(prefix="m3dspy-wait-") as scratch:
        for name in given.phantoms:
            network, seconds, share = shares(name, given.epochs, given.cache_gb, Path(scratch))
            print(f"| {name} | {network} | {seconds:.1f} | {share:.1%} |", flush=True)


if __name__ == "__main__":
    main()
