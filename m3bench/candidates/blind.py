"""Guesses without a look at the images, as often as in training: what a broken model does that looks as if it worked.

Classes and scores are drawn, masks and maps are those of other patients, and every image has the same report, as those
of M3Builder's generator have, which never attends to its image.
"""

import numpy as np

from m3dspy.m3bench import masks
from m3dspy.m3bench.candidate import Assignment, Submission
from m3dspy.m3bench.candidates import dummy
from m3dspy.m3bench.candidates._answers import grid, released, with_pictures, write_chances, write_picture
from m3dspy.workspace import sources


def candidate(given: Assignment) -> Submission:
    """S1 is reached; S2 by chance alone, in about one round of twenty at most."""
    release = released(given)
    index, random = release.index(), np.random.default_rng(given.seed)
    if index.task == "report_generation":
        dummy.candidate(given)
    elif index.task == "segmentation":
        for item in index.test:
            other = index.training[random.integers(len(index.training))]
            mask = masks.along_patient(*masks.read_truth(other, release.home))
            shape, affine = grid(given, item.id)
            there = masks.fitted(mask, masks.along_patient(np.empty(shape, np.uint8), affine).shape)
            there = np.where(np.isin(there, index.values), there, 0)
            write_picture(given, item.id, masks.along_image(there, affine).astype(np.uint16))
    else:
        often = dummy.shares(index).clip(1e-3)
        write_chances(given, index, {item.id: random.dirichlet(often * len(often)).tolist() for item in index.test})
        others = [item.mask for item in index.training if item.mask]
        for item in index.test if with_pictures(given) else ():
            mask = sources.read(release.home / others[random.integers(len(others))])[0] > 0
            write_picture(given, item.id, masks.fitted(mask, grid(given, item.id)[0]).astype(np.uint16) * 65535)
    return Submission(program="blind")
