"""What a made-up dataset is about, and the words in which it is asked for, or in which something else is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from m3dspy.signatures.values import ABNORMAL, NORMAL, Task


@dataclass(frozen=True)
class Topic:
    """A clinical question.

    region: of the body.  images: as a clinician calls them.  names: class or structure -> its abbreviation.
    absent: classes or structures of the same region that the data does not hold.
    about: in an anomaly detection, what every image shows, as a caption would say it.
    """

    region: str
    modality: str
    images: str
    names: Mapping[str, str]
    absent: tuple[str, ...] = ()
    about: str = ""

    @property
    def sided(self) -> bool:
        return any(name.startswith(("left ", "right ")) for name in self.names)


CLASSES_2D = (
    Topic("chest", "X-ray", "chest X-rays", {"normal": "N", "pneumonia": "PNA"}, ("rib fracture", "pneumothorax")),
    Topic(
        "chest",
        "X-ray",
        "chest radiographs",
        {"normal": "NL", "effusion": "PE", "cardiomegaly": "CM"},
        ("scoliosis", "rib fracture"),
    ),
    Topic(
        "eye",
        "OCT",
        "retinal OCT scans",
        {"normal": "NOR", "drusen": "DRU", "edema": "DME"},
        ("retinal detachment", "macular hole"),
    ),
    Topic("eye", "photograph", "fundus photographs", {"healthy": "H", "glaucoma": "G"}, ("retinoblastoma", "cataract")),
    Topic(
        "breast",
        "ultrasound",
        "breast ultrasound images",
        {"benign": "B", "malignant": "M"},
        ("mastitis", "implant rupture"),
    ),
    Topic("skin", "photograph", "dermoscopy photographs", {"nevus": "NV", "melanoma": "MEL"}, ("psoriasis", "eczema")),
    Topic("knee", "X-ray", "knee radiographs", {"healthy": "HC", "arthrosis": "OA"}, ("fracture", "gout")),
)
CLASSES_3D = (
    Topic("brain", "MR", "brain MRI volumes", {"glioma": "GLI", "metastasis": "MET"}, ("multiple sclerosis", "stroke")),
    Topic(
        "brain",
        "MR",
        "T1-weighted MRI of the head",
        {"control": "HC", "dementia": "DEM"},
        ("schizophrenia", "epilepsy"),
    ),
    Topic(
        "chest",
        "CT",
        "chest CT scans",
        {"covid": "NCP", "normal": "NC", "bacterial pneumonia": "CP"},
        ("tuberculosis", "lung embolism"),
    ),
    Topic("abdomen", "CT", "liver CT volumes", {"cirrhosis": "CIR", "healthy": "HL"}, ("hemangioma", "abscess")),
    Topic("pelvis", "MR", "prostate MRI", {"benign": "BEN", "cancer": "PCA"}, ("prostatitis", "bladder stone")),
)
MASKS_2D = (
    Topic(
        "eye", "photograph", "fundus photographs", {"optic disc": "OD", "optic cup": "OC"}, ("hemorrhages", "vessels")
    ),
    Topic("breast", "ultrasound", "breast ultrasound images", {"lesion": "L"}, ("lymph nodes", "milk ducts")),
    Topic("chest", "X-ray", "chest X-rays", {"left lung": "LL", "right lung": "RL"}, ("clavicles", "heart")),
    Topic("skin", "photograph", "dermoscopy photographs", {"melanoma": "MEL"}, ("hairs", "blood vessels")),
)
MASKS_3D = (
    Topic("abdomen", "CT", "abdominal CT volumes", {"liver": "LI", "spleen": "SP"}, ("pancreas", "gallbladder")),
    Topic(
        "abdomen", "CT", "CT scans of the abdomen", {"left kidney": "LK", "right kidney": "RK"}, ("stomach", "pancreas")
    ),
    Topic("brain", "MR", "brain MRI", {"edema": "ED", "enhancing tumor": "ET"}, ("hippocampus", "ventricles")),
    Topic(
        "heart",
        "MR",
        "cardiac MR volumes",
        {"left ventricle": "LV", "right ventricle": "RV"},
        ("coronary arteries", "aorta"),
    ),
    Topic("pelvis", "MR", "prostate MRI", {"prostate": "PR"}, ("bladder", "rectum")),
)
_KINDS = {str(NORMAL): "N", str(ABNORMAL): "A"}
ANOMALIES_2D = (
    Topic("chest", "X-ray", "chest X-rays", _KINDS, about="chest X-ray"),
    Topic("eye", "photograph", "fundus photographs", _KINDS, about="fundus photograph"),
    Topic("breast", "ultrasound", "breast ultrasound images", _KINDS, about="breast ultrasound"),
    Topic("skin", "photograph", "photographs of the skin", _KINDS, about="skin photograph"),
    Topic("knee", "MR", "knee MRI slices", _KINDS, about="knee MR"),
    Topic("spine", "X-ray", "radiographs of the spine", _KINDS, about="spine X-ray"),
    Topic("abdomen", "CT", "CT slices of the kidneys", _KINDS, about="kidney CT"),
)
REPORTS_2D = tuple(topic for topic in CLASSES_2D if topic.region in ("chest", "knee", "breast"))
TOPICS: dict[tuple[Task, int], tuple[Topic, ...]] = {
    ("classification", 2): CLASSES_2D,
    ("classification", 3): CLASSES_3D,
    ("segmentation", 2): MASKS_2D,
    ("segmentation", 3): MASKS_3D,
    ("anomaly_detection", 2): ANOMALIES_2D,
    ("report_generation", 2): REPORTS_2D,
}
_CLASSIFY = (
    "tell {names} apart on {images}",
    "Train a classifier for {images}: {names}.",
    "We want a model that recognises {names} in {images}.",
    "Please build a network which diagnoses {names} from {images}.",
    "Can a model distinguish {names} on {images}? Make one from this folder.",
    "{images}: predict which of {names} is shown",
)
_SEGMENT = (
    "segment the {names} on {images}",
    "Outline {names} in these {images}.",
    "I need a model that delineates {names} on {images}.",
    "Mark the {names} in {images}, please.",
    "Train a network for contouring {names}; the data are {images}.",
    "Pixel-wise masks of {names} are needed for new {images}.",
)
_DETECT = (
    "few-shot anomaly detection on {images}, {shots} normal and {shots} abnormal",
    "Find what is abnormal in {images} from {shots} examples of each kind.",
    "We want to detect anomalies in {images}; take {shots} healthy and {shots} diseased ones to learn from.",
    "{Word}-shot anomaly detection for {images}, please.",
    "Can a model spot outliers among {images} after {word} examples of both kinds?",
    "Learn from {word} normal and {word} abnormal {images} to detect anomalies in new ones.",
)
_REPORT = (
    "write the radiology report of {images}",
    "Draft the findings for {images}, as a radiologist would dictate them.",
    "We need a model that generates reports of {images}.",
    "Train a report generator on these {images}.",
    "Put into words what {images} show: a report for each.",
)
_ZERO_SHOT = (
    "zero-shot anomaly detection on {images}",
    "Detect anomalies in {images} zero-shot: without a single example of ours.",
)
SHOTS = {2: "two", 4: "four"}  # of each kind, in words
_STATES = ("diseased", "healthy")
_OTHER_TASKS = (
    "write a radiology report for each of these {images}",
    "Estimate the patient's age in years by regression on {images}.",
    "denoise {images} so that a quarter of the dose is enough",
    "Register the {images} of each patient to one another.",
    "Draw bounding boxes around every finding in {images} and count them.",
)


def topic(task: Task, dims: int, random: np.random.Generator, modalities: Sequence[str] = ()) -> Topic:
    """A topic for a layout. Args: modalities: those its format can hold; () for any."""
    fits = [topic for topic in TOPICS[task, dims] if not modalities or topic.modality in modalities]
    return fits[random.integers(len(fits))]


def ask(task: Task, names: Sequence[str], images: str, random: np.random.Generator) -> str:
    """A request for these classes or structures."""
    phrases = _CLASSIFY if task == "classification" else _SEGMENT
    return phrases[random.integers(len(phrases))].format(names=_and(names), images=images)


def ask_to_detect(images: str, shots: int, random: np.random.Generator) -> str:
    """A request for anomaly detection. Args: shots: of each kind, one of SHOTS."""
    phrase, word = _DETECT[random.integers(len(_DETECT))], SHOTS[shots]
    return phrase.format(images=images, shots=shots, word=word, Word=word.capitalize())


def ask_to_report(images: str, random: np.random.Generator) -> str:
    """A request for reports."""
    return _REPORT[random.integers(len(_REPORT))].format(images=images)


def ask_in_vain(task: Task, about: Topic, random: np.random.Generator) -> str:
    """A request that a folder about this topic cannot serve: another subject, other labels, another kind of task."""
    if task == "anomaly_detection":
        return _detect_in_vain(about, random)
    if task == "report_generation":
        return _report_in_vain(about, random)
    other: Task = "segmentation" if task == "classification" else "classification"
    match ("subject", "labels", "kind", "task")[random.integers(4)]:
        case "subject":
            topics = [t for key, group in sorted(TOPICS.items()) if key[0] == task for t in group]
            foreign = [t for t in topics if t.region != about.region and not set(t.names) & set(about.names)]
            chosen = foreign[random.integers(len(foreign))]
            return ask(task, list(chosen.names), chosen.images, random)
        case "labels":
            return ask(task, about.absent, about.images, random)
        case "kind":
            return ask(other, about.absent if other == "segmentation" else _STATES, about.images, random)
        case _:
            return _OTHER_TASKS[random.integers(len(_OTHER_TASKS))].format(images=about.images)


def _detect_in_vain(about: Topic, random: np.random.Generator) -> str:
    """Another subject, zero-shot, or another kind of task."""
    match ("subject", "zero-shot", "task")[random.integers(3)]:
        case "subject":
            foreign = [topic for topic in ANOMALIES_2D if topic.region != about.region]
            return ask_to_detect(foreign[random.integers(len(foreign))].images, random.choice(list(SHOTS)), random)
        case "zero-shot":
            return _ZERO_SHOT[random.integers(len(_ZERO_SHOT))].format(images=about.images)
        case _:
            return _OTHER_TASKS[random.integers(len(_OTHER_TASKS))].format(images=about.images)


def _report_in_vain(about: Topic, random: np.random.Generator) -> str:
    """Another subject, or another kind of task."""
    if random.random() < 0.5:
        foreign = [topic for topic in CLASSES_3D if topic.region != about.region]
        return ask_to_report(foreign[random.integers(len(foreign))].images, random)
    return _OTHER_TASKS[random.integers(1, len(_OTHER_TASKS))].format(images=about.images)


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
