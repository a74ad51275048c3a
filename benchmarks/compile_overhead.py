"""Where the time of a compile goes: language models, scripts in the sandbox, and m3dspy with DSPy itself.

python benchmarks/compile_overhead.py [--optimizer gepa] [--exercises 8] [--rollouts 40]

Simulated models answer over HTTP on loopback in about a millisecond, so that what is left is ours. One thread, one role
after another, so that the parts add up. `known` is the share of scripts that were wanted and had run before.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import dspy

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from lms.server import serve

from m3dspy.m3bench import partition
from m3dspy.optimizers.compile import OPTIMIZERS
from m3dspy.optimizers.metrics import Metric, examine
from m3dspy.optimizers.practice import Practice, examples
from m3dspy.optimizers.prompts._search import Search
from m3dspy.optimizers.session import quiet
from m3dspy.optimizers.track import Track
from m3dspy.optimizers.workshop import Workshop
from m3dspy.programs.builder import Builder
from m3dspy.programs.lms.ledger import Ledger
from m3dspy.programs.lms.model import M3dLM
from m3dspy.signatures.values import ROLES


class Counted(Metric):
    """A metric that counts its calls."""

    calls = 0

    def verdict(self, case, done):
        self.calls += 1
        return super().verdict(case, done)


def measure(role: str, optimizer: str, exercises: int, rollouts: int, home: Path, base: str) -> dict[str, float]:
    """Seconds and counts of one role's search, its exercises made beforehand."""
    workshop, ledger = Workshop(home), Ledger(home / f"{role}.jsonl")
    train, val = (examples(partition.names(part, exercises), role, workshop) for part in ("train", "validation"))
    student, teacher = (M3dLM(name, ledger, base) for name in ("openai/gpt-4o-mini", "openai/gpt-4o"))
    track = Track(case.exercise for case in val)
    metric = Counted(role, workshop, track)
    program = Practice(getattr(Builder(), role), workshop, track)
    with dspy.context(lm=student, adapter=dspy.ChatAdapter()), quiet(home / "log"):
        began = time.perf_counter()
        examine(program, val, metric, threads=1)
        given = Search(train, val, metric, teacher, rollouts, seed=0, threads=1)
        OPTIMIZERS[optimizer].search(program, given)
        wall = time.perf_counter() - began
    models = sum(line["seconds"] for line in ledger.lines)
    return {
        "metric calls": metric.calls,
        "wall": wall,
        "models": models,
        "scripts": workshop.seconds,
        "own": wall - models - workshop.seconds,
        "tried": workshop.tried,
        "known": workshop.known,
        "answers": ledger.calls,
        "recalled": ledger.recalled,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--optimizer", default="gepa")
    parser.add_argument("--exercises", type=int, default=8)
    parser.add_argument("--rollouts", type=int, default=40)
    given = parser.parse_args()
    columns = ("metric calls", "ms each", "models", "scripts", "own", "known scripts", "recalled answers")
    print(f"{'role':<18}" + "".join(f"{column:>18}" for column in columns))
    with tempfile.TemporaryDirectory() as home, serve() as base:
        for role in ROLES:
            found = measure(role, given.optimizer, given.exercises, given.rollouts, Path(home), base)
            wall, calls = found["wall"], found["metric calls"]
            known = found["known"] / max(1, found["known"] + found["tried"])
            recalled = found["recalled"] / (found["recalled"] + found["answers"])
            shares = (found["models"] / wall, found["scripts"] / wall, found["own"] / wall, known, recalled)
            cells = [f"{calls:.0f}", f"{1000 * wall / calls:.0f}", *(f"{share:.0%}" for share in shares)]
            print(f"{role:<18}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
