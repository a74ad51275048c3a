"""Folders `Training` and `Testing`, of which only the first has masks."""

import numpy as np

from m3dspy.m3bench import phantom
from m3dspy.m3bench.layouts._tools import Case, Draft, Made
from m3dspy.m3bench.task import Facts
from m3dspy.signatures.values import Source

TASK, DIMS, MODALITIES = "segmentation", 3, ()


def write(draft: Draft) -> Made:
    """`Training/image/image0231.nii.gz` and `Training/label/label0231.nii.gz`; every file is a patient."""
    train, test = draft.choose(("Training", "Testing"), ("train", "test"))
    images, masks = draft.choose(("image", "label"), ("scan", "mask"))
    cases, values = [], range(1, len(draft.topic.names) + 1)
    for shot in draft.shots(lambda number: f"0{number}", each=(1, 1)):
        image, mask = draft.marked(shot, draft.shape, values)
        hidden = shot.place % 5 == 4
        path = f"{test if hidden else train}/{images}/{images}{shot.patient}.nii.gz"
        phantom.save_nifti(draft.file(path), draft.scanned(image), (2, 2, 5), "LAS", (0, 0, 0), np.int16)
        if hidden:
            continue
        drawn = f"{train}/{masks}/{masks}{shot.patient}.nii.gz"
        phantom.save_nifti(draft.file(drawn), mask, (2, 2, 5), "LAS", (0, 0, 0), np.uint8)
        cases.append(Case(path, f"{images}{shot.patient}", drawn))
    named = {str(value): name for value, name in zip(values, draft.topic.names, strict=True)}
    phantom.save_json(
        draft.file("dataset.json"),
        {"name": draft.topic.region, "labels": {"background": 0} | {name: int(value) for value, name in named.items()}},
    )
    about = (
        f"`{train}/{images}` holds the images, `{train}/{masks}` their masks with the same numbers; the images of "
        f"`{test}` have none and cannot be used. `dataset.json` names the structures. Every file is another patient."
    )
    return Made(
        cases,
        tuple(named.values()),
        Facts(draft.topic.modality, Source(kind="masks"), None, tuple(named), sided=draft.topic.sided),
        about,
    )
