"""A flat folder of NPZ files, image and mask side by side, two scans of some patients."""

import numpy as np

from m3dspy.m3bench.layouts._tools import Case, Draft, Made
from m3dspy.m3bench.task import Facts
from m3dspy.signatures.values import Source

TASK, DIMS, MODALITIES = "segmentation", 3, ()


def write(draft: Draft) -> Made:
    """`P231_1_image.npz` and `P231_1_seg.npz`; only one card or README says what the values mean."""
    parent, image_word, mask_word = draft.choose("", "npz/"), draft.choose("image", "scan"), draft.choose("seg", "mask")
    cases, values = [], draft.choose((1, 2), (2, 5))[: len(draft.topic.names)]
    for shot in draft.shots(lambda number: f"P{number}", each=(1, 2)):
        image, mask = draft.marked(shot, draft.shape, values)
        path, drawn = (f"{parent}{shot.patient}_{shot.number}_{word}.npz" for word in (image_word, mask_word))
        np.savez_compressed(draft.file(path), data=draft.scanned(image))
        np.savez_compressed(draft.file(drawn), data=mask)
        cases.append(Case(path, shot.patient, drawn))
    named = {str(value): name for value, name in zip(values, draft.topic.names, strict=True)}
    meaning = draft.legend(named)
    about = (
        f"Files that end in `{image_word}` are images, those in `{mask_word}` masks. {meaning} "
        "A name begins with the patient."
    )
    facts = Facts(draft.topic.modality, Source(kind="masks"), "file name", tuple(named), sided=draft.topic.sided)
    return Made(cases, tuple(named.values()), facts, about)
