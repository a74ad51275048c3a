"""NIfTI volumes and masks of the same names in two folders, and a list of the structures."""

import numpy as np

from m3dspy.m3bench import phantom
from m3dspy.m3bench.layouts._tools import Case, Draft, Made
from m3dspy.m3bench.task import Facts
from m3dspy.signatures.values import Source

TASK, DIMS, MODALITIES = "segmentation", 3, ()


def write(draft: Draft) -> Made:
    """Every file is a patient; an image may have no mask."""
    folder, masks, word = (
        draft.choose("images", "img"),
        draft.choose("masks", "segmentations"),
        draft.choose("case_", "vol", ""),
    )
    cases, values = [], range(1, len(draft.topic.names) + 1)
    for shot in draft.shots(lambda number: f"{word}{number}", each=(1, 1)):
        image, mask = draft.marked(shot, draft.shape, values)
        path, drawn = f"{folder}/{shot.patient}.nii.gz", f"{masks}/{shot.patient}.nii.gz"
        phantom.save_nifti(draft.file(path), draft.scanned(image), (3, 3, 4), "RAS", (0, 0, 0), np.int16)
        if shot.place == 5:
            continue  # nobody marked it
        phantom.save_nifti(draft.file(drawn), mask, (3, 3, 4), "RAS", (0, 0, 0), np.uint8)
        cases.append(Case(path, shot.patient, drawn))
    named = {str(value): name for value, name in zip(values, draft.topic.names, strict=True)}
    phantom.save_json(draft.file("labels.json"), draft.choose({"0": "background"} | named, {"labels": named}))
    about = (
        f"`{folder}` holds one volume a patient, `{masks}` the mask of the same name, `labels.json` what the voxel "
        "values mean. One image has no mask."
    )
    return Made(
        cases,
        tuple(named.values()),
        Facts(draft.topic.modality, Source(kind="masks"), None, tuple(named), sided=draft.topic.sided),
        about,
    )
