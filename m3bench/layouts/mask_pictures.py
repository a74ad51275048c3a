"""PNG pictures and masks in two folders, several a patient, whose name leads the file's."""

from m3dspy.m3bench.layouts._files import save_mask, save_picture
from m3dspy.m3bench.layouts._tools import Case, Draft, Made
from m3dspy.m3bench.task import Facts
from m3dspy.signatures.values import Source

TASK, DIMS, MODALITIES = "segmentation", 2, ()


def write(draft: Draft) -> Made:
    """`images/p231_1.png` and `labels/p231_1_mask.png`; the values are 1, 2 or 128, 255."""
    folder, masks, ending = (
        draft.choose("images", "photos"),
        draft.choose("labels", "annotations"),
        draft.choose("", "_mask", "_seg"),
    )
    values = draft.choose((1, 2), (128, 255))[-len(draft.topic.names) :]
    cases, shape = [], draft.shape
    for shot in draft.shots(lambda number: f"p{number}", each=(1, 3)):
        image, mask = draft.marked(shot, shape, values)
        path, drawn = (
            f"{name}.png"
            for name in (f"{folder}/{shot.patient}_{shot.number}", f"{masks}/{shot.patient}_{shot.number}{ending}")
        )
        save_picture(draft.file(path), image)
        save_mask(draft.file(drawn), mask)
        cases.append(Case(path, shot.patient, drawn))
    named = {str(value): name for value, name in zip(values, draft.topic.names, strict=True)}
    meaning = draft.legend(named)
    about = f"`{folder}` holds the pictures and `{masks}` their masks. {meaning} A file's name begins with the patient."
    facts = Facts(draft.topic.modality, Source(kind="masks"), "file name", tuple(named), sided=draft.topic.sided)
    return Made(cases, tuple(named.values()), facts, about)
