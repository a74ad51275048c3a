"""What the six sets of the BMAD benchmark share: the folders on disk, an expert's index of them, and their phantoms.

MVFA's form of the folder                        the newer one, of BMAD and anomalib
    {valid,test}/good/img/6_391.png                  {valid,test}/good/6_391.png (or in img/), train/good/...
    {valid,test}/Ungood/img/6_402.png                {valid,test}/Ungood/img/6_402.png
    {valid,test}/Ungood/anomaly_mask/6_402.png       {valid,test}/Ungood/label/6_402.png

`valid` is the pool that few shots are drawn from, and what is tuned on; `test` is graded; `train`, normal images for
methods that take thousands of them, is not used. A phantom is written in MVFA's form.

Source: Bao et al. 2024, BMAD: Benchmarks for Medical Anomaly Detection, arXiv:2306.11876.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from m3dspy.errors import DataError
from m3dspy.m3bench import phantom
from m3dspy.m3bench.phantom import Numbers, Volume, stream
from m3dspy.m3bench.task import BenchTask, Facts, Part
from m3dspy.signatures.values import ABNORMAL, ANOMALY_LABELS, Index, Source

SPLITS, GOOD, UNGOOD, IMAGES, MASKS = ("valid", "test"), "good", "Ungood", "img", ("anomaly_mask", "label")
SUFFIXES = "{png,jpeg}"
LOTS = 1000  # drawn to know what luck can do
ACCESS = (
    "Download the set from the links at github.com/DorisBao/BMAD, or in MVFA's form from those at "
    "github.com/MediaBrain-SJTU/MVFA-AD, and unpack it; `valid` and `test` then lie in the folder."
)


@dataclass(frozen=True)
class Slice:
    """One image of a phantom: the `number`-th of a patient, in the folder `kind` of `split`.

    shows: there is an anomaly to be seen; it may differ from what the folder says.
    name: the file's.
    """

    split: str
    kind: str
    patient: int
    number: int
    shows: bool
    name: str

    @property
    def path(self) -> str:
        return f"{self.split}/{self.kind}/{IMAGES}/{self.name}"

    @property
    def mask(self) -> str:
        return f"{self.split}/{self.kind}/{MASKS[0]}/{self.name}"


class Picture(NamedTuple):
    """grey: (rows, columns) or (rows, columns, 3), 0 to 1.  anomaly: (rows, columns), where it is."""

    grey: NDArray
    anomaly: NDArray[np.bool_]


@dataclass(frozen=True)
class Set:
    """One set of the benchmark.

    name: of the dataset.  about: what its images show.  draw: (slice, seed) -> its picture.
    file_name: (slice without a name, random numbers) -> the name of its file, asked for anew where it is taken.
    patient: regular expression on the file name; None where it says nothing of the patient.
    masks: the anomalies are marked.  slices: images a patient and kind.  mixed: a patient has normal and abnormal ones.
    missed, alarms: share of the Ungood images that show nothing, and of the good ones that do show the sign.
    """

    name: str
    about: str
    draw: Callable[[Slice, int], Picture]
    file_name: Callable[[Slice, np.random.Generator], str]
    patient: str | None
    masks: bool
    slices: int
    mixed: bool
    missed: float = 0.0
    alarms: float = 0.0

    def task(
        self,
        modality: str,
        requests: tuple[str, ...],
        impossible: tuple[str, ...],
        source: str,
        licence: str,
        counts: dict[str, int],
    ) -> BenchTask:
        """The set as a dataset of the benchmark. Args: counts: images that the release holds in valid and in test."""
        return BenchTask(
            name=self.name,
            task="anomaly_detection",
            requests=requests,
            labels=ANOMALY_LABELS,
            metric="image AUROC",
            source=source,
            licence=licence,
            size=120,
            smallest=20,
            demo=40,
            unit="test images, half of them normal",
            build=self.build,
            gold=self.gold,
            facts=Facts(
                modality,
                Source(kind="folder", path=SPLITS[0]),
                patient="file name" if self.patient else None,
                values=(GOOD, UNGOOD),
            ),
            oracle=self.oracle,
            impossible=impossible,
            access=ACCESS,
            layout=tuple(
                Part(f"{split}/{{{GOOD},{UNGOOD}}}/{{{IMAGES}/,}}*.{SUFFIXES}", count)
                for split, count in counts.items()
            ),
        )

    def build(self, folder: Path, size: int, seed: int, workers: int) -> dict[str, Any]:
        """Write a phantom of `size` test images and three fifths as many to learn from; what it knows of each."""
        slices = self.cohort(size, seed)
        for path in {Path(one).parent for s in slices for one in ([s.path, s.mask] if self._marks(s) else [s.path])}:
            (folder / path).mkdir(parents=True)
        phantom.each(partial(self._write, folder=folder, seed=seed), slices, workers)
        return {"cases": {s.path: {"patient": s.patient, "shows": s.shows} for s in slices}}

    def cohort(self, size: int, seed: int) -> list[Slice]:
        """The images of a phantom, equally many normal and abnormal ones; no patient is in both splits."""
        slices: list[Slice] = []
        first, names = 0, set()
        for split, count in (("valid", max(8, 3 * size // 10)), ("test", size // 2)):
            people = -(-count // self.slices)
            for kind, share in ((GOOD, self.alarms), (UNGOOD, self.missed)):
                wrong = set(stream(seed, self.name, split, kind).permutation(count)[: round(share * count)])
                for i in range(count):
                    number = i % self.slices + self.slices * (kind == UNGOOD)
                    shows = (kind == UNGOOD) != (i in wrong)
                    s = Slice(split, kind, first + i // self.slices, number, shows, "")
                    random = stream(seed, self.name, "file", s.patient, number)
                    while (name := self.file_name(s, random)) in names:
                        pass
                    names.add(name)
                    slices.append(replace(s, name=name))
                first += 0 if self.mixed and kind == GOOD else people
        return slices

    def _marks(self, s: Slice) -> bool:
        return self.masks and s.kind == UNGOOD

    def _write(self, s: Slice, folder: Path, seed: int) -> None:
        from PIL import Image

        picture = self.draw(s, seed)
        pixels = np.rint(np.clip(picture.grey, 0, 1) * 255).astype(np.uint8)
        options: dict[str, Any] = {"quality": 92} if s.name.endswith("jpeg") else {}
        Image.fromarray(pixels).save(folder / s.path, **options)
        if self._marks(s):
            Image.fromarray(picture.anomaly.astype(np.uint8) * 255).save(folder / s.mask)

    def gold(self, root: Path, seed: int) -> Index:
        """The pool dealt to training and validation by patient; the official test cases, where they are not withheld.

        Raises: DataError: an image that should have a mask has none, or a mask has no image.
        """
        from m3dspy.workspace import indexing as ix

        if self.masks:
            check_masks(root)
        items = ix.from_anomalies(
            root,
            normal=f"{{valid,test}}/{GOOD}/{{{IMAGES}/,}}*.{SUFFIXES}",
            abnormal=f"{{valid,test}}/{UNGOOD}/{{{IMAGES}/,}}*.{SUFFIXES}",
            masks=f"{{valid,test}}/{UNGOOD}/{{{','.join(MASKS)}}}/*.png" if self.masks else None,
            patient=self.patient,
            test="test/**" if (root / "test").is_dir() else None,  # it is withheld from who learns
        )
        if self.patient is None:
            test = [item for item in items if item.get("split") == "test"]
            pool = [item for item in items if item.get("split") != "test"]
            items = [*ix.group_lookalikes(root, pool), *ix.group_lookalikes(root, test)]
        splits = ix.split(items, validation=0.5, seed=seed)
        return Index.model_validate(
            {"task": "anomaly_detection", "labels": ANOMALY_LABELS, "about": self.about, **splits}
        )

    def oracle(self, index: Index, truth: dict[str, Any]) -> float | None:
        """AUROC of the reader who sees whether an image shows an anomaly, and errs where its folder is wrong.

        Such a reader can only guess which of the images that look alike is in which folder: the lucky one in a hundred.
        """
        cases = [truth["cases"].get(item.image) for item in index.test]
        abnormal = np.array([item.label == ABNORMAL for item in index.test], bool)
        if self.missed == self.alarms == 0 or None in cases or abnormal.all() or not abnormal.any():
            return None
        shows = np.array([case["shows"] for case in cases])
        seen = shows + np.random.default_rng(0).random((LOTS, len(cases)))
        ranks = seen.argsort(1).argsort(1)[:, abnormal].sum(1)  # Mann and Whitney's U, from ranks that begin at 0
        count = int(abnormal.sum())
        return float(np.quantile((ranks - count * (count - 1) / 2) / (count * (len(cases) - count)), 0.99))


def check_masks(root: Path) -> None:
    """Every abnormal image has a mask of its name in the same folder `Ungood`, and every mask an image.

    Raises: DataError: names the first that stands alone.
    """
    for split in SPLITS:
        folder = root / split / UNGOOD
        images = {path.stem for place in (folder, folder / IMAGES) for path in _pictures(place)}
        masks = {path.stem for place in MASKS for path in _pictures(folder / place)}
        for alone, what, other in ((images - masks, "image", "mask"), (masks - images, "mask", "image")):
            if alone:
                raise DataError(
                    f"{split}/{UNGOOD} holds {len(alone)} {what}(s) without {other}, e.g. {min(alone)!r}. Images lie "
                    f"in {IMAGES}, masks of the same name in {' or '.join(MASKS)}."
                )


def _pictures(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.*") if path.suffix[1:].lower() in ("png", "jpeg", "jpg")]


# ------------------------------------------------------------------------------------------------ drawing
def disc(x: Volume, y: Volume, centre: Numbers, radii: Numbers, angle: float = 0.0) -> Volume:
    """Distance from the centre (x, y) of an ellipse turned by an angle (radians), in radii: below 1 is inside."""
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return np.sqrt(((c * dx + s * dy) / np.float32(radii[0])) ** 2 + ((c * dy - s * dx) / np.float32(radii[1])) ** 2)
