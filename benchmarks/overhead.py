"""What a run costs besides language and training: look, index, check, emit, grade, report.

    python benchmarks/overhead.py RUN [RUN ...]        finished runs; they are not changed

Prints seconds a step and in all, and the peak memory of this process. Imports count for the step that makes them.
"""

import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


def measure(run_folder: Path) -> dict[str, float]:
    """Step -> seconds, done anew on a copy of the run."""
    seconds: dict[str, float] = {}

    def timed(step: str, work: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        result = work()
        seconds[step] = time.perf_counter() - begun
        return result

    with TemporaryDirectory() as scratch:
        copy = Path(scratch) / run_folder.name
        shutil.copytree(run_folder, copy, ignore=shutil.ignore_patterns("cache", "attempts", "logs"))

        from m3dspy.signatures.values import Design, Index, Outcome, Plan, Request
        from m3dspy.workspace.runs import Run

        run = Run(copy)
        request, plan, index = run.load("request", Request), run.load("plan", Plan), run.load("index", Index)
        root, script = Path(request.data), (copy / "prepare" / "prepare.py").read_text()

        def look() -> None:
            from m3dspy.workspace.look import look

            look(root)

        def index_and_check() -> None:
            from m3dspy.workspace.preparing import prepare

            prepare(run, script, plan, root, trusted=True, unsafe=False)

        def emit() -> None:
            from m3dspy.workspace.emit import emit

            emit(run.load("design", Design), index, copy / "code-again")

        def grade() -> None:
            from m3dspy.m3bench.grade import grade

            checkpoint = copy / "model" / "model.safetensors"
            control = copy / "control" / "predictions"
            grade(index, root, copy / "predictions", checkpoint=checkpoint, control=control, seed=request.seed)

        def report() -> None:
            from m3dspy.workspace.report import report

            run.load("outcome", Outcome)
            report(copy)

        timed("look", look)
        timed("index, check", index_and_check)
        timed("emit", emit)
        timed("grade", grade)
        timed("report", report)
    return seconds


def main() -> None:
    for folder in map(Path, sys.argv[1:]):
        seconds = measure(folder.resolve())
        steps = ", ".join(f"{step} {value:.2f}" for step, value in seconds.items())
        print(f"{folder.name}: {sum(seconds.values()):.2f} s ({steps})")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
