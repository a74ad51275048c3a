"""BrainGnome: the report of one MR sequence of the brain (RadGenome-Brain MRI).

Findings of the phantom: glioma, meningioma, metastasis, infarct or white matter hyperintensity, one kind a patient;
with tumours often brain oedema and midline shift, and enhancement after contrast medium. Each is drawn in all sequences
of the patient, and the report of a sequence tells how it looks there. The radiologist misses some and sees some that
are not there, and some sequences show little of a disease (a meningioma without contrast medium), so that the best
reader stays below an F1 of 1.

Quirks of the real thing: the same patient once a sequence, each with a report of its own; brightness without a unit;
the skull removed from some and the background zero; records whose image is missing; an empty finding here and there.
"""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from m3dspy.m3bench import dictation, phantom
from m3dspy.m3bench.dictation import Finding, Reported, Wording, pick
from m3dspy.m3bench.phantom import Volume, blurred, ellipsoid, inside, stream, texture
from m3dspy.m3bench.task import BenchTask, Facts, Part
from m3dspy.signatures.values import Index, Source, Split

LISTS: dict[str, Split] = {"reports_train.json": "training", "reports_test.json": "test"}
PATIENT = re.compile(r"(.+)-[a-z0-9]+\.nii\.gz")  # the last part of a file's name is the sequence
SHAPE, SPACING = (36, 44, 32), (4.6, 4.4, 4.8)
TISSUES = ("fluid", "grey", "white", "deep", "tumour", "rim", "necrosis", "oedema", "meningioma", "lesion", "infarct")
SIGNAL = {  # of each tissue, in the order of TISSUES
    "t1n": (0.20, 0.55, 0.80, 0.62, 0.42, 0.44, 0.26, 0.50, 0.52, 0.60, 0.50),
    "t1c": (0.20, 0.57, 0.80, 0.64, 0.45, 1.25, 0.26, 0.50, 1.30, 0.60, 0.52),
    "t2w": (1.10, 0.66, 0.45, 0.52, 0.85, 0.80, 1.05, 0.95, 0.66, 0.82, 0.92),
    "t2f": (0.15, 0.58, 0.45, 0.50, 0.82, 0.80, 0.42, 1.05, 0.62, 1.00, 0.95),
    "dwi": (0.25, 0.50, 0.40, 0.45, 0.55, 0.60, 0.40, 0.50, 0.62, 0.50, 1.40),
}
NAMES = {"t1n": "T1", "t1c": "post-contrast T1", "t2w": "T2", "t2f": "T2-FLAIR", "dwi": "DWI"}
COHORTS = {  # disease: how its files begin, and the sequences
    "glioma": ("BraTS-GLI-{:05d}-000", ("t1n", "t1c", "t2w", "t2f")),
    "meningioma": ("BraTS-MEN-{:05d}-000", ("t1n", "t1c", "t2w", "t2f")),
    "metastasis": ("BraTS-MET-{:05d}-000", ("t1n", "t1c", "t2w", "t2f")),
    "infarct": ("ISLES22-{:05d}", ("dwi", "t2f")),
    "white matter hyperintensity": ("WMH-{:05d}", ("t1n", "t2f")),
}
LOBES = {  # mm (RAS+) on the patient's right
    "frontal": (26, 42, 14),
    "parietal": (30, -30, 30),
    "temporal": (42, -2, -20),
    "occipital": (22, -56, 4),
}

BRIGHT = {  # how each finding looks on a sequence
    "glioma": {"t1n": "hypointense", "t1c": "ring-enhancing", "t2w": "hyperintense", "t2f": "hyperintense"},
    "meningioma": {"t1n": "isointense", "t1c": "homogeneously enhancing", "t2w": "isointense", "t2f": "isointense"},
    "metastasis": {"t1n": "hypointense", "t1c": "enhancing", "t2w": "hyperintense", "t2f": "hyperintense"},
    "infarct": {"dwi": "hyperintense", "t2f": "hyperintense"},
    "white matter hyperintensity": {"t1n": "hypointense", "t2f": "hyperintense"},
}
WORDINGS = {
    "glioma": Wording(
        (
            "On {sequence} the {side} {place} lobe holds an irregular mass, {look}, in keeping with glioma.",
            "In the {side} {place} lobe there is a {size} glioma, {look}.",
        ),
        (),
        ("Findings favor a glioma of the {side} {place} lobe.", "{Side} {place} glioma."),
    ),
    "meningioma": Wording(
        (
            "An extra-axial meningioma, {look}, abuts the dura over the {side} {place} lobe.",
            "A well-defined meningioma, {look} on {sequence}, lies along the {side} {place} convexity.",
        ),
        (),
        ("{Side} {place} meningioma.", "Extra-axial meningioma over the {side} {place} lobe."),
    ),
    "metastasis": Wording(
        (
            "Several {look} metastases at the grey-white junction, the largest in the {side} {place} lobe.",
            "Multiple {look} brain metastases are seen on {sequence}, the largest {side} {place}.",
        ),
        (),
        ("Multiple brain metastases.", "Brain metastases, the largest in the {side} {place} lobe."),
    ),
    "infarct": Wording(
        (
            "Acute infarct in the {side} {place} lobe, {look} on {sequence}.",
            "There is a {size} {side} {place} infarct, {look} on {sequence}.",
        ),
        (),
        ("Acute {side} {place} infarct.",),
    ),
    "white matter hyperintensity": Wording(
        (
            "Periventricular white matter lesions are {look} on {sequence}.",
            "There are multiple {look} white matter lesions on both sides.",
        ),
        (),
        ("White matter lesions of vascular origin.", "Chronic microangiopathic changes."),
    ),
    "brain oedema": Wording(
        ("The lesion is surrounded by edema.", "There is {size} perilesional edema."),
        ("No surrounding edema is seen.", "There is no vasogenic edema."),
        (),
        ("mild", "marked"),
    ),
    "midline shift": Wording(
        ("There is a midline shift.", "The ventricle is compressed with midline shift."),
        ("No midline shift.", "There is no midline shift.", "The midline is preserved."),
        ("Midline shift.",),
    ),
}  # fmt: skip


def build(folder: Path, size: int, seed: int, workers: int) -> dict[str, Any]:
    """Write the volumes of `size` patients and the two lists of their reports; one patient in five is for testing."""
    (folder / "images").mkdir()
    made = phantom.each(partial(write_patient, folder=folder, seed=seed), range(size), workers)
    for name, split in LISTS.items():
        chosen = [row for n, rows in enumerate(made) if (n // 5 % 5 == 4) == (split == "test") for row, _ in rows]
        phantom.save_json(folder / name, chosen)
    return {"cases": {row["image_path"]: visible for rows in made for row, visible in rows}}


def write_patient(number: int, folder: Path, seed: int) -> list[tuple[dict[str, str], list[str]]]:
    """All sequences of a patient; returns the record of each, and what is there to be seen."""
    random = stream(seed, "brain-gnome", number)
    disease = tuple(COHORTS)[number % len(COHORTS)]
    begins, sequences = COHORTS[disease]
    there = found(random, disease)
    tissues = brain(stream(seed, "brain-gnome anatomy", number), there)
    lost = sequences[0] if number % 29 == 28 else ""
    rows = []
    for sequence in sequences:
        path = f"images/{begins.format(number + 1)}-{sequence}.nii.gz"
        said = stream(seed, "brain-gnome report", number, sequence)
        finding, impression = report(said, there, sequence)
        visible = [str(f) for f in there] + ["enhancement"] * ("enhancing" in BRIGHT[disease][sequence])
        rows.append(({"image_path": path, "finding": finding, "impression": impression}, visible))
        scan = stream(seed, "brain-gnome scan", number, sequence)
        if sequence != lost:
            phantom.save_nifti(folder / path, weighted(scan, tissues, sequence), SPACING, "LPS", (0, 0, 0), np.int16)
    return rows


def found(random: np.random.Generator, disease: str) -> list[Finding]:
    """What is there in a patient of a disease."""
    there = [guess(random, disease)]
    if disease in ("glioma", "metastasis", "meningioma"):
        if random.random() < 0.6:
            there.append(guess(random, "brain oedema"))
        if disease != "metastasis" and there[0].size > 0.55:
            there.append(Finding("midline shift"))
    return there


def guess(random: np.random.Generator, name: str) -> Finding:
    if name in ("brain oedema", "midline shift"):
        return Finding(name, size=random.random())
    if name == "white matter hyperintensity":
        return Finding(name, size=random.random())
    return Finding(name, pick(random, ("left", "right")), pick(random, tuple(LOBES)), random.random())


def report(random: np.random.Generator, there: list[Finding], sequence: str) -> tuple[str, str]:
    """Finding and impression of a sequence, in the radiologist's belief; one record in fifty has no finding."""
    seen = dictation.believed(random, there, guess, ("brain oedema", "midline shift"))
    said, concluded = dictation.dictate(random, seen, wordings(sequence))
    if not any(finding.name in COHORTS for finding in seen):
        said.insert(0, f"No focal lesion is seen on {NAMES[sequence]}.")
    return "" if random.random() < 0.02 else " ".join(said), " ".join(concluded) or "No focal abnormality."


def wordings(sequence: str) -> dict[str, Wording]:
    """The words for one sequence: its name, and how every finding looks on it."""

    def worded(name: str, sentences: tuple[str, ...]) -> tuple[str, ...]:
        look = BRIGHT.get(name, {}).get(sequence, "")
        return tuple(s.replace("{look}", look).replace("{sequence}", NAMES[sequence]) for s in sentences)

    return {name: Wording(worded(name, w.seen), w.denied, w.concluded, w.sizes) for name, w in WORDINGS.items()}


# ------------------------------------------------------------------------------------------------ the images
def brain(random: np.random.Generator, there: list[Finding]) -> dict[str, Volume]:
    """Share of every voxel that each tissue fills, RAS+, the skull removed."""
    axes = phantom.turned(phantom.millimetres(SHAPE, SPACING, random.normal(0, 2, 3)), random.normal(0, 0.04, 3))
    size = 1 + 0.04 * random.standard_normal()
    form = texture(random, SHAPE, 5, 0.03)
    sulci = texture(random, SHAPE, 1.2, 1)
    if any(finding.name == "midline shift" for finding in there):
        push = 11 * (1 if there[0].side == "left" else -1)
        axes[0] = axes[0] - push * np.exp(-((axes[0] / 34) ** 2) - ((axes[1]) / 60) ** 2 - ((axes[2] - 8) / 40) ** 2)
    x, _, z = axes
    shares = {tissue: np.zeros(SHAPE, np.float32) for tissue in TISSUES}

    def paint(tissue: str, share: Volume) -> None:
        for other in shares.values():
            other *= 1 - share
        shares[tissue] += share

    r = ellipsoid(axes, (0, 0, 0), np.array([66, 84, 64]) * size) + form
    whole = inside(r, 0.06)
    paint("fluid", whole)
    fissure = (np.abs(x) < 2.6) & (z > 5) & (r > 0.5)
    paint("grey", inside(r + 0.04, 0.05) * ~((sulci > 1.25) & (r > 0.84)) * ~fissure)
    paint("white", inside((r + 0.05 * np.clip(sulci, -1, 1)) / 0.82, 0.06) * (np.abs(x) > 2))
    for side in (-1, 1):
        paint("deep", inside(ellipsoid(axes, (side * 17, 6, 0), (8, 14, 9)), 0.3))
        width = np.array([7, 28, 9]) * np.exp(0.15 * random.standard_normal())
        paint("fluid", inside(ellipsoid(axes, (side * 12, 2, 10), width, (0, 0, side * 0.2)), 0.3))
    within = inside(r + 0.02, 0.05)
    oedema = next((finding.size for finding in there if finding.name == "brain oedema"), None)
    for finding in there:
        lesion(random, finding, axes, paint, within, oedema)
    return shares


def lesion(random: np.random.Generator, finding: Finding, axes, paint, within: Volume, oedema: float | None) -> None:
    """Paint a disease."""
    side = -1 if finding.side == "left" else 1
    where = np.array(LOBES.get(finding.place, (0, 0, 0))) * (side, 1, 1)
    if finding.name == "meningioma":
        where = where * 1.25
    centre, size = where + random.normal(0, 4, 3), finding.size
    rough = texture(random, within.shape, 2, 0.16)
    if finding.name in ("glioma", "meningioma"):
        radius = 13 + 9 * size
        if oedema is not None:
            paint("oedema", within * inside(ellipsoid(axes, centre, [radius + 9 + 8 * oedema] * 3) + 2 * rough, 0.2))
        r = ellipsoid(axes, centre, [radius] * 3)
        if finding.name == "meningioma":
            paint("meningioma", within * inside(r, 0.2))
            return
        r = r + rough
        paint("rim", within * inside(r, 0.2))
        paint("tumour", within * inside(r / 0.76, 0.2) * (size <= 0.3))
        paint("necrosis", within * inside(r / 0.62, 0.2) * (size > 0.3))
    if finding.name == "metastasis":
        for number in range(3 + random.integers(3)):
            at = (
                centre if number == 0 else np.array(pick(random, tuple(LOBES.values()))) * (pick(random, (-1, 1)), 1, 1)
            )
            at = at + random.normal(0, 7, 3) * (number > 0)
            radius = 9 + 3 * size if number == 0 else random.uniform(5.5, 8)
            if oedema is not None:
                paint("oedema", within * inside(ellipsoid(axes, at, [radius + 7 + 6 * oedema] * 3) + rough, 0.2))
            paint("rim", within * inside(ellipsoid(axes, at, [radius] * 3), 0.3))
    if finding.name == "infarct":
        r = ellipsoid(axes, centre, (16 + 9 * size, 20 + 9 * size, 16 + 7 * size)) + 2 * rough
        paint("infarct", within * inside(r, 0.3))
    if finding.name == "white matter hyperintensity":
        for near in (-1, 1):
            cap = ellipsoid(axes, (near * 16, 2, 13), (10 + 4 * size, 38 + 6 * size, 11 + 4 * size)) + 2 * rough
            ventricle = ellipsoid(axes, (near * 12, 2, 10), (8, 29, 10))
            paint("lesion", within * inside(cap, 0.3) * (ventricle > 1))
        spots = texture(random, within.shape, 0.9, 1) > 2.3 - 0.5 * size
        paint("lesion", within * spots * (np.abs(axes[2] - 18) < 22) * (np.abs(axes[0]) < 44))


def weighted(random: np.random.Generator, tissues: dict[str, Volume], sequence: str) -> Volume:
    """The brain as one sequence shows it: signal, coil, noise, and a brightness without a unit."""
    whole = np.sum(list(tissues.values()), axis=0)
    signal = np.sum([share * level for share, level in zip(tissues.values(), SIGNAL[sequence], strict=True)], axis=0)
    image = blurred(signal, 0.4) * phantom.coil_field(random, SHAPE, 0.1)
    image = phantom.rician(random, image, 0.035) * (whole > 0.3)
    return (image * random.choice([900, 260]) * np.exp(0.1 * random.standard_normal())).round()


# ------------------------------------------------------------------------------------------------ the expert
def gold(root: Path, seed: int) -> Index:
    """Every image with a finding; the official list of test cases, all sequences of a patient together."""
    return dictation.index_of(root, (case for name in LISTS for case in _reported(root, name)), seed)


def _reported(root: Path, name: str) -> list[Reported]:
    """The records of one list; none where that list is not there."""
    if not (root / name).is_file():
        return []
    return [
        Reported(
            row["image_path"], _patient(row["image_path"]), row["finding"].strip(), row["impression"].strip(), split
        )
        for split in (LISTS[name],)
        for row in json.loads((root / name).read_text())
    ]


def _patient(path: str) -> str:
    file = path.rpartition("/")[2]
    named = PATIENT.fullmatch(file)
    return named[1] if named else file


TASK = BenchTask(
    name="BrainGnome",
    task="report_generation",
    requests=(
        "write the radiology report of a brain MRI sequence",
        "Describe the findings and give the impression for each MR sequence of the head, as a neuroradiologist would.",
        "Train a report generator for 3D brain MRI with findings and impression. Keep sequences of a patient in one "
        "split, keep the official test list, leave out empty findings, and do not mirror images, since the text names "
        "sides.",
        "make an AI that turns head MRI scans into the doctor's written text",
        "Generate reports for the brain MR volumes here. The Alzheimer's scans next door are for another job.",
    ),
    impossible=(
        "predict survival after surgery from these brain MRI volumes",
        "write reports of knee MRI",
        "draw bounding boxes around the tumours on brain MRI",
    ),
    labels=(),
    metric="finding F1",
    source="RadGenome-Brain MRI (Lei et al. 2024, AutoRG-Brain): 3,408 images of BraTS, ISLES22 and WMH",
    licence="of the reports: see their release; of the images: those of the five challenges",
    access="The reports are released with AutoRG-Brain; ask the five challenges for the images. Put the images into "
    "`images`, and the reports, one record an image, into the two lists.",
    layout=(Part("images/*.nii.gz", 3408), *(Part(name, 1) for name in LISTS)),
    size=200,
    smallest=30,
    demo=75,
    unit="patients",
    build=build,
    gold=gold,
    facts=Facts(
        "MR",
        Source(kind="json", path="reports_train.json", file_column="image_path"),
        patient="file name",
        sided=True,
        findings="finding",
        impression="impression",
    ),
    oracle=dictation.oracle,
)
