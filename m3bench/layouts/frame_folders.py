"""One folder a patient, in it a folder of JPEG frames and one of PNG masks."""

from m3dspy.m3bench.layouts._files import save_mask, save_picture
from m3dspy.m3bench.layouts._tools import Case, Draft, Made
from m3dspy.m3bench.task import Facts
from m3dspy.signatures.values import Source

TASK, DIMS, MODALITIES = "segmentation", 2, ()


def write(draft: Draft) -> Made:
    """`sub-231/image/2.jpg` and `sub-231/mask/2.png`."""
    word, images, masks = draft.choose("sub-", "eye"), draft.choose("image", "images"), draft.choose("mask", "gt")
    cases, shape, values = [], draft.shape, range(1, len(draft.topic.names) + 1)
    for shot in draft.shots(lambda number: f"{word}{number}", each=(2, 3)):
        image, mask = draft.marked(shot, shape, values)
        path, drawn = f"{shot.patient}/{images}/{shot.number}.jpg", f"{shot.patient}/{masks}/{shot.number}.png"
        save_picture(draft.file(path), image)
        save_mask(draft.file(drawn), mask)
        cases.append(Case(path, shot.patient, drawn))
    named = {str(value): name for value, name in zip(values, draft.topic.names, strict=True)}
    meaning = draft.legend(named)
    about = f"One folder a patient with `{images}` and `{masks}`; a frame and its mask have the same number. {meaning}"
    facts = Facts(draft.topic.modality, Source(kind="masks"), "folder", tuple(named), sided=draft.topic.sided)
    return Made(cases, tuple(named.values()), facts, about)
