"""IU-Xray: the report of a chest X-ray, from the collection of Indiana University (Open-i).

Findings of the phantom: cardiomegaly, pleural effusion, opacity, atelectasis, nodule, pneumothorax, emphysema and
device (a pacemaker), each drawn where it is reported; four patients in ten have none. The radiologist misses some and
sees some that are not there, so that the best reader stays below an F1 of 1.

Every image is a case: a frontal film and, for many studies, a lateral one that shares its report and its patient. On
the lateral film a pneumothorax is not to be seen, and nothing has a side.

Quirks of the real thing: words that were taken out to protect the patient (XXXX); one study in eight without findings;
normal reports that read almost alike; rows whose image is missing; gaps in the numbers; films of all proportions.
"""

import csv
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from m3dspy.m3bench import dictation, phantom
from m3dspy.m3bench.dictation import Finding, Reported, Wording, pick
from m3dspy.m3bench.phantom import Volume, blurred, ellipsoid, inside, stream, texture
from m3dspy.m3bench.task import BenchTask, Facts, Part
from m3dspy.signatures.values import Index, Source

REPORTS, PROJECTIONS, IMAGES = "indiana_reports.csv", "indiana_projections.csv", "images/images_normalized"
ROWS, SPACING = 128, 3.1  # pixels; mm
NORMAL = 0.4  # share of the patients
PREVALENCE = {
    "cardiomegaly": 0.32,
    "device": 0.18,
    "emphysema": 0.18,
    "opacity": 0.28,
    "atelectasis": 0.2,
    "nodule": 0.2,
    "pleural effusion": 0.3,
    "pneumothorax": 0.14,
}
PLACES = {"upper": -66.0, "mid": -12.0, "lower": 44.0}  # mm below the middle of the film
SIDES = ("right", "left")  # the patient's right is on the left of the film

WORDINGS = {
    "cardiomegaly": Wording(
        ("The heart is enlarged.", "There is cardiomegaly.", "The cardiac silhouette is enlarged.", "Cardiomegaly."),
        (
            "The heart is normal in size.",
            "Heart size is normal.",
            "The cardiac silhouette is within normal limits.",
            "Heart size and mediastinal contour are normal.",
        ),
        ("Cardiomegaly.", "Cardiomegaly without heart failure."),
    ),
    "device": Wording(
        ("A {side} chest pacemaker is XXXX.", "There is a {side}-sided pacemaker in XXXX position."),
    ),
    "emphysema": Wording(
        (
            "The lungs are hyperinflated with flattened diaphragms.",
            "There is hyperexpansion of the lungs.",
            "Emphysematous changes are XXXX in both lungs.",
        ),
        (),
        ("Emphysema.", "Hyperinflated lungs, XXXX COPD."),
    ),
    "opacity": Wording(
        (
            "There is an airspace opacity in the {side} {place} lung.",
            "{Side} {place} lung opacity is noted, XXXX infection.",
            "There is patchy airspace disease in the {side} {place} lung.",
        ),
        ("No focal airspace disease.", "The lungs are clear.", "No focal opacity is seen."),
        ("{Side} {place} lung opacity.", "{Side} {place} lung airspace disease, followup is XXXX."),
    ),
    "atelectasis": Wording(
        ("There is XXXX atelectasis in the {side} lung base.", "Bandlike {side} basilar atelectasis."),
        (),
        ("{Side} basilar atelectasis.",),
    ),
    "nodule": Wording(
        ("There is a nodule in the {side} {place} lung.", "{Side} {place} lung nodule measures XXXX.",),
        (),
        ("{Side} lung nodule, CT is recommended.", "{Side} {place} lung nodule."),
    ),
    "pleural effusion": Wording(
        ("There is a {size} {side} pleural effusion.", "{Size} {side} pleural effusion.", "{Side} effusion, {size}."),
        ("No pleural effusion.", "There is no pleural effusion.", "No large effusion is seen."),
        ("{Size} {side} pleural effusion.",),
    ),
    "pneumothorax": Wording(
        ("There is a {size} {side} pneumothorax.", "{Size} {side} apical pneumothorax is seen."),
        ("No pneumothorax.", "There is no pneumothorax.", "No pneumothorax is seen."),
        ("{Side} pneumothorax, the physician was told at XXXX.",),
    ),
}  # fmt: skip
TOGETHER = (
    (
        frozenset(("opacity", "pleural effusion", "pneumothorax")),
        (
            "The lungs are clear without focal opacity, pleural effusion or pneumothorax.",
            "No focal airspace disease, pleural effusion, or pneumothorax.",
        ),
    ),
    (
        frozenset(("pleural effusion", "pneumothorax")),
        ("No pleural effusion or pneumothorax.", "There is no pneumothorax or pleural effusion."),
    ),
)
BONES = (
    "Bony structures are intact.",
    "Degenerative changes of the XXXX spine.",
    "Visualized osseous structures are unremarkable.",
)
CLEAR = (
    "No acute cardiopulmonary abnormality.",
    "No acute cardiopulmonary disease.",
    "Normal chest x-XXXX.",
    "No acute disease.",
)


def build(folder: Path, size: int, seed: int, workers: int) -> dict[str, Any]:
    """Write the films and the two tables of `size` studies."""
    (folder / IMAGES).mkdir(parents=True)
    numbers = [number for number in range(1, size + size // 40 + 2) if number % 41][:size]  # some are not given
    made = phantom.each(partial(write_study, folder=folder, seed=seed), numbers, workers)
    reports = [row for row, _, _ in made]
    films = [film for _, films, _ in made for film in films]
    for name, rows in ((REPORTS, reports), (PROJECTIONS, films)):
        with (folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return {"cases": {f"{IMAGES}/{film['filename']}": there for _, films, there in made for film in films}}


def write_study(number: int, folder: Path, seed: int) -> tuple[dict[str, object], list[dict[str, object]], list[str]]:
    """The films of a study; returns its row of the reports, those of its films, and what is there to be seen."""
    random = stream(seed, "iu-xray", number)
    there = found(random)
    findings, impression = report(stream(seed, "iu-xray report", number), there)
    row = {
        "uid": number,
        "MeSH": ";".join(finding.name for finding in there) or "normal",
        "Problems": ";".join(finding.name for finding in there) or "normal",
        "image": "Xray Chest PA and Lateral",
        "indication": "XXXX-year-old XXXX with " + pick(random, ("chest pain", "XXXX", "cough", "shortness of breath")),
        "comparison": pick(random, ("None.", "XXXX.", "Chest radiographs XXXX.")),
        "findings": "" if random.random() < 0.125 else findings,
        "impression": "" if random.random() < 0.01 else impression,
    }
    archive = int(random.integers(1, 4000))
    views = [("Frontal", frontal, 1001)] + [("Lateral", lateral, 2001)] * (random.random() < 0.45)
    lost = random.random() < 0.015
    films = []
    for view, draw, series in views:
        name = f"{number}_IM-{archive:04d}-{series}.dcm.png"
        films.append({"uid": number, "filename": name, "projection": view})
        if not (lost and view == "Frontal"):
            grey = draw(stream(seed, "iu-xray", view, number), there)
            Image.fromarray((grey * 255).astype(np.uint8)).save(folder / IMAGES / name)
    return row, films, list(map(str, there))


def found(random: np.random.Generator) -> list[Finding]:
    """What is there in a patient."""
    if random.random() < NORMAL:
        return []
    return [guess(random, name) for name, share in PREVALENCE.items() if random.random() < share]


def guess(random: np.random.Generator, name: str) -> Finding:
    sided = name not in ("cardiomegaly", "emphysema")
    place = pick(random, tuple(PLACES)) if name in ("opacity", "nodule") else ""
    return Finding(name, pick(random, SIDES) if sided else "", place, random.random())


def report(random: np.random.Generator, there: list[Finding]) -> tuple[str, str]:
    """Findings and impression, in the radiologist's belief."""
    said, concluded = dictation.dictate(
        random, dictation.believed(random, there, guess, PREVALENCE), WORDINGS, TOGETHER
    )
    if random.random() < 0.3:
        said.append(pick(random, BONES))
    return " ".join(said), " ".join(concluded) or pick(random, CLEAR)


# ------------------------------------------------------------------------------------------------ the films
def frontal(random: np.random.Generator, there: list[Finding]) -> Volume:
    """A frontal film, 0 to 1: what the beam passes is added up, dense is bright."""
    shape = ROWS, int(ROWS * random.uniform(0.86, 1.12))
    y, x = phantom.millimetres(shape, (SPACING, SPACING), random.normal(0, 4, 2))
    size = random.normal(1, 0.04)
    x, y = x / size, y / size
    form = texture(random, shape, 14, 0.035)
    of = {finding.name: finding for finding in there}
    wide = 1.0 if "emphysema" in of else 0.0

    tissue = 2.3 * np.clip(1.12 - np.hypot(x / 186, np.maximum(y, -60) / 320) - 0.5 * form, 0, 0.8)
    sides = {}
    for side in (-1, 1):
        r = ellipsoid((x, y), (side * 80, -22 + 8 * wide), (62 + 5 * wide, 122 + 16 * wide)) + form
        bulge = 20 * np.exp(-(((x - side * 76) / 50) ** 2)) - 50 * ((x - side * 76) / 200) ** 2
        dome = 92 + 24 * wide - 10 * (side < 0) - bulge * (1 - 0.8 * wide)
        sides[side] = inside(r, 0.09) * np.clip((dome - y) / 10, 0, 1)
    lungs = sides[-1] + sides[1]
    tissue -= (1.02 + 0.13 * wide) * lungs
    heart = random.normal(102, 7) if "cardiomegaly" in of else random.normal(70, 6) - 12 * wide
    tissue += 0.75 * inside(ellipsoid((x, y), (0.25 * heart, 56), (heart, 40 + 0.3 * heart)), 0.2) * (y < 112)
    tissue += 0.55 * inside(np.abs(x) / 22, 0.5) + 0.2 * inside(ellipsoid((x, y), (16, -62), (18, 20)), 0.4)
    pitch, phase = random.uniform(31, 37), random.uniform(-10, 10)
    for number in range(9):
        rib = y + 156 + phase - number * pitch - 0.0022 * (np.abs(x) - 60) ** 2
        tissue += 0.1 * np.exp(-((rib / 4.4) ** 2)) * (np.abs(x) < 164) * (np.abs(x) > 16)
    tissue += 0.16 * np.exp(-(((y + 140 + 0.12 * np.abs(x)) / 6) ** 2)) * (np.abs(x) < 150)  # collar bones
    vessels = np.clip(texture(random, shape, 1.5, 1), 0, 3)
    tissue += 0.06 * lungs * vessels * np.exp(-np.abs(np.abs(x) - 40) / 50)
    for finding in there:
        side = -1 if finding.side == "right" else 1
        tissue += frontal_sign(random, finding, x, y, side, sides[side])
    return film(random, tissue)


def frontal_sign(
    random: np.random.Generator, finding: Finding, x: Volume, y: Volume, side: int, lung: Volume
) -> Volume | float:
    """What a finding of a lung or the chest wall adds to the beam's way through tissue."""
    centre = side * random.uniform(74, 100), PLACES.get(finding.place, 0.0) + random.normal(0, 8)
    if finding.name == "pleural effusion":
        level = 62 - 72 * finding.size
        meniscus = level - 0.0022 * (x - side * 60) ** 2
        return 1.05 * lung * np.clip((y - meniscus) / 12, 0, 1)
    if finding.name == "opacity":
        r = ellipsoid((x, y), centre, (36, 28)) + texture(random, lung.shape, 4, 0.3)
        return (0.45 + 0.35 * finding.size) * inside(r, 0.8) * lung
    if finding.name == "atelectasis":
        band = y - random.uniform(46, 62) - 0.25 * side * (x - side * 80)
        return 0.6 * np.exp(-((band / 5) ** 2)) * (np.abs(x - side * 84) < 42) * lung
    if finding.name == "nodule":
        return (0.65 + 0.3 * finding.size) * inside(ellipsoid((x, y), centre, [9 + 8 * finding.size] * 2), 0.3) * lung
    if finding.name == "pneumothorax":
        edge = side * x - (116 - 36 * finding.size) + 0.16 * np.clip(y + 100, -40, 220)
        return 0.18 * lung * np.exp(-((edge / 3) ** 2)) - 0.35 * lung * (edge > 0)
    if finding.name == "device":
        lead = x - side * (100 - 84 * np.clip((y + 100) / 160, 0, 1))
        box = inside(np.maximum(np.abs(x - side * 100) / 20, np.abs(y + 104) / 17), 0.1)
        return 1.5 * box + 0.6 * np.exp(-((lead / 3) ** 2)) * (y > -100) * (y < 60)
    return 0.0


def lateral(random: np.random.Generator, there: list[Finding]) -> Volume:
    """A lateral film, the front on the right, 0 to 1."""
    shape = ROWS, int(ROWS * random.uniform(0.78, 0.92))
    y, x = phantom.millimetres(shape, (SPACING, SPACING), random.normal(0, 4, 2))
    form = texture(random, shape, 14, 0.035)
    of = {finding.name: finding for finding in there}
    wide = 1.0 if "emphysema" in of else 0.0

    tissue = 2.6 * np.clip(1.1 - np.hypot(x / 150, np.maximum(y, -60) / 320) - 0.5 * form, 0, 0.8)
    r = ellipsoid((x, y), (-4, -20), (92 + 12 * wide, 126)) + form
    dome = 84 + 14 * wide - (1 - 0.8 * wide) * 0.0022 * (x - 20) ** 2 + 0.25 * np.clip(-x, 0, None)
    lung = inside(r, 0.09) * np.clip((dome - y) / 10, 0, 1)
    tissue -= (1.3 + 0.15 * wide) * lung
    heart = random.normal(66, 5) if "cardiomegaly" in of else random.normal(45, 4)
    tissue += 0.6 * inside(ellipsoid((x, y), (34, 46), (heart, 0.9 * heart)), 0.25) * (y < 100)
    tissue += (
        0.5 * inside(np.abs(x + 92 - 0.1 * np.abs(y)) / 16, 0.4) * (1 + 0.25 * np.sin(y / 26 * 2 * np.pi))
    )  # spine
    tissue += 0.3 * np.exp(-(((x - 100 + 0.0012 * y**2) / 5) ** 2)) * (y < 70)  # breastbone
    for finding in there:
        tissue += lateral_sign(random, finding, x, y, lung)
    return film(random, tissue)


def lateral_sign(random: np.random.Generator, finding: Finding, x: Volume, y: Volume, lung: Volume) -> Volume | float:
    centre = random.uniform(-50, 40), PLACES.get(finding.place, 0.0) + random.normal(0, 8)
    if finding.name == "pleural effusion":
        return 0.9 * lung * np.clip((y - 62 + 60 * finding.size + 0.35 * (x + 40)) / 12, 0, 1)
    if finding.name == "opacity":
        r = ellipsoid((x, y), centre, (36, 28)) + texture(random, lung.shape, 4, 0.3)
        return (0.45 + 0.3 * finding.size) * inside(r, 0.8) * lung
    if finding.name == "atelectasis":
        return 0.5 * np.exp(-(((y - random.uniform(46, 60) - 0.2 * x) / 5) ** 2)) * (np.abs(x + 10) < 60) * lung
    if finding.name == "nodule":
        return (0.6 + 0.3 * finding.size) * inside(ellipsoid((x, y), centre, [9 + 8 * finding.size] * 2), 0.3) * lung
    if finding.name == "device":
        box = inside(np.maximum(np.abs(x - 86) / 8, np.abs(y + 104) / 17), 0.1)
        lead = x - (80 - 50 * np.clip((y + 100) / 160, 0, 1))
        return 1.5 * box + 0.6 * np.exp(-((lead / 3) ** 2)) * (y > -100) * (y < 60)
    return 0.0


def film(random: np.random.Generator, tissue: Volume) -> Volume:
    """The grey of a film for the tissue in the beam's way: exposure, noise, a hand at the contrast."""
    grey = 1 - np.exp(-1.05 * np.clip(tissue, 0, None))
    grey += random.normal(0, 0.012, grey.shape) * (2 - grey)
    grey = blurred(grey, 0.5)
    low, high = np.percentile(grey, [1, 99])
    return np.clip((grey - low) / (high - low), 0, 1) ** random.uniform(0.85, 1.15)


# ------------------------------------------------------------------------------------------------ the expert
def gold(root: Path, seed: int) -> Index:
    """Every film whose study has findings; studies are split, not films."""
    with (root / REPORTS).open(newline="") as file:
        reports = {row["uid"]: row for row in csv.DictReader(file)}
    with (root / PROJECTIONS).open(newline="") as file:
        films = [row for row in csv.DictReader(file) if row["uid"] in reports]
    return dictation.index_of(
        root,
        (
            Reported(
                f"{IMAGES}/{film['filename']}",
                film["uid"],
                reports[film["uid"]]["findings"].strip(),
                reports[film["uid"]]["impression"].strip(),
            )
            for film in films
        ),
        seed,
    )


TASK = BenchTask(
    name="IU-Xray",
    task="report_generation",
    requests=(
        "write the report of a chest X-ray: findings and impression",
        "Draft the findings and the impression of PA and lateral chest radiographs, for the radiologist to sign.",
        "Train a model that writes radiology reports for chest X-rays. Each report needs findings and an impression. "
        "Films of one study must stay in the same split, studies without findings are to be left out, and images must "
        "not be mirrored.",
        "caption the chest x-ray pictures with the doctor's text",
        "Generate reports for these chest X-ray films. I also have knee MRI on another disk, ignore it.",
    ),
    impossible=(
        "predict how long each patient of these chest X-rays will survive",
        "segment the liver on abdominal CT",
        "register the frontal film to the chest CT of the same patient",
    ),
    labels=(),
    metric="finding F1",
    source="openi.nlm.nih.gov: chest X-rays of Indiana University (Demner-Fushman et al. 2016), 3,851 studies",
    licence="CC BY-NC-ND 4.0",
    access="Free download from Open-i, or as `chest-xrays-indiana-university` from Kaggle with an account.",
    layout=(Part(f"{IMAGES}/*.png", 7470), Part(REPORTS, 1), Part(PROJECTIONS, 1)),
    size=800,
    smallest=40,
    demo=160,
    unit="studies",
    build=build,
    gold=gold,
    facts=Facts(
        "X-ray",
        Source(kind="table", path=REPORTS, file_column="filename", files=PROJECTIONS, key="uid"),
        patient="uid",
        sided=True,
        findings="findings",
        impression="impression",
    ),
    oracle=dictation.oracle,
)
