"""One folder a patient, in it the NIfTI image and its mask."""

import numpy as np

from m3dspy.m3bench import phantom
from m3dspy.m3bench.layouts._tools import Case, Draft, Made
from m3dspy.m3bench.task import Facts
from m3dspy.signatures.values import Source

TASK, DIMS, MODALITIES = "segmentation", 3, ()


def write(draft: Draft) -> Made:
    """`patient231/image.nii.gz` and `patient231/mask.nii.gz`."""
    parent, word, image_name, mask_name = (
        draft.choose("", "cases"),
        draft.choose("patient", "case_"),
        draft.choose("image", "scan"),
        draft.choose("mask", "seg"),
    )
    cases, values = [], range(1, len(draft.topic.names) + 1)
    for shot in draft.shots(lambda number: f"{word}{number}", each=(1, 1)):
        image, mask = draft.marked(shot, draft.shape, values)
        here = f"{parent}/{shot.patient}".lstrip("/")
        path, drawn = f"{here}/{image_name}.nii.gz", f"{here}/{mask_name}.nii.gz"
        phantom.save_nifti(draft.file(path), draft.scanned(image), (3, 3, 4), "LPS", (0, 0, 0), np.int16)
        phantom.save_nifti(draft.file(drawn), mask, (3, 3, 4), "LPS", (0, 0, 0), np.uint8)
        cases.append(Case(path, shot.patient, drawn))
    named = {str(value): name for value, name in zip(values, draft.topic.names, strict=True)}
    meaning = draft.legend(named)
    about = f"One folder a patient with `{image_name}.nii.gz` and `{mask_name}.nii.gz`. {meaning}"
    return Made(
        cases,
        tuple(named.values()),
        Facts(draft.topic.modality, Source(kind="masks"), "folder", tuple(named), sided=draft.topic.sided),
        about,
    )
