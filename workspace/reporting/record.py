"""The end of a report: how the run went, how it is repeated, and what its numbers do not say."""

import json
import platform
import shlex
from datetime import datetime
from importlib import metadata

from m3dspy.workspace.reporting import timeline
from m3dspy.workspace.reporting.blocks import Block, Bullets, Code, Fold, Steps, Table, Words, exactly, say
from m3dspy.workspace.reporting.committed import Committed, folds_of
from m3dspy.workspace.runs import dataset
from m3dspy.workspace.weights import file_in

PACKAGES = ("m3dspy", "torch", "monai", "lightning-fabric", "optuna", "dspy", "numpy", "nibabel", "pydicom")


def way(run: Committed) -> list[Block]:
    """The stages with their prompts, answers and repairs."""
    blocks: list[Block] = []
    if run.outcome:
        rows = [(timeline.STAGES.get(n, n), timeline.seconds(spent)) for n, spent in run.outcome.seconds.items()]
        blocks.append(Fold("Time of each stage", [Table("Stages", ("stage", "time"), rows)]))
    if not any(event["kind"] in ("repair", "back") for event in run.events):
        blocks.append(Words("Nothing had to be repaired."))
    shown, left_out = timeline.steps(run.events, run.calls)
    blocks.append(Steps(shown))
    if left_out:
        blocks.append(Words(f"{left_out} further steps are in events.jsonl and lm.jsonl."))
    return blocks


def ledger(run: Committed) -> list[Block]:
    """Who was asked, how often, at what price."""
    blocks: list[Block] = [Words(f"Compiled program: {run.outcome.program}.")] if run.outcome else []
    if {run.request.lm, *run.request.routing.values()} == {"rules"}:
        blocks.append(
            Words(
                say("No language model was asked: <code>rules</code>, the built-in expert rules, made every decision.")
            )
        )
    if not run.calls:
        return [*blocks, Words("The ledger is empty: there were no calls.")]
    return [*blocks, timeline.ledger(run.calls)]


def again(run: Committed) -> list[Block]:
    """Commands that repeat the run, the training and the prediction; versions."""
    request, here = run.request, run.folder
    options = {"--data": request.data, "--trials": request.trials, "--seed": request.seed}
    if request.folds > 1:
        options["--folds"] = request.folds
    if request.program:
        options["--program"] = here / "program"
    if not request.routing:  # --lm would overrule it
        options["--lm"] = request.lm
    if request.weights:
        options["--weights"] = request.weights
    command = ["m3dspy", "run", request.text]
    for option, value in options.items():
        command += [option, str(value)]
    blocks: list[Block] = [_command("The whole run", command)]
    if (here / "code" / "train.py").is_file():
        command = ["python", f"{here}/code/train.py", "--index", f"{here}/index.json"]
        command += ["--data", str(dataset(here, request)), "--out", "again"]
        if request.weights:
            command += ["--weights", file_in(request.weights)]
        settings = {"seed": request.seed, **(run.tuned.settings if run.tuned else {})}
        if (folds := folds_of(run)) > 1:
            settings["folds"] = folds
        command += ["--set", *(f"{name}={_spelled(value)}" for name, value in settings.items())]
        blocks.append(_command("The training alone, without m3dspy and language models", command))
    if run.outcome and run.outcome.status == "done":
        command = ["m3dspy", "predict", str(here), "IMAGES", "--out", "DIR"]
        blocks.append(_command("The model on new images", command))
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    made = f"This page was made on {datetime.now():%Y-%m-%d %H:%M} with Python {platform.python_version()} on "
    return [*blocks, Words(f"{made}{platform.system()} {platform.machine()}; {versions}.")]


def _command(about: str, words: list[str]) -> Code:
    return Code(about, [("", exactly(shlex.join(words)))])


def _spelled(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def limits(run: Committed) -> list[Block]:
    """What the reader must not conclude."""
    lines = ["For research use only: this model must not guide the care of a patient."]
    if run.outcome and run.outcome.phantom:
        lines.append("The data is a phantom: no number in this report may be quoted as clinical performance.")
    else:
        lines.append("Training and test cases come from one folder: other scanners, sites and patients were not tried.")
        lines.append("This page holds pictures and texts of the data: pass it on only where the data may go.")
    grade, plan = run.grade, run.plan
    if grade and grade.patients < 100:
        lines.append(f"The test holds only {grade.patients} patients: mind the width of the intervals.")
    if plan and plan.patient is None:
        alike = (
            "images that look alike were kept together" if plan.task != "segmentation" else "each file counts as one"
        )
        named = run.fingerprint and run.fingerprint.patients
        whose = "The plan leaves unused what names the patients" if named else "The data does not name the patients"
        lines.append(f"{whose}: {alike}. One patient may still be in training and in test.")
    if run.tuned and run.tuned.trials:
        lines.append(
            "Settings were picked on the validation cases: validation scores are too kind, the test score is not."
        )
    return [Bullets(lines)]
