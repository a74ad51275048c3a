"""JPEG pictures and a CSV whose column says which are for training, validation and test."""

from m3dspy.m3bench.layouts._files import save_picture, save_table
from m3dspy.m3bench.layouts._tools import Case, Draft, Made
from m3dspy.m3bench.task import Facts
from m3dspy.signatures.values import Source
from m3dspy.workspace.indexes.splitting import SPELLINGS

TASK, DIMS, MODALITIES = "classification", 2, ()


def write(draft: Draft) -> Made:
    """Three parts or two: where validation is missing, it is carved out of training."""
    folder, table = draft.choose("jpg", "images"), draft.choose("annotations.csv", "index.csv")
    column, split = draft.choose("class", "disease"), draft.choose("split", "subset", "partition")
    parts = draft.choose(("train", "val", "test"), ("train", "test"), ("Training", "Validation", "Test"))
    written = draft.spelled()
    cases, rows, shape, dealt, turn = [], [], draft.shape, {}, dict.fromkeys(written, 0)
    for shot in draft.shots(lambda number: f"p{number}"):
        if shot.patient not in dealt:
            turn[shot.label] += 1
            dealt[shot.patient] = parts[(0, -1, 0, 1 if len(parts) > 2 else 0)[turn[shot.label] % 4]]
        path, part = f"{folder}/{shot.patient}-{shot.number}.jpg", dealt[shot.patient]
        save_picture(draft.file(path), draft.image(shot, shape))
        rows.append({"filename": path, "patient": shot.patient, column: written[shot.label], split: part})
        cases.append(Case(path, shot.patient, written[shot.label], SPELLINGS[part.lower()]))
    save_table(draft.file(table), rows)
    about = (
        f"`{table}` has one row a picture of `{folder}`: `filename`, `patient`, the class in `{column}`, and in "
        f"`{split}` the official division, which must be kept."
    )
    draft.readme(f"The official division stands in the column {split} of {table}; keep it.")
    source = Source(kind="table", path=table, column=column, file_column="filename")
    return Made(cases, tuple(written.values()), Facts(draft.topic.modality, source, "patient"), about)
