"""The trivial answer to every case: the shares of the classes, the mean mask, the most frequent report."""

from collections import Counter

import numpy as np

from m3dspy.m3bench import masks
from m3dspy.m3bench.candidate import Assignment, Submission
from m3dspy.m3bench.candidates._answers import (
    grid,
    released,
    with_pictures,
    write_chances,
    write_picture,
    write_reports,
)
from m3dspy.m3bench.release import Release
from m3dspy.signatures.values import Index


def candidate(given: Assignment) -> Submission:
    """S1 is reached, S2 never."""
    release = released(given)
    index = release.index()
    if index.task == "report_generation":
        report = usual_report(index)
        write_reports(given, {item.id: report for item in index.test})
    elif index.task == "segmentation":
        _write_mean_masks(given, release, index)
    else:
        chances = list(shares(index))
        write_chances(given, index, {item.id: chances for item in index.test})
        for item in index.test if with_pictures(given) else ():
            write_picture(given, item.id, np.zeros(grid(given, item.id)[0], np.uint16))
    return Submission(program="dummy")


def shares(index: Index) -> np.ndarray:
    """(labels,): how often each label comes in the training cases."""
    held = Counter(label for item in index.training for label in _labels(item.label))
    counts = np.array([held[label] for label in index.labels], float)
    return counts / (len(index.training) if index.multilabel else counts.sum())


def _labels(label: object) -> tuple[str, ...]:
    return label if isinstance(label, tuple) else (str(label),)


def usual_report(index: Index) -> dict[str, str]:
    """The report that comes most often in the training cases."""
    reports = Counter((item.findings or "", item.impression or "") for item in index.training)
    findings, impression = reports.most_common(1)[0][0]
    return {"findings": findings, "impression": impression}


def _write_mean_masks(given: Assignment, release: Release, index: Index) -> None:
    means = masks.mean_masks(index, release.home)
    for item in index.test:
        shape, affine = grid(given, item.id)
        there = masks.fitted(means, masks.along_patient(np.empty(shape, np.uint8), affine).shape)
        write_picture(given, item.id, masks.along_image(there, affine).astype(np.uint8))
