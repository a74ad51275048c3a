"""Zero-shot anomaly detection, one dataset left out: what is learnt from all others is tried on the one never seen."""

from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from m3dspy import job
from m3dspy.errors import UsageError
from m3dspy.m3bench import leave_one_out
from m3dspy.m3bench import task as datasets
from m3dspy.m3bench.bench import Table, phantom
from m3dspy.m3bench.bench import bench as run_bench
from m3dspy.m3bench.exercise import plan_of
from m3dspy.signatures.values import Fingerprint, Index, Outcome, Request
from m3dspy.workspace.cards import cards
from m3dspy.workspace.look import look
from m3dspy.workspace.runs import Run

CAP = 100  # images of each other dataset, half of them normal


@dataclass(frozen=True)
class Candidate(job.Candidate):
    """The job on one dataset with what all `known` ones teach; they lie side by side."""

    known: tuple[str, ...] = ()

    def __call__(self, task: datasets.BenchTask, data: Path, folder: Path, seed: int) -> Outcome:
        root = data.resolve().parent
        index = leave_one_out.index(task.name, {name: name for name in self.known}, root, seed, CAP)
        text = f"zero-shot anomaly detection on {index.about}"
        asked = self.request.model_copy(update={"text": text, "data": str(root), "seed": seed})
        run = self.taken_up(asked, folder, f"{task.name}, round {seed}")
        _decide(run, task, data, index)
        return job.carry_on(run)


def bench(
    names: list[str] | None,
    request: Request,
    rounds: int,
    out: Path,
    listen: job.Listen,
    *,
    force: bool = False,
    executor: Executor | None = None,
) -> Table:
    """Run every anomaly detection dataset, or those named, as the one left out; as `job.bench`, in `out/zero-shot`.

    Raises: UsageError: a dataset is not for anomaly detection.
    """
    known = [task for task in datasets.tasks() if task.task == "anomaly_detection"]
    targets = [datasets.find(name) for name in names] if names else known
    if others := [task.name for task in targets if task not in known]:
        raise UsageError(
            f"{', '.join(others)} is not for anomaly detection; --zero-shot knows {', '.join(t.name for t in known)}."
        )
    home = out.resolve() / "zero-shot"
    for task in known:
        phantom(task, home)
    candidate = Candidate(request, force, None if executor else listen, tuple(task.name for task in known))
    return run_bench(candidate, targets, rounds, home, executor=executor, listen=listen)


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
