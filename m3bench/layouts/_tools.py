"""What every layout needs: patients and their images, the habits of those who file them, the record of what was made.

All that is drawn comes from streams of the draft's own seed, so that a folder has the same bytes on every machine.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m3dspy.m3bench import phantom
from m3dspy.m3bench.layouts._topics import Topic
from m3dspy.m3bench.phantom import stream, texture
from m3dspy.m3bench.task import Facts
from m3dspy.signatures.values import ABNORMAL

MOST_PATIENTS = 18


@dataclass(frozen=True)
class Case:
    """One eligible case. label: as the index calls it, or the path of its mask.  split: as the dataset says.

    mask: of what is abnormal, in an anomaly detection.  findings, impression: of a report; the label is then "".
    """

    image: str | tuple[str, ...]
    patient: str
    label: str
    split: str | None = None
    mask: str | None = None
    findings: str | None = None
    impression: str | None = None


@dataclass(frozen=True)
class Made:
    """What a layout wrote: its eligible cases, what an expert's plan says beside them, and what a card says.

    labels: in the order of the facts' values.  about: the card's sentences on layout, labels and pitfalls.  slices: an
    image is a folder of slices.
    """

    cases: list[Case]
    labels: tuple[str, ...]
    facts: Facts
    about: str
    slices: bool = False


@dataclass(frozen=True)
class Shot:
    """One image of a patient. Args: number: 1 for the patient's first.  place: among all images, from 0."""

    patient: str
    label: str
    number: int
    place: int


@dataclass(frozen=True)
class Draft:
    """A folder to be filled. Args: carded: a card of this folder will be shown; else the folder explains itself."""

    root: Path
    seed: int
    topic: Topic
    dims: int
    carded: bool
    random: np.random.Generator = field(repr=False)

    def choose(self, *options):
        return options[self.random.integers(len(options))]

    def file(self, path: str) -> Path:
        """The absolute path, its folder made."""
        full = self.root / path
        full.parent.mkdir(parents=True, exist_ok=True)
        return full

    def readme(self, text: str) -> None:
        """A README that says so much; where a card is shown, one that says no more than what the images are."""
        images = f"{self.topic.images[0].upper()}{self.topic.images[1:]}"
        said = f"{images}. {text}" if not self.carded else f"{images}, exported for research. Please cite us."
        self.file(self.choose("README.md", "README.txt")).write_text(f"{said}\n")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image, drawn anew at each call."""
        least, most = (28, 44) if self.dims == 2 else (12, 17)
        return tuple(int(n) for n in self.random.integers(least, most, self.dims))

    def legend(self, named: Mapping[str, str]) -> str:
        """What the masks' values mean, as a sentence for the card; a JSON file or the README says it too."""
        values = ", ".join(f"`{value}` = {name}" for value, name in named.items())
        meaning, file = f"In the masks {values}; 0 is the background.", self.choose("labels.json", "classes.json", "")
        if file:
            phantom.save_json(self.file(file), self.choose({"0": "background"} | dict(named), {"labels": dict(named)}))
        self.readme(f"See {file}." if file else meaning)
        return f"{meaning} `{file}` says so." if file else meaning

    def coded(self) -> tuple[dict[str, str], dict[str, str], tuple[str, ...]]:
        """How the data writes each class, how the index calls it, and the plan's values: as 0, 1, 2 or as `spelled`."""
        if self.choose(True, False):
            codes = {name: str(i) for i, name in enumerate(self.topic.names)}
            return codes, {name: name for name in codes}, tuple(codes.values())
        written = self.spelled()
        return written, written, ()

    def spelled(self) -> dict[str, str]:
        """How the data writes each class: in one of four habits."""
        habit = self.random.integers(4)
        return {
            name: (name, name.capitalize(), name.upper(), short)[habit].replace(" ", "_")
            for name, short in self.topic.names.items()
        }

    def numbers(self, count: int, digits: int = 3) -> list[str]:
        """Distinct numbers of so many digits, as text."""
        least = 10 ** (digits - 1)
        return [str(n + least) for n in self.random.choice(9 * least, count, replace=False)]

    def shots(self, name: Callable[[str], str] = str, each: tuple[int, int] = (1, 3)) -> list[Shot]:
        """The images of 12 to 18 patients; every patient has one class, and every class four patients or more.

        Args: name: number of three digits -> patient.  each: least and most images of a patient.
        """
        classes = tuple(self.topic.names)
        count = 12 + int(self.random.integers(MOST_PATIENTS - 11))
        people = [name(number) for number in self.numbers(count)]
        shots: list[Shot] = []
        for i, person in enumerate(people):
            for number in range(1, 1 + int(self.random.integers(each[0], each[1] + 1))):
                shots.append(Shot(person, classes[i % len(classes)], number, len(shots)))
        return shots

    # -------------------------------------------------------------------------------------------- images
    def image(self, shot: Shot, shape: tuple[int, ...], alike: bool = False) -> NDArray:
        """Grey values in 0 to 1: a pattern of the patient's, one of the scan's, a spot whose brightness is the class.

        Args: alike: the scans of a patient nearly repeat each other.
        """
        person, scan = stream(self.seed, "person", shot.patient), stream(self.seed, "scan", shot.patient, shot.number)
        own, new = (0.14, 0.004) if alike else (0.08, 0.09)
        image = 0.5 + texture(person, shape, 2, own) + texture(scan, shape, 1, new)
        classes = list(self.topic.names)
        level = classes.index(shot.label) / (len(classes) - 1) - 0.5
        return np.clip(image + 0.4 * level * (self._distance(shape, [0.5] * len(shape)) < 0.3), 0, 1)

    def marked(self, shot: Shot, shape: tuple[int, ...], values: Sequence[int]) -> tuple[NDArray, NDArray]:
        """An image (0 to 1) and its mask: one bright ball a structure, side by side along the first axis of space.

        In a picture the first axis is the rows, so balls lie along the second one; the patient's left is on the right.
        """
        random = stream(self.seed, "balls", shot.patient, shot.number)
        image = np.clip(0.4 + texture(random, shape, 1.5, 0.07), 0, 1)
        mask = np.zeros(shape, np.uint8)
        names = list(self.topic.names)
        across = 1 if len(shape) == 2 else 0
        for place, value in enumerate(values):
            centre = random.uniform(0.44, 0.56, len(shape))
            centre[across] += 0 if len(names) == 1 else (-0.22, 0.22)[place if len(shape) == 3 else 1 - place]
            ball = self._distance(shape, centre) < random.uniform(0.17, 0.21)
            mask[ball] = value
            image[ball] = np.clip(image[ball] + 0.3 + 0.15 * place, 0, 1)
        return image, mask

    def anomalous(self, shot: Shot, shape: tuple[int, ...]) -> tuple[NDArray, NDArray]:
        """A pattern (0 to 1), and where it is abnormal: in a bright or dark ball, nowhere in a normal image."""
        random = stream(self.seed, "anomaly", shot.patient, shot.number)
        image = 0.5 + texture(random, shape, 3, 0.07)
        ball = self._distance(shape, random.uniform(0.3, 0.7, len(shape))) < random.uniform(0.1, 0.2)
        marked = (ball & (shot.label == ABNORMAL)).astype(np.uint8)
        return np.clip(image + random.choice((-0.3, 0.3)) * marked, 0, 1), marked

    @staticmethod
    def _distance(shape: Sequence[int], centre: phantom.Numbers) -> NDArray:
        grid = np.ix_(*(np.arange(n) / (n - 1) for n in shape))
        return np.sqrt(sum((axis - at) ** 2 for axis, at in zip(grid, centre, strict=True)))

    def scanned(self, image: NDArray) -> NDArray:
        """0 to 1 in the scanner's own numbers: HU with air around in CT, any gain in MR."""
        if self.topic.modality != "CT":
            return (image * 900 + 20).astype(np.float32)
        hu = (image * 700 - 250).round().astype(np.float32)
        for axis in range(hu.ndim):
            edge = [slice(None)] * hu.ndim
            edge[axis] = slice(0, 1)
            hu[tuple(edge)] = phantom.AIR
        return hu


def explained(written: Mapping[str, str]) -> str:
    """What the data's spellings mean: "`NV` is nevus, `MEL` is melanoma"."""
    return ", ".join(f"`{short}` is {name}" for name, short in written.items())
