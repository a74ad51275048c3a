"""NIfTI volumes and a TSV with the class in words or as 0, 1, 2, which the card or a README explains."""

import numpy as np

from m3dspy.m3bench import phantom
from m3dspy.m3bench.layouts._files import save_table
from m3dspy.m3bench.layouts._tools import Case, Draft, Made, explained
from m3dspy.m3bench.task import Facts
from m3dspy.signatures.values import Source

TASK, DIMS, MODALITIES = "classification", 3, ()


def write(draft: Draft) -> Made:
    """`scans/vol0007.nii.gz`, and `participants.tsv` with columns for scan, participant and group."""
    folder, table = draft.choose("scans", "nifti"), draft.choose("participants.tsv", "groups.tsv")
    column, (codes, labels, values) = draft.choose("group", "target", "dx"), draft.coded()
    cases, rows, shape = [], [], draft.shape
    for shot in draft.shots(lambda number: f"S{number}", each=(1, 2)):
        path = f"{folder}/vol{shot.place + 1:04d}.nii.gz"
        volume = draft.scanned(draft.image(shot, shape))
        phantom.save_nifti(draft.file(path), volume, (3, 3, 4), "RAS", (0, 0, 0), np.int16)
        rows.append(
            {"scan": path, "participant": shot.patient, "age": draft.random.integers(30, 80), column: codes[shot.label]}
        )
        cases.append(Case(path, shot.patient, labels[shot.label]))
    save_table(draft.file(table), rows)
    meaning = f"Column `{column}` of `{table}`: {explained(codes)}."
    draft.readme(meaning)
    about = f"{meaning} `{folder}` holds the volumes, `scan` names them, `participant` the person, who may come twice."
    source = Source(kind="table", path=table, column=column, file_column="scan")
    return Made(cases, tuple(labels.values()), Facts(draft.topic.modality, source, "participant", values), about)
