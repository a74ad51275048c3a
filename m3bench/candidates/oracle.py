"""The answers themselves: what a perfect reader of the labels would submit.

On a phantom it is above the best that the images allow, where labels are noisy, and is flagged as such.
"""

import shutil

import numpy as np

from m3dspy.m3bench.candidate import Assignment, Submission
from m3dspy.m3bench.candidates._answers import (
    folder,
    grid,
    released,
    with_pictures,
    write_chances,
    write_picture,
    write_reports,
)
from m3dspy.workspace import sources


def candidate(given: Assignment) -> Submission:
    """The upper bound. It reads the private folder, which no sandbox shows."""
    release = released(given)
    index = release.index()
    if index.task == "report_generation":
        write_reports(
            given, {i.id: {"findings": i.findings or "", "impression": i.impression or ""} for i in index.test}
        )
    elif index.task == "segmentation":
        for item in index.test:
            mask = release.home / str(item.label)
            shutil.copyfile(mask, folder(given) / f"{item.id}{'.png' if mask.suffix == '.png' else '.nii.gz'}")
    else:
        held = {item.id: item.label if isinstance(item.label, tuple) else (item.label,) for item in index.test}
        write_chances(given, index, {case: [float(name in has) for name in index.labels] for case, has in held.items()})
        for item in index.test if with_pictures(given) else ():
            voxels = sources.read(release.home / item.mask)[0] > 0 if item.mask else np.zeros(grid(given, item.id)[0])
            write_picture(given, item.id, (voxels * 65535).astype(np.uint16))
    return Submission(program="oracle")
