"""A folder of PNG pictures and a table with the radiologists' reports, one row a picture."""

from m3dspy.m3bench.layouts._files import save_picture, save_table
from m3dspy.m3bench.layouts._tools import Case, Draft, Made
from m3dspy.m3bench.task import Facts
from m3dspy.signatures.values import Source

TASK, DIMS, MODALITIES = "report_generation", 2, ()
_SEEN = ("There is {sign} on the {side}.", "{Sign} is noted on the {side}.", "On the {side} {sign} is seen.")
_ELSE = ("No other finding.", "The rest is unremarkable.", "Soft tissues are normal.", "Compared with {month}, new.")
_MONTHS = ("January", "March", "June", "September", "November")


def write(draft: Draft) -> Made:
    """Some rows have no findings, one names no file; the class stands in the text alone."""
    folder, table = draft.choose("images", "films", "png"), draft.choose("reports.csv", "reports.tsv", "dictated.json")
    file, patient = draft.choose("image", "filename"), draft.choose("patient_id", "subject")
    findings, impression = draft.choose(("findings", "impression"), ("Findings", "Conclusion"), ("finding", ""))
    normal, shape = next(iter(draft.topic.names)), draft.shape
    cases, rows = [], []
    for shot in draft.shots(lambda number: f"P{number}"):
        name = f"{shot.patient}_{shot.number}.png"
        save_picture(draft.file(f"{folder}/{name}"), draft.image(shot, shape))
        said, concluded = _dictated(draft, shot.label, normal)
        if shot.place % 11 == 10:
            said = ""
        row = {
            file: name,
            patient: shot.patient,
            "indication": draft.choose("pain", "follow-up", "check"),
            findings: said,
        }
        rows.append(row | ({impression: concluded} if impression else {}))
        if said:
            concluded = concluded if impression else None
            cases.append(Case(f"{folder}/{name}", shot.patient, "", findings=said, impression=concluded))
    rows.append(rows[0] | {file: "P999_1.png"})
    save_table(draft.file(table), rows)
    concludes = f", `{impression}` what it means" if impression else ""
    about = (
        f"`{folder}` holds pictures, `{table}` has one row a picture: `{file}` is the file, `{patient}` the patient, "
        f"`{findings}` what was seen{concludes}. Leave out rows without findings. One row has no file."
    )
    draft.readme(f"The reports are in {table}.")
    kind = "json" if table.endswith("json") else "table"
    facts = Facts(
        draft.topic.modality,
        Source(kind=kind, path=table, file_column=file),
        patient,
        sided=True,
        findings=findings,
        impression=impression,
    )
    return Made(cases, (), facts, about)


def _dictated(draft: Draft, label: str, normal: str) -> tuple[str, str]:
    """Findings and impression of one image."""
    other = draft.choose(*_ELSE).format(month=draft.choose(*_MONTHS))
    if label == normal:
        return f"No abnormality. {other}", "Normal study."
    side = draft.choose("left", "right")
    seen = draft.choose(*_SEEN).format(sign=label, Sign=label.capitalize(), side=side)
    return f"{seen} {other}", f"{label.capitalize()}, {side}."
