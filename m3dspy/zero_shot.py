"""Zero-shot anomaly detection, one dataset left out: what is learnt from all others is tried on the one never seen."""

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from m3dspy import job
from m3dspy.errors import UsageError
from m3dspy.m3bench import leave_one_out
from m3dspy.m3bench import task as datasets
from m3dspy.m3bench.bench import Table, phantom
from m3dspy.m3bench.bench import bench as run_bench
from m3dspy.m3bench.candidate import Assignment, Limits, Submission
from m3dspy.m3bench.exercise import plan_of
from m3dspy.signatures.values import Fingerprint, Index, Request
from m3dspy.workspace.cards import cards
from m3dspy.workspace.look import look
from m3dspy.workspace.runs import Run

CAP = 100  # images of each other dataset, half of them normal


@dataclass(frozen=True)
class Candidate(job.Candidate):
    """The job on one dataset with what all `known` ones teach. home: of their phantoms, side by side in `data/`.

    Of the target it is shown the images of the test cases alone, as every candidate is.
    """

    known: tuple[str, ...] = ()
    home: Path = Path()

    def __call__(self, given: Assignment) -> Submission:
        target = given.data.parent.name
        root = self.home / "data"
        index = leave_one_out.index(target, {name: name for name in self.known}, root, given.seed, CAP)
        run = self.taken_up(self.asked(given, f"zero-shot anomaly detection on {index.about}", root), given.out)
        _decide(run, datasets.find(target), root / target, index)
        return job.submitted(run, given)


def bench(
    names: list[str] | None,
    request: Request,
    rounds: int,
    out: Path,
    listen: job.Listen,
    *,
    force: bool = False,
    data: Mapping[str, Path] | None = None,
    limits: Limits | None = None,
    executor: Executor | None = None,
) -> Table:
    """Run every anomaly detection dataset, or those named, as the one left out; as `job.bench`, in `out/zero-shot`.

    Raises: UsageError: a dataset is not for anomaly detection, or real data is given: phantoms alone are learnt from.
    """
    if data:
        raise UsageError("--zero-shot runs on phantoms. Leave --root out.")
    known = [task for task in datasets.tasks() if task.task == "anomaly_detection"]
    targets = [datasets.find(name) for name in names] if names else known
    if others := [task.name for task in targets if task not in known]:
        raise UsageError(
            f"{', '.join(others)} is not for anomaly detection; --zero-shot knows {', '.join(t.name for t in known)}."
        )
    home = out.resolve() / "zero-shot"
    for task in known:
        phantom(task, home)
    candidate = Candidate(request, force, listen, tuple(task.name for task in known), home)
    how = {"name": "m3dspy, zero-shot", "limits": limits, "executor": executor, "listen": listen}
    return run_bench(candidate, targets, rounds, home, **how)


def _decide(run: Run, task: datasets.BenchTask, data: Path, index: Index) -> None:
    """Commit what no role could find out by a look at one folder: an expert's plan, and the index of all."""
    with run.lock():
        if not run.has("fingerprint"):
            run.commit("fingerprint", look(data))  # of a phantom: there is nobody to hide
        if not run.has("plan"):
            card = next((card for card in cards() if card.name == task.name), None)
            target = plan_of(task.gold(data, 0), task.facts, run.load("fingerprint", Fingerprint), card)
            run.commit("plan", target.model_copy(update={"shots": 0}))
        if not run.has("index"):
            run.commit("index", index)
