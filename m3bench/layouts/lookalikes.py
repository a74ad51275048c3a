"""One folder a class, JPEG pictures numbered in one row: nothing names the patient, whose pictures look alike."""

from m3dspy.m3bench.layouts._files import save_picture
from m3dspy.m3bench.layouts._tools import Case, Draft, Made, explained
from m3dspy.m3bench.task import Facts
from m3dspy.signatures.values import Source

TASK, DIMS, MODALITIES = "classification", 2, ()


def write(draft: Draft) -> Made:
    """`Benign/Benign (14).jpg`."""
    parent, written, shape = draft.choose("", "Images"), draft.spelled(), (48, 48)
    cases, first, count = [], {}, dict.fromkeys(written, 0)
    for shot in draft.shots(each=(2, 4)):
        count[shot.label] += 1
        name = f"{written[shot.label]} ({count[shot.label]})"
        path = f"{parent}/{written[shot.label]}/{name}.jpg".lstrip("/")
        save_picture(draft.file(path), draft.image(shot, shape, alike=True))
        cases.append(
            Case(
                path, first.setdefault(shot.patient, f"{written[shot.label]}-{count[shot.label]}"), written[shot.label]
            )
        )
    meaning = f"One folder a class: {explained(written)}."
    draft.readme(meaning)
    about = (
        f"{meaning} Nothing names the patient; pictures of one patient nearly repeat each other and must stay together."
    )
    return Made(cases, tuple(written.values()), Facts(draft.topic.modality, Source(kind="folder", path=parent)), about)
