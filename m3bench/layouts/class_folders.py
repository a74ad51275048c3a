"""One folder a class, PNG pictures whose names begin with the patient."""

from m3dspy.m3bench.layouts._files import save_picture
from m3dspy.m3bench.layouts._tools import Case, Draft, Made, explained
from m3dspy.m3bench.task import Facts
from m3dspy.signatures.values import Source

TASK, DIMS, MODALITIES = "classification", 2, ()


def write(draft: Draft) -> Made:
    """`data/Normal/P017_2.png`."""
    parent, word, written = draft.choose("", "data", "pictures"), draft.choose("P", "pat", ""), draft.spelled()
    cases, shape = [], draft.shape
    for shot in draft.shots(lambda number: f"{word}{number}"):
        path = f"{parent}/{written[shot.label]}/{shot.patient}_{shot.number}.png".lstrip("/")
        save_picture(draft.file(path), draft.image(shot, shape))
        cases.append(Case(path, shot.patient, written[shot.label]))
    draft.file(".thumbs/cover.png").write_bytes((draft.root / cases[0].image).read_bytes())
    meaning = f"One folder a class: {explained(written)}."
    draft.readme(meaning)
    about = f"{meaning} A file's name begins with the patient; the number after `_` counts the pictures."
    return Made(
        cases,
        tuple(written.values()),
        Facts(draft.topic.modality, Source(kind="folder", path=parent), "file name"),
        about,
    )
