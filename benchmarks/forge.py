"""How far the built-in rules come on made-up folders that nobody has seen, role by role, and what they cannot read.

    python benchmarks/forge.py [--exercises 100] [--seed 900] [--practice FOLDER]

Goes round all layouts of the forge. A role by itself finds an expert's work before it; in the whole all four work in a
row. Every script is run in the sandbox. Beside each failure stands what an expert would have said.
"""

import argparse
import tempfile
from pathlib import Path

import dspy

from m3dspy.m3bench.forge import LAYOUTS
from m3dspy.m3bench.partition import layout_of
from m3dspy.m3bench.stats import success
from m3dspy.optimizers.metrics import Metric, Verdict, examine
from m3dspy.optimizers.practice import examples
from m3dspy.optimizers.session import at_work
from m3dspy.optimizers.standings import PARTS
from m3dspy.optimizers.track import Track
from m3dspy.optimizers.workshop import Workshop
from m3dspy.programs.builder import Builder
from m3dspy.programs.lms.ledger import Ledger
from m3dspy.programs.lms.model import M3dLM


def fresh(count: int, seed: int) -> list[str]:
    """Exercises of all layouts in turn. Args: seed: of the first round of them, in thousands."""
    layouts = [name.replace("_", "-") for name in LAYOUTS]
    return [f"forge-{layouts[i % len(layouts)]}-{1000 * seed + i // len(layouts):06d}" for i in range(count)]


def tried(part: str, names: list[str], workshop: Workshop, threads: int) -> dict[str, Verdict]:
    """The verdict on each exercise that is for this role, or for "whole"."""
    cases = examples(names, part, workshop)
    with dspy.context(lm=M3dLM("rules", Ledger())):
        verdicts = examine(at_work(Builder(), part, workshop), cases, Metric(part, workshop, Track(())), threads)
    return {case.exercise: verdict for case, verdict in zip(cases, verdicts, strict=True)}


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--exercises", type=int, default=100)
    given.add_argument("--seed", type=int, default=900)
    given.add_argument("--practice", type=Path, default=Path(tempfile.gettempdir()) / "m3dspy-practice")
    given.add_argument("--threads", type=int, default=2)
    options = given.parse_args()
    names, workshop = fresh(options.exercises, options.seed), Workshop(options.practice)
    found = {part: tried(part, names, workshop, options.threads) for part in PARTS}
    for part, verdicts in found.items():
        rate = success(sum(verdict.success for verdict in verdicts.values()), len(verdicts))
        print(f"{part:<17}{rate.successes}/{rate.runs} [{rate.low:.2f}, {rate.high:.2f}]")
    for part, verdicts in found.items():
        for name, verdict in verdicts.items():
            if not verdict.success:
                blame = f" (first: {verdict.blame})" if verdict.blame else ""
                print(f"\n{part}: {layout_of(name)}, {name}{blame}\n{verdict.feedback}")


if __name__ == "__main__":
    main()
