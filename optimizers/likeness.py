"""How far a plan, an index or a design agrees with what is known of an exercise: by meaning, not by wording."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from m3dspy.m3bench.exercise import Exercise
from m3dspy.signatures.values import SPLITS, Design, Fingerprint, Group, Index, Item, PatientKey, Plan
from m3dspy.workspace.indexes.cases import regex_of

LEAST_SHARE = 0.08  # of the cases that validation and test must hold, where the dataset does not say which
EVEN = 0.7  # of what can be had: the cases of the smallest class where a card asks for balance


class Facet(NamedTuple):
    """One respect in which an answer is compared: the share that is right, and what to say if it is not all."""

    name: str
    share: float
    note: str


def of_plan(plan: Plan, known: Plan, index: Index) -> list[Facet]:
    """A plan against the expert's. Args: index: every case of the exercise with its true patient."""

    def same(name: str, one: object, other: object) -> Facet:
        return Facet(name, float(one == other), f"{name}: the plan has {_told(one)}, an expert {_told(other)}.")

    one, other = plan.source, known.source
    return [
        same("task", plan.task, known.task),
        same("images", plan.images, known.images),
        same("dims", plan.dims, known.dims),
        same("modality", plan.modality, known.modality),
        Facet("labels", float(_labels_agree(plan, known)), f"labels: {_labels(plan)}; an expert has {_labels(known)}."),
        same(
            "source",
            (one.kind, one.path, one.column, one.file_column, one.files, one.key),
            (other.kind, other.path, other.column, other.file_column, other.files, other.key),
        ),
        Facet(
            "patient",
            float(_patients_agree(plan, known, index)),
            f"patient: {_told(plan.patient)} does not tell the patients apart as an expert's key does, "
            f"{_told(known.patient)}.",
        ),
        same("caps", plan.caps, known.caps),
        same("sided", plan.sided, known.sided),
        *(_texts(plan, known, same) if known.task == "report_generation" else []),
        *(_few(plan, known, same) if known.task == "anomaly_detection" else []),
    ]


def _few(plan: Plan, known: Plan, same: Callable[[str, object, object], Facet]) -> list[Facet]:
    """What only the plan of an anomaly detection says; the subject may be put in more or fewer words."""
    mine, theirs = (set(re.findall(r"[a-z]+", subject.lower())) for subject in (plan.about, known.about))
    agree = bool(mine) and (mine <= theirs or theirs <= mine)
    return [
        same("masks", plan.masks, known.masks),
        Facet("about", float(agree), f"about: the plan has {plan.about!r}, an expert {known.about!r}."),
        same("shots", plan.shots, known.shots),
    ]


def _texts(plan: Plan, known: Plan, same: Callable[[str, object, object], Facet]) -> list[Facet]:
    """What only the plan of a report generation says."""
    return [same("findings", plan.findings, known.findings), same("impression", plan.impression, known.impression)]


def of_index(index: Index, exercise: Exercise, plan: Plan | None) -> list[Facet]:
    """An index against every eligible case. Args: plan: the one it was made from; its names of labels are meant."""
    expert, every, capped = exercise.answers
    known = {_image(item): (item, split) for split in SPLITS for item in every.items(split)}
    found = {_image(item): (item, split) for split in SPLITS for item in index.items(split)}
    expected = sum(len(capped.items(split)) for split in SPLITS)
    both = [image for image in found if image in known]
    precision, recall = len(both) / max(1, len(found)), min(1.0, len(both) / expected)
    agreed = 2 * precision * recall / max(1e-9, precision + recall)
    names = _renamed(plan or expert, expert)
    right = [image for image in both if _label(found[image][0], names) == _label(known[image][0], {})]
    together = _kept_together({i: found[i][0].patient for i in both}, {i: known[i][0].patient for i in both})
    split, note = _split(index, exercise, {i: found[i][1] for i in both}, {i: known[i] for i in both})
    return [
        Facet(
            "items",
            agreed if agreed < 1 - 1e-6 else 1.0,
            f"items: {len(found)} cases are listed, {expected} were to be; {len(found) - len(both)} are out of place.",
        ),
        Facet("labels", len(right) / max(1, len(both)), f"labels: {len(both) - len(right)} of {len(both)} are wrong."),
        Facet(
            "patients",
            together,
            f"patients: {1 - together:.0%} of the cases are not grouped by their patient, who is told by "
            f"{_told(expert.patient)}.",
        ),
        Facet("split", split, note),
    ]


def of_design(design: Design, exercise: Exercise) -> list[Facet]:
    """A design against what the fingerprint of its images leaves no doubt about."""
    plan = exercise.answers.plan
    group = _group(exercise.fingerprint, plan.images)
    units = ", ".join(group.units) or "unknown"
    hounsfield = plan.modality == "CT" and set(group.units) == {"HU"}
    shape = group.shape.most
    channels = 3 if plan.task == "anomaly_detection" else group.channels
    fits = all(size <= 2 * math.ceil(voxels) or size <= 32 for size, voxels in zip(design.size, shape, strict=False))
    return [
        Facet(
            "intensity",
            float(design.intensity != "window" or hounsfield),
            f"intensity: a fixed window is for CT in HU only; these are {plan.modality} with units {units}.",
        ),
        Facet("channels", float(design.channels == channels), f"channels: the network is to see {channels}."),
        Facet("dims", float(design.dims == group.dims), f"dims: the images are {group.dims}D."),
        Facet("size", float(fits), f"size: {_told(design.size)} is far larger than the images, {_told(shape)}."),
        Facet("lr", float(1e-5 <= design.lr <= 5e-2), f"lr: {design.lr:g} will not train."),
        Facet("space", float("lr" in design.space), "space: the learning rate is to be tuned first, and is missing."),
    ]


# ------------------------------------------------------------------------------------------------ plans
def _written(plan: Plan) -> dict[str, str]:
    """How the data writes a label -> its name in the plan."""
    return dict(zip(plan.label_values or plan.labels, plan.labels, strict=True))


def _labels(plan: Plan) -> str:
    return ", ".join(f"{value}={name}" if value != name else name for value, name in _written(plan).items())


def _labels_agree(plan: Plan, known: Plan) -> bool:
    """The same labels, by how the data writes them; and no name that stands for another one."""
    mine, theirs = _written(plan), _written(known)
    if set(mine) != set(theirs):
        return False
    owner = {name.casefold(): value for value, name in theirs.items()}
    return all(owner.get(name.casefold(), value) == value for value, name in mine.items())


def _renamed(plan: Plan, known: Plan) -> dict[str, str]:
    """The plan's names of labels -> those of the expert."""
    theirs = _written(known)
    return {name: theirs[value] for value, name in _written(plan).items() if value in theirs}


def _patients_agree(plan: Plan, known: Plan, index: Index) -> bool:
    if plan.patient is None or known.patient is None:
        return plan.patient is known.patient
    mine, theirs = plan.patient, known.patient
    if {"column", "header"} & {mine.where, theirs.where}:
        return (mine.where, mine.table, mine.column) == (theirs.where, theirs.table, theirs.column)
    truth = {_case(item): item.patient for split in SPLITS for item in index.items(split)}
    found = {case: _patient(mine, case) for case in truth}
    return None not in found.values() and _kept_together(found, truth) == 1


def _case(item: Item) -> str:
    """The path of a case: of its file, or of the folder of its slices."""
    return item.image if isinstance(item.image, str) else item.image[0].rpartition("/")[0]


def _patient(key: PatientKey, case: str) -> str | None:
    """The patient of a case, as this key reads it off the path."""
    parts = case.split("/")
    if key.where == "folder":
        return next((part for part in parts if regex_of(key.part).fullmatch(part)), None)
    try:
        hit = re.search(key.part, case if "/" in key.part else parts[-1])
    except re.error:
        return None
    return hit[1] if hit and hit.re.groups == 1 else None


# ------------------------------------------------------------------------------------------------ indexes
def _image(item: Item) -> str:
    return item.image if isinstance(item.image, str) else item.image[0]


def _label(item: Item, names: Mapping[str, str]) -> object:
    """The answer to a case: its label by the expert's name, or its report."""
    if item.findings is not None:
        return item.findings
    return names.get(item.label, item.label) if isinstance(item.label, str) else item.label


def _kept_together(found: Mapping[str, str | None], truth: Mapping[str, str]) -> float:
    """The share of images whose patient has just the same images in both groupings."""

    def groups(of: Mapping[str, str | None]) -> dict[str, frozenset[str]]:
        members = defaultdict(set)
        for image, patient in of.items():
            members[patient].add(image)
        whole = {patient: frozenset(images) for patient, images in members.items()}
        return {image: whole[patient] for image, patient in of.items()}

    mine, theirs = groups(found), groups(truth)
    return sum(mine[image] == theirs[image] for image in found) / max(1, len(found))


def _split(
    index: Index, exercise: Exercise, found: Mapping[str, str], known: Mapping[str, tuple[Item, str]]
) -> tuple[float, str]:
    """How good the split is, and what is wrong with it."""
    plan, _, capped = exercise.answers
    if exercise.official_split:
        pool = plan.task == "anomaly_detection"  # only its test cases are given; the rest may be dealt as one likes
        same = (lambda one, other: (one == "test") == (other == "test")) if pool else (lambda one, other: one == other)
        moved = sum(not same(found[image], known[image][1]) for image in found)
        if moved or not pool:
            note = f"split: the dataset says which case is for what; {moved} stand elsewhere."
            return 1 - moved / max(1, len(found)), note
    where = defaultdict(set)
    for image, split in found.items():
        where[known[image][0].patient].add(split)
    if torn := sum(len(splits) > 1 for splits in where.values()):
        return 1 - torn / len(where), f"split: {torn} of {len(where)} patients stand in two splits. Split by patient."
    cases = [len(index.items(split)) for split in SPLITS]
    if not (plan.caps.training or plan.caps.test) and min(cases[1:]) < LEAST_SHARE * sum(cases):
        return 0.0, f"split: {_told(cases)} cases for training, validation and test are too uneven."
    if plan.caps.balanced and _smallest(index) < EVEN * _smallest(capped):
        return 0.0, "split: the card asks for classes of equal size in training; they are not."
    return 1.0, ""


def _smallest(index: Index) -> int:
    return min(Counter(str(item.label) for item in index.training).values(), default=0)


# ------------------------------------------------------------------------------------------------ words
def _group(fingerprint: Fingerprint, pattern: str) -> Group:
    return next(group for group in fingerprint.groups if group.pattern == pattern)


def _told(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, PatientKey):
        name = value.column or value.part
        return f"{value.where} {name!r}" + (f" of {value.table}" if value.table else "")
    if isinstance(value, Iterable) and not isinstance(value, str) and not hasattr(value, "model_dump"):
        return " ".join(f"{part:g}" if isinstance(part, float) else str(part) or "-" for part in value)
    return str(value)
