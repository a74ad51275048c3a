"""PNG pictures in a folder of normal and a folder of abnormal ones, with or without masks and an official test."""

from m3dspy.m3bench.layouts._files import save_mask, save_picture
from m3dspy.m3bench.layouts._tools import Case, Draft, Made
from m3dspy.m3bench.task import Facts
from m3dspy.signatures.values import ABNORMAL, NORMAL, Source

TASK, DIMS, MODALITIES = "anomaly_detection", 2, ()


def write(draft: Draft) -> Made:
    """`train/good/p231_1.png`, `train/bad/p402_2.png`, `train/masks/p402_2.png`; the same three folders in `test`."""
    names = draft.choose(
        ("good", "bad"),
        ("normal", "abnormal"),
        ("Normal", "Anomaly"),
        ("healthy", "diseased"),
        ("OK", "NG"),
        ("negative", "positive"),
    )
    folders = dict(zip(draft.topic.names, names, strict=True))
    pool, test = draft.choose(
        ("train", "test"), ("valid", "test"), ("pool", "test"), ("Training", "Testing"), ("", ""), ("data", "")
    )
    masks, ending = draft.choose(("masks", ""), ("labels", "_mask"), ("anomaly_mask", ""), ("", ""), ("", ""))
    word, value = draft.choose("P", "pat", ""), draft.choose(1, 255)
    shape = tuple(int(n) for n in draft.random.integers(120, 161, 2))  # half or more of the 240 that MVFA sees
    shots = draft.shots(lambda number: f"{word}{number}", each=(2, 4))
    people = list(dict.fromkeys(shot.patient for shot in shots))
    cases = []
    for shot in shots:
        graded = bool(test) and people.index(shot.patient) // 2 % 3 == 2  # the kinds alternate: a third of each
        part, name = test if graded else pool, f"{shot.patient}_{shot.number}"
        image, blob = draft.anomalous(shot, shape)
        path = f"{part}/{folders[shot.label]}/{name}.png".lstrip("/")
        mask = f"{part}/{masks}/{name}{ending}.png".lstrip("/") if masks and shot.label == ABNORMAL else None
        save_picture(draft.file(path), image)
        if mask:
            save_mask(draft.file(mask), blob * value)
        cases.append(Case(path, shot.patient, shot.label, "test" if graded else None, mask))
    meaning = (
        f"About: `{draft.topic.about}`. The pictures in `{folders[NORMAL]}` are normal, those in "
        f"`{folders[ABNORMAL]}` are abnormal."
    )
    if test:
        meaning += f" Examples to learn from are in `{pool}`, the official test cases in `{test}`."
    if masks:
        meaning += f" `{masks}` beside them marks what is abnormal, every value above 0; normal pictures have no mask."
    draft.readme(meaning)
    about = f"{meaning} A file's name begins with the patient; the number after `_` counts the pictures."
    facts = Facts(draft.topic.modality, Source(kind="folder", path=pool), "file name", names)
    return Made(cases, (NORMAL, ABNORMAL), facts, about)
