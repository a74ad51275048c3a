"""What the sandbox costs: time to start beyond a plain process, and CPU time while a script works.

    python benchmarks/sandbox.py [ROUNDS]

Prints the least of ROUNDS (default 15) starts of an empty script at each level of this machine, and the CPU time that a
loop takes plain and at each level, with that of the supervisor beside it.
"""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from m3dspy.workspace import execute, sandbox
from m3dspy.workspace.execute import Containment

LOOP = """
import resource
for n in range(30_000_000): pass
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime)
"""


def run(text: str, folder: Path) -> list[str]:
    (folder / "code" / "train.py").write_text(text)
    rest = {"log": folder / "log", "seconds": 120.0, "trusted": True, "unsafe": False}
    return list(execute.stream(folder / "code", "train.py", [], out=folder / "out", **rest))


def plain(text: str, folder: Path) -> list[str]:
    (folder / "code" / "train.py").write_text(text)
    done = subprocess.run(
        [sys.executable, str(folder / "code" / "train.py")], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def seconds(call: object, text: str, folder: Path) -> float:
    begun = time.perf_counter()
    call(text, folder)  # pyright: ignore[reportCallIssue]
    return time.perf_counter() - begun


def children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    best = execute.probe()
    boxes = [best] if best.level == "bwrap" else []
    if not sandbox.trial(Containment("landlock")):
        boxes.append(Containment("landlock"))
    boxes.append(Containment("none", why="a benchmark"))
    with TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("code", "out"):
            (folder / part).mkdir()
        start = min(seconds(plain, "", folder) for _ in range(rounds))
        work = min(float(plain(LOOP, folder)[0]) for _ in range(5))
        print(f"plain: start {1000 * start:.0f} ms, loop {work:.2f} s of CPU; load {os.getloadavg()[0]:.1f}")
        for box in boxes:
            execute.probe = lambda box=box: box
            beyond = min(seconds(run, "", folder) for _ in range(rounds)) - start
            loops, beside = [], []
            for _ in range(5):
                before = children()
                loops.append(float(run(LOOP, folder)[0]))
                beside.append(children() - before - loops[-1])
            print(
                f"{box.level}: start + {1000 * beyond:.0f} ms, loop {min(loops):.2f} s of CPU, "
                f"beside it {min(beside):.2f} s (starting included)"
            )


if __name__ == "__main__":
    main()
