"""VerSe: every vertebra by its name, on CT of some part of the spine.

In the phantom a scan shows the loins, the chest and loins, the neck, the chest or, rarely, all of the spine, so that
most labels are absent from any one mask. Which vertebra is which has to be seen from the shape and from what lies
around, as in a patient: the skull base and the dens, the first rib, windpipe and aortic arch, the lungs' lower end,
kidneys, iliac crests and sacrum. Neighbours in the middle of the chest differ by little but their place.

Simplified: voxels of 5 mm, at which a disc is one voxel thick and joints between arches cannot be seen; trunk and limbs
are cut off 6 cm from the spine; scoliosis, metal and the sub-regions of a vertebra are left out; the centroids are
those of the masks. The hand that drew the masks is unsteady.

Quirks of the real thing: value 28 is a thirteenth thoracic vertebra, 26 and 27 do not occur; a few patients have a T13
or an L6 (in the phantom one in fourteen has each); files store their axes in different directions and orders; some
patients have several scans, named by the patient's number and one of their own; the masks lie under `derivatives`
beside centroids and pictures; vertebrae may be fractured. The parts of the challenge (`dataset-01training` ...) each
hold such a pair of folders; in the phantom they are merged.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3dspy.m3bench import phantom
from m3dspy.m3bench.annotator import agreement, best_reader, traced
from m3dspy.m3bench.phantom import AIR, BLOOD, FAT, SOFT_TISSUE, Volume, blurred, ellipsoid, stream, texture
from m3dspy.m3bench.task import BenchTask, Facts, Part
from m3dspy.signatures.values import Index, Source, Split

NAMES = {
    **{value: f"C{value}" for value in range(1, 8)},
    **{value: f"T{value - 7}" for value in range(8, 20)},
    **{value: f"L{value - 19}" for value in range(20, 26)},
    28: "T13",
}
LABELS, VALUES = tuple(NAMES.values()), tuple(NAMES)
PARTS: dict[str, Split] = {"training": "training", "validation": "validation", "test": "test"}
BONE, MARROW, DISC, LIQUOR, BRAIN, LUNG = 420.0, 190.0, 85.0, 15.0, 35.0, -850.0  # HU
SPACING, SIDES = 5.0, (26, 30)  # mm; voxels from side to side and from back to front
FRONT = 10.0  # mm that the grid's middle lies before the canal's edge of the vertebral bodies
VIEWS = {  # first and last vertebra in sight, and how often such a scan is made
    "neck": (0, 9, 0.12),
    "chest": (6, 19, 0.08),
    "chest and loins": (14, 26, 0.3),
    "loins": (17, 26, 0.45),
    "all": (0, 26, 0.05),
}
SKULL, SACRUM = 40.0, 70.0  # mm above C1 and below the last vertebra that a scan may show


@dataclass(frozen=True)
class Vertebra:
    """One vertebra of a patient, mm. `z`: its middle. `half`: of the body, to the side and to the front and back.
    `wedge`: lost height at the front, of a fracture."""

    value: int
    z: float
    height: float
    half: tuple[float, float]
    wedge: float

    @property
    def kind(self) -> str:
        return NAMES[self.value][0]


@dataclass(frozen=True)
class Spine:
    """The vertebrae of a patient from the head downwards, and what the trunk is measured by.

    knots: (z, level) with level 0 above C1, 7 below C7, 19 below the last rib, 24 below the last lumbar vertebra.
    """

    vertebrae: tuple[Vertebra, ...]
    knots: NDArray
    scale: float
    bend: tuple[float, float]

    def level(self, z: Volume) -> Volume:
        """Where along the body a height lies."""
        return np.interp(-z, -self.knots[:, 0], self.knots[:, 1], left=-1.5, right=27).astype(np.float32)

    def curve(self, level: Volume) -> Volume:
        """How far the spine stands forward, mm: at the neck and the loins, less so at the chest."""
        lordosis, kyphosis = self.bend
        return lordosis * (np.exp(-(((level - 4) / 4) ** 2)) + np.exp(-(((level - 22) / 3) ** 2))) - kyphosis * np.exp(
            -(((level - 13) / 5) ** 2)
        )


# ------------------------------------------------------------------------------------------------ the files
def build(folder: Path, size: int, seed: int, workers: int) -> dict[str, Any]:
    """Write `rawdata` and `derivatives` for `size` scans; one in fifteen is the second of its patient."""
    scans = []
    for number in range(size):
        repeated = number % 15 == 14
        patient = 4 + 3 * (number - 1 if repeated else number)
        twice = repeated or (number % 15 == 13 and number + 1 < size)
        name = f"sub-verse{patient:03d}" + (f"_split-verse{patient + 200 + repeated:03d}" if twice else "")
        extra = {3: "T13", 10: "L6"}.get((number - repeated) % 14, "")
        scans.append((patient, name, extra, number))
    return {"cases": dict(phantom.each(partial(write_scan, folder=folder, seed=seed), scans, workers))}


def write_scan(scan: tuple[int, str, str, int], folder: Path, seed: int) -> tuple[str, dict[str, float]]:
    """One scan with its mask, centroids and picture; returns its path and the best possible Dice of each label."""
    from PIL import Image

    patient, name, extra, number = scan
    random = stream(seed, "verse", number)
    spine = make_spine(stream(seed, "spine", patient), extra)
    spacing = np.array([SPACING, SPACING, SPACING * random.uniform(1.05, 1.3)])
    top, bottom = _view(random, spine, extra != "")
    shape = (*SIDES, int((top - bottom) / spacing[2]))
    middle = (random.normal(0, 3), FRONT + random.normal(0, 3), (top + bottom) / 2)
    image, ideal = trunk(stream(seed, "trunk", patient), spine, phantom.millimetres(shape, spacing, middle))
    mask = traced(random, ideal, 0.36)
    image = blurred(image, 0.45) + phantom.ct_noise(random, shape, random.uniform(15, 35))

    codes = ("PIR", "LAS", "LPS", "PIR")[random.integers(4)]
    origin = random.normal(0, 40, 3).round(1)
    raw, derived = (folder / part / f"sub-verse{patient:03d}" for part in ("rawdata", "derivatives"))
    for place in (raw, derived):
        place.mkdir(parents=True, exist_ok=True)
    path = raw / f"{name}_ct.nii.gz"
    phantom.save_nifti(path, np.clip(image, -1024, 3071).round(), spacing, codes, origin, np.int16)
    phantom.save_nifti(derived / f"{name}_seg-vert_msk.nii.gz", mask, spacing, codes, origin, np.uint8)
    phantom.save_json(derived / f"{name}_seg-subreg_ctd.json", centroids(mask, codes))
    Image.fromarray(snapshot(image, mask)).save(derived / f"{name}_seg-vert_snp.png")
    return path.relative_to(folder).as_posix(), agreement(ideal, mask, LABELS, VALUES)


def centroids(mask: NDArray[np.uint8], codes: str) -> list[dict[str, Any]]:
    """The middle of every vertebra in voxels of the file's own grid, as the release gives it."""
    found: list[dict[str, Any]] = [{"direction": list(codes)}]
    order = [next(axis for axis, pair in enumerate(("RL", "AP", "SI")) if code in pair) for code in codes]
    for value in np.unique(mask[mask > 0]):
        middle = np.argwhere(mask == value).mean(0)
        along = [
            mask.shape[axis] - 1 - middle[axis] if code in "LPI" else middle[axis]
            for axis, code in zip(order, codes, strict=True)
        ]
        found.append({"label": int(value), **dict(zip("XYZ", np.round(along, 1).tolist(), strict=True))})
    return found


def snapshot(image: Volume, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture that lies beside a mask: the middle sagittal slice, vertebrae tinted, head up."""
    cut, marked = (array[array.shape[0] // 2].T[::-1] for array in (image, mask))
    grey = np.clip((cut + 200) / 800, 0, 1)[..., None] * np.ones(3)
    tint = 0.5 + 0.5 * np.cos(marked[..., None] * 2.4 + np.array([0, 2.1, 4.2]))
    return (255 * np.where(marked[..., None] > 0, 0.5 * grey + 0.5 * tint, grey)).astype(np.uint8)


# ------------------------------------------------------------------------------------------------ the patient
def make_spine(random: np.random.Generator, extra: str) -> Spine:
    """A spine of its own, its head end above 0. Args: extra: "T13", "L6" or ""."""
    scale = random.normal(1, 0.05)
    values = [value for value in VALUES if value < 25]
    if extra == "T13":
        values.insert(values.index(20), 28)
    if extra == "L6":
        values.append(25)
    frail = random.random() < 0.4
    vertebrae, knots, z = [], [(0.0, 0.0)], 0.0
    for number, value in enumerate(values):
        share = number / (len(values) - 1)
        height = scale * (15 + 21 * share) * random.normal(1, 0.03)
        half = scale * np.array([9 + 16 * share, 7.5 + 10 * share]) * random.normal(1, 0.03, 2)
        wedge = random.uniform(0.25, 0.5) if frail and 13 < number < 21 and random.random() < 0.25 else 0.0
        vertebrae.append(Vertebra(value, z - height / 2, height, (half[0], half[1]), wedge))
        z -= height
        if value == 7 or (NAMES[value][0] == "T" and values[number + 1] == 20):
            knots.append((z, 7.0 if value == 7 else 19.0))
    knots.append((z, 24.0))
    first, last = (knots[1][0] - knots[0][0]) / 7, 30 * scale
    knots = [(-1.5 * first, -1.5), *knots, (z - 3 * last, 27.0)]
    return Spine(tuple(vertebrae), np.array(knots), scale, (random.uniform(8, 16), random.uniform(8, 16)))


def _view(random: np.random.Generator, spine: Spine, odd: bool) -> tuple[float, float]:
    """The upper and the lower end of what a scan shows, mm. Args: odd: the spine has one more, and it is in sight."""
    kinds = list(VIEWS.values())
    first, last, _ = kinds[random.choice(len(kinds), p=[share for *_, share in kinds])]
    if odd:
        first, last, _ = VIEWS["chest and loins"]
    inner = [vertebra.z for vertebra in spine.vertebrae]
    head, tail = inner[0] + 8 + SKULL * random.random(), inner[-1] - 20 - SACRUM * random.uniform(0.3, 1)
    top = head if first == 0 else inner[first + random.integers(-1, 2)]
    return top, tail if last == 26 else inner[last + random.integers(-1, 2)]


def trunk(random: np.random.Generator, spine: Spine, axes: phantom.Axes) -> tuple[Volume, NDArray[np.uint8]]:
    """The image in HU before blur and noise, and the vertebrae by value."""
    x, y, z = axes
    shape = (x.size, y.size, z.size)
    level = spine.level(z)
    y = y - spine.curve(level)  # from here on 0 is the front edge of the canal
    k, form, grain = spine.scale, texture(random, shape, 4, 1), texture(random, shape, 1.5, 8)
    image = np.full(shape, SOFT_TISSUE + 10, np.float32) + grain

    def put(where: NDArray[np.bool_], hu: float) -> None:
        image[np.broadcast_to(where, shape)] = hu

    # ---- soft parts, from the surface inwards
    neck = 1 / (1 + np.exp((level - 6.5) * 1.6))
    girth = 58 * k * neck + 170 * (1 - neck)
    put(ellipsoid((x, y - 12), (0, 0), (1, 1)) / girth + 0.02 * form > 1, AIR)
    behind = (y < -34 * k - 12 * (1 - neck) + 3 * form) & (image > AIR)
    put(behind, FAT)
    put(behind & (y < -58 * k), AIR)
    cavity = (level > 19) & (y > -12 + 2 * form) & (np.abs(x) < 150)
    put(cavity & (form > -0.3), FAT)
    loins = np.clip((level - 19) / 5, 0, 1)
    for side in (-1, 1):
        lung = ellipsoid((x - side * (58 + 6 * form), y - 22), (0, 0), (40 * k, 62 * k))
        top, base = 7.4, 18.2 - 1.6 * np.clip(y / 60, 0, 1) - 0.4 * (side > 0)
        wide = np.clip((level - top) / 3, 0.3, 1) + 0 * lung
        put((lung < wide) & (level > top) & (level < base), LUNG)
        kidney = ellipsoid((x - side * 50 * k, y + 4, (level - 20.4 + 0.4 * (side < 0)) * 30), (0, 0, 0), (20, 19, 46))
        put((kidney < 1 + 0.05 * form) & (level > 17), 150)
        psoas = ellipsoid((x - side * (26 + 10 * loins) * k, y - 6), (0, 0), (1, 1)) / (5 + 17 * loins)
        put((psoas < 1) & (level > 19), SOFT_TISSUE + 12)
        back = ellipsoid((x - side * 24 * k, (y + 34 * k) / (12 + 8 * loins)), (0, 0), (22 * k, k))
        put((back < 1) & (image > AIR), SOFT_TISSUE + 12)
    put((ellipsoid((x - 52, y - 42, (level - 18.2) * 26), (0, 0, 0), (48, 44, 62)) < 1 + 0.05 * form), 105)  # liver
    put((ellipsoid((x + 10, y - 60, (level - 14) * 24), (0, 0, 0), (46, 30, 48)) < 1 + 0.05 * form), BLOOD)  # heart
    aorta = ellipsoid((x + (16 - 0.9 * np.clip(level - 16, 0, 7)) * k, y - 32 * k), (0, 0), (11 * k, 11 * k))
    put((aorta < 1) & (level > 11) & (level < 23), 160)
    put((np.hypot(x + 6, y - 34 * k) < 22 * k) & (np.abs(level - 10.8) < 0.5), 160)  # the arch
    windpipe = np.abs(x - np.sign(x) * 14 * np.clip(level - 11.2, 0, 2))
    put((np.hypot(windpipe, y - 36 * k) < 8 * k) & (level > 2.5) & (level < 13), AIR + 20)

    # ---- bone that is not asked for
    skull = ellipsoid((x, y + 6, z - 62), (0, 0, 0), (72, 88, 66))
    put((skull < 1) & (z > 2), BONE)
    put((skull < 0.88) & (z > 2), BRAIN)
    jaw = np.abs(ellipsoid((x, y - 22), (0, 0), (38 * k, 44 * k)) - 1) < 0.13
    put(jaw & (y > 18) & (level > -0.2) & (level < 2.6), BONE)
    sacral = np.clip((level - 24) / 3, 0, 1)
    wedge = ellipsoid((x, y + 4 + 34 * sacral), (0, 0), (1, 1)) / (46 - 22 * sacral)
    put((wedge < 1) & (np.abs(y + 2 + 40 * sacral) < 19) & (level > 24.15), MARROW + 40)
    iliac = np.abs(np.abs(x) - (56 - 6 * sacral + 4 * (24 - level))) < 6
    put(iliac & (level > 22.9) & (y < 24) & (y > -44), BONE - 60)

    mask = np.zeros(shape, np.uint8)
    for vertebra in spine.vertebrae:
        _paint(image, mask, vertebra, (x, y, z), k)
    canal = np.broadcast_to(ellipsoid((x, y + 9 * k), (0, 0), (9.5 * k, 8 * k)) < 1, shape) & (level < 26)
    image[canal & (mask == 0)] = LIQUOR
    return image, mask


def _paint(image: Volume, mask: NDArray[np.uint8], vertebra: Vertebra, axes: phantom.Axes, k: float) -> None:
    """Body, arch and processes of one vertebra, its ribs and the disc below, into image and mask."""
    x, y, z = axes
    value, (width, depth), height = vertebra.value, vertebra.half, vertebra.height
    near = np.flatnonzero(np.abs(z.ravel() - vertebra.z) < 1.6 * height)
    if not near.size:
        return
    window = (slice(None), slice(None), slice(near[0], near[-1] + 1))
    part, seen, up, y = image[window], mask[window], z[:, :, window[2]] - vertebra.z, y[:, :, window[2]]
    forward = np.clip(y / (2 * depth), 0, 1)
    tall = 0.40 * height * (1 - vertebra.wedge * forward)
    round_ = ellipsoid((x, y - depth), (0, 0), (width, depth))
    body = (round_ < 1) & (np.abs(up + 0.40 * height - tall) < tall)
    disc = (round_ < 1) & (np.abs(up) < 0.62 * height) & ~body
    canal = ellipsoid((x, y + 9 * k), (0, 0), (9.5 * k, 8 * k))
    ring = ellipsoid((x, y + 9 * k), (0, 0), (15 * k, 13.5 * k))
    arch = (canal >= 1) & (ring < 1) & (y < 3) & (np.abs(up) < 0.36 * height)
    reach = {"C": 20, "T": 24, "L": 34}[vertebra.kind] * k
    lean = {"C": 0.2, "T": 0.75, "L": 0.05}[vertebra.kind]  # how steeply the spinous process falls
    length = {"C": 10 + 2.2 * value, "T": 28, "L": 26}[vertebra.kind] * k
    behind = -y - 18 * k
    spinous = (np.abs(x) < 4.2) & (behind > -3) & (behind < length) & (np.abs(up + lean * behind) < 0.27 * height)
    back = 8 * k + (0.45 * (np.abs(x) - 12) if vertebra.kind == "T" else 0)
    lateral = (np.abs(x) < reach) & (np.abs(x) > 10 * k) & (np.abs(y + back) < 5.5) & (np.abs(up - 2) < 0.2 * height)
    if value == 1:  # the atlas has no body and no spinous process
        body = (ring < 1.45) & (canal >= 1.15) & (np.abs(up) < 0.42 * height)
        spinous = disc = np.zeros_like(body)
    if value == 2:  # the dens
        body = body | ((ellipsoid((x, y - 5), (0, 0), (6 * k, 6 * k)) < 1) & (up > 0) & (up < 1.25 * height))
    bone = (body | arch | spinous | lateral) & (seen == 0)
    if vertebra.kind == "T":
        out = np.abs(x) - width
        rib = np.abs(y + 4 + 0.5 * np.clip(out, 0, 26) - 0.02 * np.clip(out - 10, 0, 60) ** 2) < 4.5
        long = 12 if value == 28 else 22 if value == 19 else 90
        rib = rib & (out > 2) & (out < long) & (np.abs(up - 3 + 0.35 * out) < 4.5)
        part[rib & (seen == 0) & ~bone] = BONE - 100
    part[disc & (seen == 0)] = DISC
    core = (ellipsoid((x, y - depth), (0, 0), (width - 3, depth - 3)) < 1) & body & (value != 1)
    part[bone] = BONE
    part[bone & core] = MARROW
    seen[bone] = value


# ------------------------------------------------------------------------------------------------ the index
def gold(root: Path, seed: int) -> Index:
    """By patient, the folder `sub-...`; the division of the challenge where its parts are there.

    Reads the release, whole or its parts merged, and `images`, `masks` as in M3Builder's card.
    """
    from m3dspy.workspace import indexing as ix

    if (root / "images").is_dir():
        patient = r"^(sub-[A-Za-z]+\d+)"
        items = ix.from_pairs(root, images="images/*.nii.gz", masks="masks/*.nii.gz", patient=patient)
    else:
        items = ix.from_pairs(
            root,
            images="**/rawdata/sub-*/*_ct.nii.gz",
            masks="**/derivatives/sub-*/*_seg-vert_msk.nii.gz",
            patient=r"rawdata/(sub-[A-Za-z]+\d+)/",
        )
        items = [item | _part(item["image"]) for item in items]
    return Index.model_validate(
        {"task": "segmentation", "labels": LABELS, "values": VALUES, **ix.split(items, seed=seed)}
    )


def _part(path: str) -> dict[str, Split]:
    """The part of the challenge that a path lies in, as an item's `split`; nothing where the parts are merged."""
    folder = path.partition("/")[0]
    for part, split in PARTS.items():
        if folder.endswith(part):
            return {"split": split}
    return {}


TASK = BenchTask(
    name="VerSe",
    task="segmentation",
    requests=(
        "segment every vertebra on spine CT",
        "Delineate the individual vertebrae of the cervical, thoracic and lumbar spine on CT, each under its own name.",
        "We need a network that outlines all vertebrae, C1 to L6 and T13 where there is one, on CT with any field of "
        "view. It must run on one GPU, keep the dataset's label numbers, and never put one patient into two splits.",
        "mark each bone of the backbone in these CAT scans and number them",
        "Segment all vertebrae in this folder of spine CT. I also have knee MRI on the other disk, ignore it.",
    ),
    impossible=(
        "segment the menisci on knee MRI",
        "segment the spinal cord and the discs on T2-weighted MR images of the spine",
        "draw bounding boxes around the vertebrae on CT",
        "predict the survival of these patients from the spine CT",
        "write a radiology report for each spine CT",
    ),
    labels=LABELS,
    metric="mean Dice",
    source="osf.io/nqjyw (VerSe'19), osf.io/t98fz (VerSe'20): Sekuboyina et al. 2021, doi:10.1016/j.media.2021.102166, "
    "374 scans of 355 patients",
    licence="CC BY-SA 4.0",
    access="Free download from the OSF, no account needed; take the subject-based archives of training, validation and "
    "test, and unpack them side by side.",
    layout=(
        Part("dataset-*training/rawdata/sub-*/*_ct.nii.gz"),
        Part("dataset-*validation/rawdata/sub-*/*_ct.nii.gz"),
        Part("dataset-*test/rawdata/sub-*/*_ct.nii.gz"),
        Part("dataset-*/rawdata/sub-*/*_ct.nii.gz", 374),
        Part("dataset-*/derivatives/sub-*/*_seg-vert_msk.nii.gz", 374),
        Part("dataset-*/derivatives/sub-*/*_seg-subreg_ctd.json", 374),
    ),
    size=60,
    smallest=30,
    demo=30,
    unit="scans",
    build=build,
    gold=gold,
    facts=Facts("CT", Source(kind="masks"), patient="folder", values=tuple(map(str, VALUES))),
    oracle=best_reader,
)
