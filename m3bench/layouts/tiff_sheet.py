"""TIFF pictures and an Excel sheet with the class as an abbreviation and the stem of the file."""

import numpy as np

from m3dspy.m3bench.layouts._files import save_table
from m3dspy.m3bench.layouts._tools import Case, Draft, Made, explained
from m3dspy.m3bench.task import Facts
from m3dspy.signatures.values import Source

TASK, DIMS, MODALITIES = "classification", 2, ()


def write(draft: Draft) -> Made:
    """`tif/A00017.tif`, 16 bits, and `register.xlsx`; the sheet holds rows of another class too."""
    import tifffile

    folder, table, column = (
        draft.choose("tif", "slides"),
        draft.choose("register.xlsx", "cohort.xlsx"),
        draft.choose("dx_code", "class"),
    )
    written, shape = draft.topic.names, draft.shape
    cases, rows = [], []
    for shot in draft.shots(lambda number: f"7{number}"):
        name = f"A{shot.place * 7 + 10:05d}"
        tifffile.imwrite(draft.file(f"{folder}/{name}.tif"), (draft.image(shot, shape) * 4095).astype(np.uint16))
        other = shot.place % 10 == 9
        rows.append(
            {
                "key": name,
                "mrn": shot.patient,
                "hospital": draft.choose("A", "B"),
                column: "X" if other else written[shot.label],
            }
        )
        if not other:
            cases.append(Case(f"{folder}/{name}.tif", shot.patient, written[shot.label]))
    save_table(draft.file(table), rows)
    meaning = f"Codes in `{column}` of `{table}`: {explained(written)}; X was not read."
    draft.readme(meaning)
    wanted = " and ".join(f"`{short}`" for short in written.values())
    about = f"{meaning} Use only {wanted}. `key` is the stem of a file of `{folder}`, `mrn` the patient."
    source = Source(kind="table", path=table, column=column, file_column="key")
    return Made(cases, tuple(written.values()), Facts(draft.topic.modality, source, "mrn"), about)
