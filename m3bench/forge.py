"""Endless made-up datasets with a request each, whose right answers are known: what prompts are compiled on.

    made = forge.make("table-words", 17, folder)

A layout is a file of layouts/. From its name and a seed follow the folder's bytes, the topic, the request (one in six
of which the folder cannot serve), the card and the cases.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from m3dspy.m3bench.faults import damage
from m3dspy.m3bench.layouts import _topics
from m3dspy.m3bench.layouts._tools import Draft, Made
from m3dspy.m3bench.phantom import stream
from m3dspy.registry import Registry
from m3dspy.signatures.values import DataCard, Task

__all__ = ["LAYOUTS", "Forged", "damage", "make"]

LAYOUTS = Registry("layout", "m3dspy.m3bench.layouts")
IN_VAIN = 6  # one request of so many cannot be served
_PLACES = ("Lund", "Porto", "Kyoto", "Leeds", "Tampere", "Graz", "Perth", "Lyon")


@dataclass(frozen=True)
class Forged:
    """A made-up dataset. card: None where none is shown.  about, shots: of an anomaly detection, as in a plan."""

    task: Task
    request: str
    refused: bool
    card: DataCard | None
    made: Made
    about: str = ""
    shots: int | None = None


def make(layout: str, seed: int, folder: Path) -> Forged:
    """Fill an empty folder.

    Raises: UsageError: an unknown layout.
    """
    module = LAYOUTS[layout]
    random = stream(seed, "forge", layout)
    topic = _topics.topic(module.TASK, module.DIMS, random, module.MODALITIES)
    refused = int(stream(0, layout).integers(IN_VAIN)) == seed % IN_VAIN
    carded = bool(random.random() < 0.6)
    made = module.write(Draft(folder, seed, topic, module.DIMS, carded, stream(seed, "folder", layout)))
    shots = int(random.choice(list(_topics.SHOTS))) if module.TASK == "anomaly_detection" else None
    if refused:
        request = _topics.ask_in_vain(module.TASK, topic, random)
    elif shots:
        request = _topics.ask_to_detect(topic.images, shots, random)
    elif module.TASK == "report_generation":
        request = _topics.ask_to_report(topic.images, random)
    else:
        names = list(topic.names)
        kept = [i for i in range(len(names)) if len(names) == 1 or random.random() < 0.8]
        if len(kept) < (2 if module.TASK == "classification" else 1):
            kept = list(range(len(names)))
        request = _topics.ask(module.TASK, [names[i] for i in kept], topic.images, random)
        made = _narrowed(made, kept)
    name = f"{topic.region.capitalize()}-{_PLACES[random.integers(len(_PLACES))]}"
    text = f"# {name}\n\n{topic.images[0].upper()}{topic.images[1:]} ({module.DIMS}D).\n\n{made.about}\n"
    card = DataCard(name=name, text=text) if carded else None
    return Forged(module.TASK, request, refused, card, made, topic.about, shots)


def _narrowed(made: Made, kept: Sequence[int]) -> Made:
    """What is left where the request names only some of the labels."""
    labels, values = tuple(made.labels[i] for i in kept), made.facts.values
    dropped = set(made.labels) - set(labels)
    sided = made.facts.sided and any(re.match("(left|right) ", label) for label in labels)
    facts = replace(made.facts, values=tuple(values[i] for i in kept) if values else (), sided=sided)
    return replace(made, cases=[case for case in made.cases if case.label not in dropped], labels=labels, facts=facts)
