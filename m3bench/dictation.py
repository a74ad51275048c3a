"""Who writes the reports of the phantoms: a radiologist with several words for one thing, who errs now and then.

What is there and what is written differ by a known share of findings that are missed or seen where nothing is. The
best reader, who sees what is there, therefore agrees with the reports only so far: that is the oracle.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from m3dspy.signatures.values import Index, Split

MISSED, INVENTED = 0.06, 0.015  # share of the findings; share of the cases a finding that is not there


@dataclass(frozen=True)
class Finding:
    """Something to be seen. side: "left", "right" or "".  place: where in the organ.  size: 0 to 1."""

    name: str
    side: str = ""
    place: str = ""
    size: float = 0.5

    def __str__(self) -> str:
        return " ".join(filter(None, (self.side, self.name)))


@dataclass(frozen=True)
class Wording:
    """How a finding is put: where it is there, where it is not, and in the impression.

    `{side}`, `{Side}`, `{place}`, `{Place}`, `{size}` and `{Size}` stand for what the finding says.
    """

    seen: tuple[str, ...]
    denied: tuple[str, ...] = ()
    concluded: tuple[str, ...] = ()
    sizes: tuple[str, str] = ("small", "large")

    def say(self, sentence: str, finding: Finding) -> str:
        said = {"side": finding.side, "place": finding.place, "size": self.sizes[finding.size > 0.6]}
        return sentence.format(**said, **{key.title(): word[:1].upper() + word[1:] for key, word in said.items()})


Wordings = Mapping[str, Wording]


def believed(
    random: np.random.Generator,
    findings: Sequence[Finding],
    guess: Callable[[np.random.Generator, str], Finding],
    names,
) -> list[Finding]:
    """What the radiologist thinks is there. Args: guess: makes up a finding of that name.  names: all that can be."""
    kept = [finding for finding in findings if random.random() >= MISSED]
    there = {finding.name for finding in findings}
    return kept + [guess(random, name) for name in names if random.random() < INVENTED and name not in there]


def dictate(
    random: np.random.Generator,
    findings: Sequence[Finding],
    wordings: Wordings,
    together: Iterable[tuple[frozenset[str], tuple[str, ...]]] = (),
) -> tuple[list[str], list[str]]:
    """The sentences of the findings, in the order of `wordings`, and those of the impression: none if nothing is there.

    Args: together: findings that are often denied in one breath, with the sentences that do.
    """
    there = {finding.name for finding in findings}
    said, silent = [], set()
    for names, sentences in together:
        if not names & (there | silent) and random.random() < 0.5:
            said.append((max(list(wordings).index(name) for name in names), pick(random, sentences)))
            silent |= names
    concluded = []
    for number, (name, wording) in enumerate(wordings.items()):
        for finding in findings:
            if finding.name == name:
                said.append((number, wording.say(pick(random, wording.seen), finding)))
                if wording.concluded:
                    concluded.append(wording.say(pick(random, wording.concluded), finding))
        if name not in there | silent and wording.denied:
            said.append((number, pick(random, wording.denied)))
    return [sentence for _, sentence in sorted(said, key=lambda entry: entry[0])], concluded


Option = TypeVar("Option")


def pick(random: np.random.Generator, options: Sequence[Option]) -> Option:
    return options[int(random.integers(len(options)))]


@dataclass(frozen=True)
class Reported:
    """An image and the report of it, as a dataset gives them. split: the official one, if there is one."""

    image: str
    patient: str
    findings: str
    impression: str = ""
    split: Split | None = None


def index_of(root: Path, reported: Iterable[Reported], seed: int) -> Index:
    """The index of all images that are there and whose findings say something."""
    from m3dspy.workspace import indexing as ix
    from m3dspy.workspace.indexes.cases import items

    kept = [case for case in reported if case.findings and (root / case.image).is_file()]
    made = items(
        [(case.image, case.image) for case in kept], [None] * len(kept), [case.patient for case in kept], False
    )
    made = [
        item
        | {"findings": case.findings, "impression": case.impression}
        | ({"split": case.split} if case.split else {})
        for item, case in zip(made, kept, strict=True)
    ]
    return Index.model_validate({"task": "report_generation", "labels": (), **ix.split(made, seed=seed)})


def oracle(index: Index, truth: dict[str, Any]) -> float | None:
    """Micro-averaged F1 over the findings: the reader who sees what is there, against what was written.

    truth: `cases` holds for every image what is there, in words ("left pleural effusion").
    """
    from m3dspy.m3bench.findings import findings_of

    hits = told = written = 0
    for item in index.test:
        there = truth["cases"].get(item.image)
        if there is None or item.findings is None:
            return None
        read = set(findings_of(". ".join(there)))
        reference = set(findings_of(f"{item.findings} {item.impression or ''}"))
        hits, told, written = hits + len(read & reference), told + len(read), written + len(reference)
    return 2 * hits / (told + written) if told + written else None
