"""What the rules know of anomaly detection: which folders are normal, how few shots, and how MVFA is trained."""

import re
from collections.abc import Iterable

from m3dspy.programs.lms.experts import words
from m3dspy.signatures.values import (
    Catalogue,
    ClassFolders,
    Design,
    Fingerprint,
    Group,
    Knob,
    NetworkEntry,
    Plan,
)
from m3dspy.workspace.indexes.splitting import SPELLINGS
from m3dspy.workspace.patterns import words as parts

SHOTS = 4  # of each kind, where a request says "few-shot" only
ZERO_SHOT = (
    "Zero-shot anomaly detection learns from other datasets, and this is one folder: use `m3dspy bench --zero-shot`, "
    "or ask for few-shot, such as 4 normal and 4 abnormal"
)
_NORMAL = {"good", "normal", "healthy", "ok", "negative", "neg", "control", "controls", "benign"}
_ABNORMAL = {"bad", "ng", "positive", "pos"}
_ILL = re.compile(r"ungood|abnormal|anomal|unhealthy|diseas|patholog|lesion|defect", re.I)
_ABOUT = re.compile(r"\babout:?\s+`([^`]+)`", re.I)
_PAPER = re.compile(r"as in the paper|like the paper|reproduc|replicat|paper'?s? (?:settings|preset)")
_SPACE = {
    "lr": Knob(low=1e-4, high=5e-3, log=True),
    "temperature": Knob(low=0.005, high=0.05, log=True),
    "fusion": Knob(low=0.0, high=1.0),
    "levels": Knob(choices=("1/4 1/2 3/4 1", "1/4 1/2", "1/2 3/4 1")),
}
_RESIDUAL = Knob(choices=(0.0, 0.1, 0.2, 0.4))  # above 0 nothing but the first blocks can be cached


def is_test(folder: str) -> bool:
    """Whether a folder is called as official test cases are."""
    return SPELLINGS.get(folder.rpartition("/")[2].lower()) == "test"


def sides(request: str, folders: ClassFolders) -> tuple[str, str] | None:
    """The names of the normal and of the abnormal one among class folders; None where they cannot be told."""
    called = [name for name in folders.classes if _ABNORMAL.intersection(parts(name)) or _ILL.search(name)]
    normal = [name for name in folders.classes if _NORMAL.intersection(parts(name)) and name not in called]
    others = [name for name in folders.classes if name not in normal]
    if len(others) > 1:
        others = called or [name for name in others if words.named(name, request)]
    return (normal[0], others[0]) if len(normal) == len(others) == 1 else None


def pool(request: str, fingerprint: Fingerprint) -> tuple[ClassFolders, tuple[str, str]] | None:
    """The class folders that shots are drawn from, never those of the test, and which is normal, which abnormal."""
    told = [(folders, names) for folders in fingerprint.class_folders if (names := sides(request, folders))]
    own = [entry for entry in told if not is_test(entry[0].parent)]
    return max(own or told, key=lambda entry: sum(entry[0].classes.values()), default=None)


def test_folder(plan: Plan, fingerprint: Fingerprint) -> str | None:
    """The official test folder beside the plan's: called so, and with the same two classes."""
    for folders in fingerprint.class_folders:
        apart = folders.parent != plan.source.path and is_test(folders.parent)
        if apart and set(plan.label_values) <= set(folders.classes):
            return folders.parent
    return None


def about(request: str, known: str) -> str:
    """What the images show, by the card, the request, or any text beside the images."""
    told = _ABOUT.search(known)
    return told[1] if told else words.shown(request) or words.shown(known) or "medical image"


def gathering(plan: Plan, fingerprint: Fingerprint, patient: str | None) -> list[str]:
    """The lines of a prepare.py that gather the items."""
    test = test_folder(plan, fingerprint)
    parents = [plan.source.path] + ([test] if test else [])
    inside = [group for group in fingerprint.groups if any(_below(group.pattern, parent) for parent in parents)]
    images = {group.pattern for group in inside}
    masks = dict.fromkeys([plan.masks, *(pair.mask for pair in fingerprint.pairs if pair.image in images)])
    suffixes = sorted({group.pattern.rpartition(".")[2] for group in inside if not group.values})
    name = "*." + (suffixes[0] if len(suffixes) == 1 else f"{{{','.join(suffixes)}}}")
    normal, abnormal = (_listed(f"{parent}/{value}/**/{name}" for parent in parents) for value in plan.label_values)
    return [
        "items = ix.from_anomalies(",
        "    root,",
        f"    normal={normal},",
        f"    abnormal={abnormal},",
        *([f"    masks={_listed(masks)},"] if plan.masks else []),
        f"    patient={patient!r},",
        *([f"    test={test + '/**'!r},"] if test else []),
        ")",
    ]


def shares(plan: Plan, fingerprint: Fingerprint) -> str:
    """The shares of the split: few shots leave most of the pool to choose settings on, and to test."""
    return "validation=0.5" if test_folder(plan, fingerprint) else "validation=0.3, test=0.4"


def _below(pattern: str, parent: str) -> bool:
    return not parent or pattern.startswith(f"{parent}/")


def _listed(patterns: Iterable[str | None]) -> str:
    return repr([pattern.lstrip("/") for pattern in patterns if pattern])


def design(
    request: str, plan: Plan, group: Group, catalogue: Catalogue, network: NetworkEntry, *, hurry: bool, alone: bool
) -> Design:
    """MVFA: the paper's settings where they are asked for, else ours, to be tuned on the validation images.

    Args: network: the one chosen.  hurry: a rough result soon.  alone: images one by one, for want of memory.
    """
    template = next(template for template in catalogue.templates if template.task == plan.task)
    paper = _PAPER.search(request.lower()) is not None and "paper" in template.presets
    hounsfield = plan.modality == "CT" and set(group.units) == {"HU"}
    pictures = set(group.units) == {"8-bit"}
    few = plan.shots != 0  # zero-shot: all images of other datasets, none of them twice
    epochs = 4 if hurry or not few else 10 if network.size == "small" else 20
    space = {} if paper else _SPACE | ({"residual": _RESIDUAL} if network.size == "strong" else {})
    return Design(
        template=template.name,
        preset=("paper" if few else "paper zero-shot") if paper else "default",
        network=network.name,
        dims=2,
        channels=3,
        size=(112, 112) if hurry else (240, 240),
        intensity="window" if hounsfield else "unit" if pictures else "percentile",
        window=(-160.0, 260.0) if hounsfield else None,
        flips=(0, 1) if paper or plan.modality == "microscopy" else (1,),
        augment=1.0 if few else 0.0,
        loss="probability" if paper else "log-odds",
        lr=1e-3 if few else 1e-4 if paper else 5e-4,
        weight_decay=0.0,
        batch=1 if paper or alone else 8,
        epochs=50 if paper else epochs,
        shots=plan.shots,
        space={name: knob for name, knob in space.items() if name == "lr" or name in template.settings},
        why=f"The frozen {network.name} sees the whole image; only small adapters learn from the few examples.",
    )
