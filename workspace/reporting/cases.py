"""The test cases of a report that can be looked through, worst first."""

from dataclasses import replace

from m3dspy.signatures.values import Design, Grade, Index, Item
from m3dspy.workspace import private
from m3dspy.workspace.reporting import examples, pictures, reports
from m3dspy.workspace.reporting.blocks import Block, Bullets, Views, Words
from m3dspy.workspace.reporting.committed import Committed
from m3dspy.workspace.runs import dataset

VOLUMES, PICTURES = 6, 12  # of the worst cases, and as many others
MOST_PICTURES = 2_800_000  # characters of all pictures of a page


def shown(run: Committed) -> list[Block]:
    """Images with truth and answer."""
    grade, index, design = run.grade, run.index, run.design
    if not (grade and index and design):
        return [Words("There are no predictions to show.")]
    worst, others = examples.choose(index, grade.worst, VOLUMES if design.dims == 3 else PICTURES)
    found, unread = _read(run, grade, index, design, [*worst, *others])
    if not found:
        return [Words("No case can be shown: the test images can no longer be read."), Bullets(unread)]
    marks = {"values": index.values, "overlapping": index.multilabel, "scale": pictures.heat_scale(found)}
    views = [pictures.view(case, MOST_PICTURES // len(found), **marks) for case in found]
    if index.task == "report_generation":
        written, known = reports.answers(run.folder / "predictions"), {item.id: item for item in index.test}
        views = [replace(v, texts=reports.side_by_side(known[v.title], written)) for v in views]
    if index.task == "anomaly_detection":
        about = "Above each: its true class → the model's answer and the image's score. "
        about += "The map of scores is transparent where they are low; green: above the pixel threshold."
        key = [(pictures.CONTOUR, "above the pixel threshold")]
        if any(case.truth is not None for case in found):
            about += " Blue: what the expert marked."
            key.append((pictures.TRUTH, "what the expert marked"))
    elif index.task == "report_generation":
        about, key = "Below each: the radiologist's report beside the model's.", []
    elif index.task == "classification":
        about, key = "Above each: its true class → the model's answer and its probability.", []
    else:
        about = "Each begins at the slice that shows the structures best. Outlined: the expert; filled: the model."
        colours = pictures.COLOURS
        key = [(colours[n % len(colours)], name) for n, name in enumerate(index.labels)]
    chosen = f"the {len(worst)} worst, then {len(others)} others spread evenly over the test list"
    some = (
        f"Of {len(index.test)} test cases these are {chosen}." if others else "These are all test cases, worst first."
    )
    some += " Pictures are reduced in size"
    some += f", and of a volume {pictures.MOST_SLICES} slices are here at most." if design.dims == 3 else "."
    if any(case.image.left for case in found):
        about += " R and A mark the patient's right and front."
    hiding = "Identifiers that were found in the data are replaced by tokens; private.json in the run folder has them."
    told = [Words(hiding)] if private.current().values else []
    return [Words(some), Words(about), *told, Views(key, views), Bullets(unread)]


def _read(
    run: Committed, grade: Grade, index: Index, design: Design, items: list[Item]
) -> tuple[list[pictures.Case], list[str]]:
    """Cases that can be shown, and what keeps others from it."""
    root, predictions = dataset(run.folder, run.request), run.folder / "predictions"
    rows, found, unread = examples.answers(predictions), [], []
    for item in items:
        missing = item.id in grade.missing
        try:
            if index.task == "anomaly_detection":
                given = (None, None) if missing else (rows.get(item.id), predictions)
                found.append(examples.mapped(item, index, design, root, *given))
            elif index.task == "report_generation":
                found.append(examples.plain(item, design, root))
            elif index.task == "classification":
                found.append(examples.classified(item, index, design, root, None if missing else rows.get(item.id)))
            else:
                found.append(examples.segmented(item, index, design, root, None if missing else predictions))
        except (OSError, ValueError) as error:
            unread.append(f"{item.id} cannot be shown: {error}")
    return found, unread
