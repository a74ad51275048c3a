"""One folder a class, in it one folder a patient, whose PNG files are the slices of one volume."""

from m3dspy.m3bench.layouts._files import save_picture
from m3dspy.m3bench.layouts._tools import Case, Draft, Made, explained
from m3dspy.m3bench.task import Facts
from m3dspy.signatures.values import Source

TASK, DIMS, MODALITIES = "classification", 3, ()


def write(draft: Draft) -> Made:
    """`covid/pat231/slice_07.png`."""
    parent, word, written = draft.choose("", "volumes"), draft.choose("pat", "S-"), draft.spelled()
    cases, shape = [], (24, 20, 10)
    for shot in draft.shots(lambda number: f"{word}{number}", each=(1, 1)):
        volume = draft.image(shot, shape)
        folder = f"{parent}/{written[shot.label]}/{shot.patient}".lstrip("/")
        paths = tuple(f"{folder}/slice_{i + 1:02d}.png" for i in range(shape[2]))
        for i, path in enumerate(paths):
            save_picture(draft.file(path), volume[:, :, i])
        cases.append(Case(paths, shot.patient, written[shot.label]))
    meaning = f"One folder a class ({explained(written)}), below it one folder a patient with the slices of one volume."
    draft.readme(meaning)
    facts = Facts(draft.topic.modality, Source(kind="folder", path=parent), "folder")
    return Made(cases, tuple(written.values()), facts, meaning, slices=True)
