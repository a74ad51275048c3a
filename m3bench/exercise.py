"""An exercise: one dataset folder, one request, and an expert's answers.

exercise = make("forge-table-words-000017", home)      # home/<name>/data and home/<name>/exercise.json
"""

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from filelock import FileLock

from m3dspy.m3bench import forge, partition, task
from m3dspy.m3bench.phantom import stream
from m3dspy.m3bench.task import Facts
from m3dspy.signatures.values import DataCard, Fingerprint, Group, Index, Plan, Source, Value
from m3dspy.workspace import indexing as ix
from m3dspy.workspace.cards import cards as known_cards
from m3dspy.workspace.indexes.cases import items, natural, regex_of
from m3dspy.workspace.look import look
from m3dspy.workspace.runs import write_atomic

SHOTS = 4  # of each kind, in every request for anomaly detection on a dataset
_FEW = {"validation": 0.3, "test": 0.4}  # few shots leave most cases to choose settings on, and to test
_FEW_OF_POOL = {"validation": 0.5}  # the same where the dataset gives the test cases


class Answers(NamedTuple):
    """What an expert would answer: the plan, the index of every case, and that after the caps."""

    plan: Plan
    every: Index
    capped: Index


class Exercise(Value):
    """A dataset folder, a request, and what an expert would answer. Paths are relative to the folder.

    layout: of the forge, or the dataset's name.  cards: what the Task Manager is shown; `card`: the folder's own, "" if
    none.  refused: no model can be built for this request from this folder; then there is no plan and no index.
    index: every eligible case with its true label and true patient, before any caps.  capped: after the plan's caps.
    official_split: the dataset itself says which cases are for training, validation and test.
    """

    name: str
    part: Literal["train", "validation", "held-out"]
    layout: str
    seed: int
    request: str
    cards: tuple[DataCard, ...]
    card: str
    refused: bool
    fingerprint: Fingerprint
    plan: Plan | None
    index: Index | None
    official_split: bool
    capped: Index | None

    @property
    def answers(self) -> Answers:
        """The expert's answers to a request that can be served."""
        assert self.plan is not None and self.index is not None and self.capped is not None, f"{self.name} is refused"
        return Answers(self.plan, self.index, self.capped)


def root(name: str, home: Path) -> Path:
    """The dataset folder of an exercise."""
    return home / name / "data"


def make(name: str, home: Path) -> Exercise:
    """The exercise of that name, made where it is not there yet: whole or not at all, by one thread at a time.

    Raises: UsageError: no exercise is called so.
    """
    forged = partition.taken_apart(name)
    file = home / name / "exercise.json"
    if not file.is_file():
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / f".{name}.lock"):
            if not file.is_file():
                with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=home) as temporary:
                    folder = Path(temporary) / name
                    folder.mkdir()
                    exercise = _forged(name, *forged, folder / "data") if forged else _dataset(name, folder / "data")
                    write_atomic(folder / file.name, exercise.model_dump_json(indent=1).encode())
                    folder.rename(file.parent)
    return Exercise.model_validate_json(file.read_bytes())


def _forged(name: str, layout: str, seed: int, folder: Path) -> Exercise:
    folder.mkdir()
    forged = forge.make(layout, seed, folder)
    made = forged.made
    cases = sorted(made.cases, key=lambda case: natural(_folder_or_file(case.image)))
    listed = items(
        [(_folder_or_file(case.image), case.image) for case in cases],  # pyright: ignore[reportArgumentType]
        [case.label for case in cases],
        [case.patient for case in cases],
        made.slices,
    )
    given = any(case.split for case in cases)
    listed = [
        item
        | {"label": case.label or None, "mask": case.mask, "findings": case.findings, "impression": case.impression}
        | ({"split": case.split} if case.split else {})
        for item, case in zip(listed, cases, strict=True)
    ]
    shares = {} if forged.shots is None else _FEW_OF_POOL if given else _FEW
    values = tuple(int(value) for value in made.facts.values) if forged.task == "segmentation" else ()
    index = Index.model_validate(
        {"task": forged.task, "labels": made.labels, "values": values, "about": forged.about}
        | ix.split(listed, seed=0, **shares)
    )
    request, card, refused, shots = forged.request, forged.card, forged.refused, forged.shots
    return _exercise(name, layout, seed, request, folder, index, made.facts, card, refused, given, shots)


def _dataset(name: str, folder: Path) -> Exercise:
    known = task.make(name, folder, size=task.find(name).smallest, workers=1)
    card = next((card for card in known_cards() if card.name == name), None)
    request, index = known.requests[0], known.gold(folder, 0)
    return _exercise(name, name, 0, request, folder, index, known.facts, card, False, False, SHOTS)


def _exercise(
    name: str,
    layout: str,
    seed: int,
    request: str,
    folder: Path,
    index: Index,
    facts: Facts,
    card: DataCard | None,
    refused: bool,
    official_split: bool,
    shots: int | None,
) -> Exercise:
    part = partition.part_of(name)
    fingerprint = look(folder)  # of a phantom: there is nobody to hide from the prompts that compiling makes
    plan = plan_of(index, facts, fingerprint, card, shots)
    splits = {split: [item.model_dump() for item in index.items(split)] for split in ("training", "validation", "test")}
    caps = facts.caps
    splits = ix.cap(splits, training=caps.training, test=caps.test, balanced=caps.balanced, seed=0)
    capped = Index.model_validate(index.model_dump() | splits)
    return Exercise(
        name=name,
        part=part,
        layout=layout,
        seed=seed,
        request=request,
        cards=_shown(name, part, card),
        card=card.text if card else "",
        refused=refused,
        fingerprint=fingerprint,
        plan=None if refused else plan,
        index=None if refused else index,
        official_split=official_split,
        capped=None if refused else capped,
    )


def _shown(name: str, part: partition.Part, card: DataCard | None) -> tuple[DataCard, ...]:
    """The folder's own card among those of datasets; while compiling, none of a dataset that is held out."""
    random = stream(0, "cards", name)
    others = [other for other in known_cards() if part == "held-out" or partition.part_of(other.name) != "held-out"]
    others = [other for other in others if other != card and random.random() < 0.5]
    shown = [*others, card] if card else others
    return tuple(shown[i] for i in random.permutation(len(shown)))


def plan_of(
    index: Index, facts: Facts, fingerprint: Fingerprint, card: DataCard | None, shots: int | None = SHOTS
) -> Plan:
    """The expert's plan: the facts in the words of the fingerprint. Args: shots: for an anomaly detection only."""
    anomalies = index.task == "anomaly_detection"
    images = _most_of(fingerprint, index) if anomalies else _group(fingerprint, index.training[0].image)
    source = facts.source
    if source.kind == "masks":
        source = Source(kind="masks", path=_group(fingerprint, str(index.training[0].label)).pattern)
    keys = [key for key in fingerprint.patients if facts.patient in (key.where, key.column)]
    marked = [item.mask for item in index.training if item.mask]
    masks = _group(fingerprint, marked[0], masks=True).pattern if marked else None
    texts = {"findings": facts.findings, "impression": facts.impression}
    few = {"masks": masks, "about": index.about, "shots": shots}
    return Plan.model_validate(
        {
            "task": index.task,
            "goal": _goal(index),
            "card": card.name if card else None,
            "modality": facts.modality,
            "dims": images.dims,
            "images": images.pattern,
            "labels": index.labels,
            "label_values": facts.values,
            "source": source,
            "patient": next(iter(keys), None) if facts.patient else None,
            "caps": facts.caps,
            "sided": facts.sided,
            **(few if anomalies else texts),
        }
    )


def _goal(index: Index) -> str:
    labels = ", ".join(index.labels)
    if index.task == "report_generation":
        return "Write the report of each image."
    goals = {"classification": f"Tell {labels} apart.", "segmentation": f"Mark {labels}."}
    return goals.get(index.task) or f"Find what is abnormal in {index.about}."


def _most_of(fingerprint: Fingerprint, index: Index) -> Group:
    """The group that holds most of the images to learn from and to choose by."""
    held = Counter(_group(fingerprint, item.image).pattern for item in (*index.training, *index.validation))
    return max(fingerprint.groups, key=lambda group: held[group.pattern])


def _group(fingerprint: Fingerprint, image: str | Sequence[str], masks: bool = False) -> Group:
    """The group of an image. Args: masks: of those that hold masks; the images' `*/#.png` may match `masks/1.png`."""
    path = image if isinstance(image, str) else image[0]
    groups = [group for group in fingerprint.groups if group.values or not masks]
    return next(group for group in groups if regex_of(group.pattern).fullmatch(path))


def _folder_or_file(image: str | Sequence[str]) -> str:
    """The case of an image: its file, or the folder of its slices."""
    return image if isinstance(image, str) else image[0].rpartition("/")[0]
