"""Single DICOM pictures in one folder, and a TSV with class and patient."""

from m3dspy.m3bench.layouts._files import save_slice, save_table
from m3dspy.m3bench.layouts._tools import Case, Draft, Made, explained
from m3dspy.m3bench.task import Facts
from m3dspy.signatures.values import Source

TASK, DIMS, MODALITIES = "classification", 2, ("X-ray",)


def write(draft: Draft) -> Made:
    """`xray/dx0017.dcm`, and `reading.tsv` with the class in words or as a code."""
    folder, table, column = (
        draft.choose("xray", "dicom"),
        draft.choose("reading.tsv", "reports.tsv"),
        draft.choose("finding", "target"),
    )
    codes, labels, values = draft.coded()
    cases, rows, shape = [], [], draft.shape
    for shot in draft.shots(lambda number: f"PT-{number}", each=(1, 3)):
        path = f"{folder}/dx{shot.place + 1:04d}.dcm"
        save_slice(
            draft.file(path),
            (draft.image(shot, shape) * 4000).round(),
            f"1.2.9.{draft.seed + 1}.{shot.place + 1}",
            1,
            "DX",
        )
        rows.append(
            {
                "dicom": path.rpartition("/")[2],
                "patient_id": shot.patient,
                "view": draft.choose("PA", "AP"),
                column: codes[shot.label],
            }
        )
        cases.append(Case(path, shot.patient, labels[shot.label]))
    save_table(draft.file(table), rows)
    meaning = f"Column `{column}` of `{table}`: {explained(codes)}."
    draft.readme(meaning)
    about = f"{meaning} `dicom` names the file in `{folder}`, `patient_id` the person."
    source = Source(kind="table", path=table, column=column, file_column="dicom")
    return Made(cases, tuple(labels.values()), Facts(draft.topic.modality, source, "patient_id", values), about)
