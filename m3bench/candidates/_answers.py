"""Answers in the form that is asked for: see `workspace/templates`; grids are those of the sample."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m3dspy.m3bench.candidate import Assignment
from m3dspy.m3bench.release import Release
from m3dspy.signatures.values import Index
from m3dspy.workspace import sources


def released(given: Assignment) -> Release:
    """What the examiner has: only for candidates that are a part of it."""
    return Release(given.data.parent)


def folder(given: Assignment) -> Path:
    """Where the answers go."""
    predictions = given.out / "predictions"
    predictions.mkdir(parents=True, exist_ok=True)
    return predictions


def write_chances(given: Assignment, index: Index, chances: Mapping[str, Sequence[float]]) -> None:
    """`predictions.csv`. chances: case -> the probability of every label; the likeliest is the label."""
    with (folder(given) / "predictions.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "label", *index.labels])
        table.writerows([case, index.labels[int(np.argmax(row))], *row] for case, row in chances.items())


def write_reports(given: Assignment, reports: Mapping[str, Mapping[str, str]]) -> None:
    (folder(given) / "reports.json").write_text(json.dumps(reports, indent=1))


def grid(given: Assignment, case: str) -> tuple[tuple[int, ...], NDArray | None]:
    """Shape and affine of a case's mask or map; the affine is None for a picture."""
    sample = _sample(given, case)
    voxels, affine = sources.read(sample)
    return voxels.shape, affine if sample.name.endswith(".nii.gz") else None


def with_pictures(given: Assignment) -> bool:
    """Whether a mask or a map is asked for."""
    return any((given.data / "sample").glob("test-*"))


def write_picture(given: Assignment, case: str, voxels: NDArray) -> None:
    """A mask, or a map of 16-bit numbers, in the file format of the sample."""
    import nibabel
    from PIL import Image

    sample, place = _sample(given, case), folder(given)
    if sample.suffix == ".png":
        Image.fromarray(voxels).save(place / sample.name)
    else:
        affine = nibabel.load(sample).affine  # pyright: ignore[reportAttributeAccessIssue]
        nibabel.save(nibabel.Nifti1Image(voxels.astype(np.int16), affine), place / sample.name)


def _sample(given: Assignment, case: str) -> Path:
    return next((given.data / "sample").glob(f"{case}.*"))
