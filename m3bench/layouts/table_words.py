"""A flat folder of PNG pictures and a CSV with the class in words, the patient, and columns that lead astray."""

from m3dspy.m3bench.layouts._files import save_picture, save_table
from m3dspy.m3bench.layouts._tools import Case, Draft, Made, explained
from m3dspy.m3bench.task import Facts
from m3dspy.signatures.values import Source

TASK, DIMS, MODALITIES = "classification", 2, ()
UNCLEAR = "unclear"


def write(draft: Draft) -> Made:
    """Some rows are unclear, some have no file, a file has no row; a second table tells of the sites."""
    folder, table = draft.choose("images", "img", "pictures"), draft.choose("labels.csv", "metadata.csv", "cases.csv")
    column, patient, file = (
        draft.choose("diagnosis", "label", "finding"),
        draft.choose("patient_id", "subject"),
        draft.choose("image", "file"),
    )
    written = draft.spelled()
    cases, rows, shape = [], [], draft.shape
    for shot in draft.shots(lambda number: f"{draft.topic.region[:2].upper()}{number}"):
        name = f"scan{shot.place + 1:03d}.png"
        save_picture(draft.file(f"{folder}/{name}"), draft.image(shot, shape))
        label = UNCLEAR if shot.place % 9 == 8 else written[shot.label]
        row = {
            file: name,
            patient: shot.patient,
            "sex": draft.choose("F", "M"),
            column: label,
            "quality_class": draft.choose("good", "fair"),
        }
        if shot.place % 13 == 12:
            continue  # a file without a row
        rows.append(row)
        if label != UNCLEAR:
            cases.append(Case(f"{folder}/{name}", shot.patient, label))
    rows += [rows[0] | {file: "scan901.png"}, rows[1] | {file: "scan902.png"}, rows[2]]
    save_table(draft.file(table), rows)
    save_table(
        draft.file("sites.csv"),
        [{"site": site, "scanner": draft.choose("A", "B")} for site in ("north", "south", "west")],
    )
    about = (
        f"`{folder}` holds the pictures and `{table}` one row a picture: `{file}` is the file, `{patient}` the "
        f"patient, `{column}` the class. Leave out rows that are `{UNCLEAR}`; use only {explained(written)}. "
        "Some rows have no file, a row comes twice."
    )
    draft.readme(f"The column {column} of {table} holds the class.")
    facts = Facts(draft.topic.modality, Source(kind="table", path=table, column=column, file_column=file), patient)
    return Made(cases, tuple(written.values()), facts, about)
