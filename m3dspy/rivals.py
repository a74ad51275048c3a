"""Who can take the job's place in the benchmark: candidates by name, a command line, the job broken on purpose.

shuffled   the job with the labels of the training cases shuffled: looks trained, has learnt nothing
leaky      the job with its split by image instead of by patient: claims more than it delivers
"""

from dataclasses import dataclass

from m3dspy import job
from m3dspy.errors import unknown
from m3dspy.m3bench import task as datasets
from m3dspy.m3bench.candidate import Assignment, Candidate, Submission
from m3dspy.m3bench.candidates import CANDIDATES
from m3dspy.m3bench.candidates.command import Command
from m3dspy.m3bench.exercise import plan_of
from m3dspy.signatures.values import SPLITS, Fingerprint, Index, Request, Tuned
from m3dspy.workspace import indexing
from m3dspy.workspace.cards import cards
from m3dspy.workspace.look import look
from m3dspy.workspace.runs import Run


@dataclass(frozen=True)
class Shuffled(job.Candidate):
    """The job on shuffled labels, untuned."""

    def __call__(self, given: Assignment) -> Submission:
        run = self.taken_up(self.asked(given, given.request, given.data / "train"), given.out)
        with run.lock():
            if not run.has("tuned"):
                run.commit("tuned", Tuned(settings={"shuffled": True}))
        return job.submitted(run, given)


@dataclass(frozen=True)
class Leaky(job.Candidate):
    """The job with an expert's plan and an index that takes every image for a patient."""

    def __call__(self, given: Assignment) -> Submission:
        data = given.data / "train"
        run = self.taken_up(self.asked(given, given.request, data), given.out)
        task = datasets.find(given.data.parent.name)
        index = task.gold(data, 0)
        with run.lock():
            if not run.has("fingerprint"):
                run.commit("fingerprint", look(data))
            if not run.has("plan"):
                _commit_plan(run, task, index)
            if not run.has("index"):
                run.commit("index", by_image(index, given.seed))
        return job.submitted(run, given)


def _commit_plan(run: Run, task: datasets.BenchTask, index: Index) -> None:
    card = next((card for card in cards() if card.name == task.name), None)
    run.commit("plan", plan_of(index, task.facts, run.load("fingerprint", Fingerprint), card))


def by_image(index: Index, seed: int) -> Index:
    """The cases dealt anew as if each were a patient of its own."""
    items = [item.model_dump() | {"patient": item.id} for split in SPLITS for item in index.items(split)]
    kept = index.model_dump(exclude=set(SPLITS))
    return Index.model_validate({**kept, **indexing.split(items, seed=seed)})


BROKEN: dict[str, type[job.Candidate]] = {"shuffled": Shuffled, "leaky": Leaky}


def find(name: str, request: Request, listen: job.Listen, *, force: bool, unsafe: bool) -> Candidate:
    """The candidate of that name, or the command line.

    Raises: UsageError: neither; names the nearest, or says what the command line lacks.  NoSandbox: as Command.
    """
    if name in BROKEN:
        return BROKEN[name](request, force, listen)
    known = [known for known in CANDIDATES if known != "command"]
    if name in known:
        return CANDIDATES[name].candidate
    if " " not in name and "{" not in name:
        raise unknown("candidate", name, [*known, *BROKEN])
    return Command(name, unsafe)
