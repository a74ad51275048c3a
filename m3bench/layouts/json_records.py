"""NPY volumes whose names begin with the patient, and a JSON list of records with the class."""

import numpy as np

from m3dspy.m3bench.layouts._files import save_table
from m3dspy.m3bench.layouts._tools import Case, Draft, Made, explained
from m3dspy.m3bench.task import Facts
from m3dspy.signatures.values import Caps, Source

TASK, DIMS, MODALITIES = "classification", 3, ()


def write(draft: Draft) -> Made:
    """`volumes/sub231_ses1.npy`; a card may cap the cases."""
    folder, table = draft.choose("volumes", "arrays"), draft.choose("records.json", "labels.json")
    column, written = draft.choose("label", "category"), draft.spelled()
    cases, rows, shape = [], [], draft.shape
    for shot in draft.shots(lambda number: f"sub{number}", each=(1, 3)):
        name = f"{shot.patient}_ses{shot.number}"
        np.save(draft.file(f"{folder}/{name}.npy"), draft.scanned(draft.image(shot, shape)))
        rows.append({"id": name, column: written[shot.label], "slice_mm": float(draft.choose(3, 4))})
        cases.append(Case(f"{folder}/{name}.npy", shot.patient, written[shot.label]))
    save_table(draft.file(table), rows)
    caps = Caps(training=draft.choose(12, 16), test=draft.choose(4, 6)) if draft.carded else Caps()
    meaning = f"`{column}` in `{table}` is the class: {explained(written)}."
    draft.readme(meaning)
    about = (
        f"{meaning} `id` is the name of the file in `{folder}`, which begins with the patient. "
        f"Take at most {caps.training} training and {caps.test} test volumes."
    )
    source = Source(kind="table", path=table, column=column, file_column="id")
    return Made(cases, tuple(written.values()), Facts(draft.topic.modality, source, "file name", caps=caps), about)
