"""Chest: frontal X-ray films of the chest, normal or with an opacity of the lung (the Chest set of the BMAD benchmark).

The phantom adds up what the beam passes and lets the film respond to it. Large hearts, pacemakers, tubes and
overlapping ribs are in both classes. A few abnormal films show no opacity and a few normal ones do; how many is known,
and with it the best possible score.
"""

import uuid

import numpy as np

from m3dspy.m3bench import bmad, phantom
from m3dspy.m3bench.bmad import UNGOOD, Picture, Slice, disc
from m3dspy.m3bench.phantom import Volume, blurred, inside, stream, texture

SHAPE, SPACING = (224, 224), (1.75, 1.75)  # pixels; mm


def file_name(s: Slice, random: np.random.Generator) -> str:
    lead = "Lung_Opacity_" if s.kind == UNGOOD else "Normal-"
    return f"{lead}{uuid.UUID(bytes=random.bytes(16), version=4)}.png"


def draw(s: Slice, seed: int) -> Picture:
    """A film, the patient's right on the left."""
    random = stream(seed, "chest film", s.patient, s.number)
    y, x = phantom.millimetres(SHAPE, SPACING, random.normal(0, 4, 2))
    size = random.normal(1, 0.03)
    x, y = x / size, y / size
    form = texture(random, SHAPE, 24, 0.04)

    tissue = 2.3 * np.clip(1.12 - np.hypot(x / 186, np.maximum(y, -60) / 320) - 0.5 * form, 0, 0.8)
    lungs = np.zeros(SHAPE, np.float32)
    for side in (-1, 1):
        r = disc(x, y, (side * random.uniform(76, 86), random.normal(-22, 6)), (random.uniform(58, 68), 124)) + form
        dome = 92 - 10 * (side < 0) - 20 * np.exp(-(((x - side * 76) / 50) ** 2)) + 50 * ((x - side * 76) / 200) ** 2
        lungs += inside(r, 0.09) * np.clip((dome - y) / 10, 0, 1)
    tissue -= random.uniform(0.85, 1.15) * lungs
    heart = random.uniform(64, 84)
    soft, low = random.uniform(0, 0.35), random.uniform(20, 60)
    tissue += 0.75 * inside(disc(x, y, (0.25 * heart, 60), (heart, 60)), 0.2) * (y < 112)
    for side in (-1, 1):  # breasts, or muscle
        tissue += soft * inside(disc(x, y, (side * 84, low), (62, 50)), 0.5)
    tissue += 0.55 * inside(np.abs(x) / 22, 0.5)  # mediastinum and spine
    pitch, phase = random.uniform(31, 37), random.uniform(-10, 10)
    for i in range(9):
        rib = y + 156 + phase - i * pitch - 0.0022 * (np.abs(x) - 60) ** 2
        tissue += 0.11 * np.exp(-((rib / 4.4) ** 2)) * (np.abs(x) < 164) * (np.abs(x) > 16)
    tissue += 0.16 * np.exp(-(((y + 140 + 0.12 * np.abs(x)) / 6) ** 2)) * (np.abs(x) < 150)  # collar bones
    vessels = np.clip(texture(random, SHAPE, 2.5, 1), 0, 3)
    tissue += random.uniform(0.04, 0.09) * lungs * vessels * np.exp(-np.abs(np.abs(x) - 40) / 50)
    tissue += devices(x, y, random)
    if s.shows:
        for _ in range(1 + random.poisson(1.2)):
            tissue += opacity(x, y, random) * lungs

    film = 1 - np.exp(-1.05 * np.clip(tissue, 0, None))
    film += random.normal(0, 0.012, SHAPE) * (2 - film)
    film = blurred(film, 0.5) + random.normal(0, 0.02) * x / 200 + random.normal(0, 0.02) * y / 200  # heel effect
    low, high = np.percentile(film, [1, 99])
    grey = np.clip((film - low) / (high - low), 0, 1) ** random.uniform(0.75, 1.3)
    return Picture(grey, np.zeros(SHAPE, bool))


def opacity(x: Volume, y: Volume, random: np.random.Generator) -> Volume:
    """What an airspace opacity adds to the beam's way through tissue."""
    centre = random.choice([-1, 1]) * random.uniform(55, 105), random.uniform(-70, 60)
    radii = random.uniform(24, 48, 2)
    r = disc(x, y, centre, radii, random.uniform(0, 3)) + texture(random, SHAPE, 6, 0.35)
    net = np.clip(1 + texture(random, SHAPE, 1.4, 1.0), 0, 3)  # airways and septa within it
    return random.uniform(0.5, 0.9) * inside(r, 0.8) * net


def devices(x: Volume, y: Volume, random: np.random.Generator) -> Volume | float:
    """Pacemakers, leads and tubes: as frequent in the normal films."""
    total = 0.0
    if random.random() < 0.15:
        side = random.choice([-1, 1])
        total = total + 1.3 * inside(np.maximum(np.abs(x - side * 100) / 20, np.abs(y + 104) / 17), 0.1)
        lead = x - side * (100 - 84 * np.clip((y + 100) / 160, 0, 1))
        total = total + 0.5 * np.exp(-((lead / 2.4) ** 2)) * (y > -100) * (y < 60)
    if random.random() < 0.3:
        end, at = random.uniform(-60, 20), random.uniform(-8, 8)
        total = total + 0.3 * np.exp(-(((x - at) / 2.5) ** 2)) * (y < end)
    return total


SET = bmad.Set(
    "Chest",
    "chest X-ray film",
    draw,
    file_name,
    patient=None,
    masks=False,
    slices=1,
    mixed=False,
    missed=0.06,
    alarms=0.03,
)

TASK = SET.task(
    "X-ray",
    requests=(
        "few-shot anomaly detection on chest X-ray films, 4 normal and 4 abnormal",
        "Tell normal chest films from those with an opacity by four examples of each kind.",
        "Train a few-shot anomaly detector for frontal chest X-rays with 4 normal and 4 abnormal examples. Only "
        "a score for each image is needed, the file names must not be used, and the test folder stays closed "
        "until the end.",
        "Spot the odd ones among these lung Roentgen pictures by outlier detection, from four healthy and four "
        "sick examples.",
        "Few-shot anomaly detection on chest X-ray films, 4 normal and 4 abnormal. The CT scans of the chest in "
        "the other folder are not meant.",
    ),
    impossible=(
        "segment the ribs on chest X-ray",
        "write a radiological report on each chest X-ray",
        "draw bounding boxes around the opacities on chest X-ray",
    ),
    source="github.com/DorisBao/BMAD: Chest X-ray, from the RSNA Pneumonia Detection Challenge (Bao et al. 2024)",
    licence="as the RSNA Pneumonia Detection Challenge; see github.com/DorisBao/BMAD",
    counts={"valid": 1490, "test": 17194},
)
