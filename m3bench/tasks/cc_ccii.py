"""CC-CCII: COVID-19, common pneumonia or a normal chest, from CT that comes as folders of pictures.

In the phantom COVID-19 is ground glass in the periphery of both lungs, common pneumonia consolidates a part of one lung
and leaves ground glass around it, and a normal lung is denser at the back only. Some patients' lungs look like those of
another class; how many is known, and with it the best possible score.

Quirks of the real thing: a folder of pictures is a volume, and their numbers are not padded; some patients have two
scans; some scans are JPEG and some PNG; a scan's folder is empty, and a picture is cut off.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3dspy.m3bench import phantom
from m3dspy.m3bench.phantom import Volume, blurred, ellipsoid, inside, stream, texture
from m3dspy.m3bench.task import BenchTask, Facts, Part
from m3dspy.m3bench.thorax import LEFT, RIGHT, Thorax, thorax
from m3dspy.signatures.values import Index, Source

LABELS = ("CP", "NCP", "Normal")
FIRST_PATIENT = {"CP": 1065, "NCP": 2, "Normal": 1717}
LOOKS = np.array(  # row: what the folder says, column: how often the lungs look like that
    [
        [0.82, 0.10, 0.08],
        [0.10, 0.84, 0.06],
        [0.06, 0.03, 0.91],
    ]
)
PIXELS, MM, THICKNESS = 72, 4.4, 13.0  # rows, and as many columns; of a pixel; of a slice, mm
TWICE, JPEG = 0.2, 0.3  # share of the patients with two scans, of the scans that are JPEG
WINDOW = (-1050.0, 350.0)  # HU shown as black and white


@dataclass(frozen=True)
class Scan:
    "A folder of `slices` pictures: the `number`-th scan of a patient in the folder `label`, whose lungs look"

    "`looks`."

    label: str
    patient: int
    number: int
    looks: str
    slices: int
    suffix: str

    @property
    def folder(self) -> str:
        return f"{self.label}/{self.patient}/{2 * self.patient + 410 + self.number}"


def build(folder: Path, size: int, seed: int, workers: int) -> dict[str, Any]:
    """Write three folders of scans of `size` patients."""
    scans = cohort(size, seed)
    phantom.each(partial(write_scan, folder=folder, seed=seed), scans, workers)
    first = scans[0]
    (folder / first.label / str(first.patient) / "4990").mkdir()
    cut = folder / scans[len(scans) // 2].folder / f"3{scans[len(scans) // 2].suffix}"
    cut.write_bytes(cut.read_bytes()[:400])
    return {"cases": {scan.folder: {"patient": scan.patient, "looks": scan.looks} for scan in scans}}


def cohort(size: int, seed: int) -> list[Scan]:
    """The scans, equally many patients a class."""
    scans = []
    for place in range(size):
        label = LABELS[place % len(LABELS)]
        random = stream(seed, "patient", place)
        patient = FIRST_PATIENT[label] + place // len(LABELS)
        looks = LABELS[random.choice(len(LABELS), p=LOOKS[LABELS.index(label)])]
        for number in range(1 + (random.random() < TWICE)):
            suffix = ".jpg" if random.random() < JPEG else ".png"
            scans.append(Scan(label, patient, number, looks, int(random.integers(16, 23)), suffix))
    return scans


def write_scan(scan: Scan, folder: Path, seed: int) -> None:
    from PIL import Image

    (folder / scan.folder).mkdir(parents=True)
    options: dict[str, Any] = {"quality": 92} if scan.suffix == ".jpg" else {"compress_level": 3}
    for number, picture in enumerate(pictures(scan, seed)):
        Image.fromarray(picture).save(folder / scan.folder / f"{number}{scan.suffix}", **options)


def pictures(scan: Scan, seed: int) -> NDArray[np.uint8]:
    """(slices, rows, columns) grey values in a window of the lung, from head to feet: the patient's right on the left,
    the front on top."""
    anatomy, random = stream(seed, "chest", scan.patient), stream(seed, "scan", scan.patient, scan.number)
    spacing = (MM, MM, THICKNESS * 19 / scan.slices)
    body = thorax(anatomy, (PIXELS, PIXELS, scan.slices), spacing)
    filled = {"CP": common, "NCP": covid, "Normal": dependent}[scan.looks](body, spacing, anatomy)
    filled = np.clip(filled * (1 + texture(anatomy, filled.shape, 1.2, 0.12)), 0, 1) * (body.lungs > 0)
    image = blurred(body.image + filled * (30 - body.image), (0.4, 0.4, 0.2))
    image += phantom.ct_noise(random, image.shape, random.uniform(20, 45), (0.6, 0.6, 0.2))
    low, high = WINDOW + random.normal(0, 30, 2)
    grey = np.clip((image - low) / (high - low), 0, 1) * 255
    return np.ascontiguousarray(grey[::-1, ::-1, ::-1].transpose(2, 1, 0)).astype(np.uint8)


# ------------------------------------------------------------------------------------------------ what fills the lungs
def covid(body: Thorax, spacing: phantom.Numbers, random: np.random.Generator) -> Volume:
    """Ground glass along the pleura of both lungs, more of it behind and below: the share of air that is filled."""
    from scipy.ndimage import distance_transform_edt

    depth = np.asarray(distance_transform_edt(body.lungs > 0, sampling=spacing))
    filled = np.zeros(depth.shape, np.float32)
    for side in (LEFT, RIGHT):
        lung = body.lungs == side
        places = np.flatnonzero(lung & (depth < 16) & (body.axes[1] < 45))
        for _ in range(3 + random.poisson(2)):
            distance = _blob(body, places, random.uniform((20, 18, 24), (38, 32, 48)), random)
            filled = np.maximum(filled, random.uniform(0.40, 0.65) * inside(distance, 0.5) * lung)
    return filled


def common(body: Thorax, spacing: phantom.Numbers, random: np.random.Generator) -> Volume:
    """Consolidation of a part of one lung, and ground glass around it: the share of air that is filled."""
    side = (LEFT, RIGHT)[random.integers(2)]
    lung = body.lungs == side
    middle = ellipsoid(body.axes, ((1 if side == RIGHT else -1) * 70, 0, random.choice([-45, 45])), (30, 35, 40)) < 1
    places = np.flatnonzero(lung & middle)
    if not places.size:
        places = np.flatnonzero(lung)
    distance = _blob(body, places, random.uniform((38, 42, 44), (54, 62, 70)), random)
    glass = random.uniform(0.25, 0.5) * inside(distance / 1.35, 0.5)
    return np.maximum(glass, random.uniform(0.8, 1.0) * inside(distance, 0.35)) * lung


def dependent(body: Thorax, spacing: phantom.Numbers, random: np.random.Generator) -> Volume:
    """A haze in the lowest part of the lungs, in some: the share of air that is filled."""
    return random.uniform(0, 0.15) * np.clip((-body.axes[1] - 45) / 25, 0, 1) * np.ones(body.lungs.shape, np.float32)


def _blob(body: Thorax, places: NDArray, radii: phantom.Numbers, random: np.random.Generator) -> Volume:
    """Distance from one of these voxels in radii, unevenly."""
    at = np.unravel_index(random.choice(places), body.lungs.shape)
    centre = [float(axis.ravel()[i]) for axis, i in zip(body.axes, at, strict=True)]
    angles = random.uniform(-0.5, 0.5, 3)
    return ellipsoid(body.axes, centre, radii, angles) + texture(random, body.lungs.shape, (2.5, 2.5, 1.5), 0.22)


def gold(root: Path, seed: int) -> Index:
    """Split by patient; scans with a picture that cannot be read are left out."""
    from m3dspy.workspace import indexing as ix
    from m3dspy.workspace.indexes.reading import unreadable, without

    labels = {label: label for label in LABELS}
    items = ix.from_folders(root, "", labels=labels, images="*/*/*.{png,jpg}", patient="folder", slices=True)
    index = Index.model_validate({"task": "classification", "labels": LABELS, **ix.split(items, seed=seed)})
    return without(index, set().union(*unreadable(index, root).values()))


def oracle(index: Index, truth: dict[str, Any]) -> float | None:
    """Macro AUROC of the reader who always sees what the lungs look like, and knows how often looks deceive."""
    from m3dspy.m3bench.metrics import macro_auroc

    cases = [truth["cases"].get(item.image[0].rpartition("/")[0]) for item in index.test]
    if set(index.labels) != set(LABELS) or None in cases or not cases:
        return None
    joint = np.array([LOOKS[LABELS.index(label)] for label in index.labels])
    seen = joint[:, [LABELS.index(case["looks"]) for case in cases]].T
    answer = np.array([index.labels.index(str(item.label)) for item in index.test])
    return macro_auroc(answer, seen / seen.sum(1, keepdims=True))


TASK = BenchTask(
    name="CC-CCII",
    task="classification",
    requests=(
        "tell COVID-19 pneumonia (NCP), common pneumonia (CP) and normal lungs apart on chest CT",
        "We want to know from a CT of the thorax whether a patient has novel coronavirus pneumonia, common "
        "pneumonia or "
        "no pneumonia at all. Please train a diagnostic model on these scans.",
        "Build a 3D classifier with exactly three classes, NCP, CP and Normal, from the slice folders of these "
        "chest CT "
        "scans. Both scans of a patient must be in one split, unreadable slices must not stop the training, and "
        "the model has to be small enough for a laptop.",
        "Label these lung CAT scan photo stacks as corona, ordinary pneumonia or healthy; do the segmentation into the "
        "three groups automatically.",
        "Classify the chest CT scans here as NCP, CP or Normal. There is a folder of knee MRI and one of "
        "abdominal CT on "
        "the same disk; ignore both.",
    ),
    impossible=(
        "segment the infection and both lungs on chest CT",
        "find the bounding boxes of lung nodules on chest CT",
        "tell pulmonary embolism from its absence on MR angiography of the heart",
    ),
    labels=LABELS,
    metric="macro AUROC",
    source="ncov-ai.big.ac.cn/download: CT scans of the China Consortium of Chest CT Image Investigation (Zhang 2020)",
    licence="for research, as stated at the source; cite Zhang et al. 2020, doi:10.1016/j.cell.2020.04.045",
    access="Download the archives of the three classes (CP, NCP, Normal) from the source, and unpack all of a "
    "class into "
    "one folder of its name.",
    layout=(Part("CP/*/*/*.{png,jpg}"), Part("NCP/*/*/*.{png,jpg}"), Part("Normal/*/*/*.{png,jpg}")),
    size=240,
    smallest=30,
    demo=60,
    unit="patients",
    build=build,
    gold=gold,
    facts=Facts("CT", Source(kind="folder", path=""), patient="folder"),
    oracle=oracle,
)
