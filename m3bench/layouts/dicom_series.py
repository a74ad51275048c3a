"""DICOM series, a folder a scan, and a CSV that names the folders."""

from m3dspy.m3bench.layouts._files import save_slice, save_table
from m3dspy.m3bench.layouts._tools import Case, Draft, Made, explained
from m3dspy.m3bench.task import Facts
from m3dspy.signatures.values import Source

TASK, DIMS, MODALITIES = "classification", 3, ("CT", "MR")


def write(draft: Draft) -> Made:
    """`dicom/scan0231/IM07.dcm`; patients came once or twice."""
    folder, table, column, written = (
        draft.choose("dicom", "series"),
        draft.choose("scans.csv", "worklist.csv"),
        draft.choose("diagnosis", "class"),
        draft.spelled(),
    )
    cases, rows, shape = [], [], (16, 12, 8)
    for shot in draft.shots(lambda number: f"MR{number}", each=(1, 2)):
        scan = f"scan{1000 + shot.place}"
        volume = draft.scanned(draft.image(shot, shape))
        paths = [f"{folder}/{scan}/IM{i + 1:02d}.dcm" for i in range(shape[2])]
        for i, path in enumerate(paths):
            save_slice(
                draft.file(path),
                volume[:, :, i].T,
                f"1.2.3.{draft.seed + 1}.{shot.place + 1}",
                i + 1,
                draft.topic.modality,
            )
        rows.append({"scan": scan, "patient": shot.patient, column: written[shot.label]})
        cases.append(Case(tuple(paths), shot.patient, written[shot.label]))
    save_table(draft.file(table), rows)
    meaning = f"`{column}` in `{table}` is the class: {explained(written)}."
    draft.readme(meaning)
    about = (
        f"{meaning} `scan` is the name of a folder of `{folder}`, which is one volume; `patient` came once or twice."
    )
    source = Source(kind="table", path=table, column=column, file_column="scan")
    return Made(cases, tuple(written.values()), Facts(draft.topic.modality, source, "patient"), about, slices=True)
