"""A finished run in plain words: `report.md` and its figures, for the researcher who has to judge the model.

Everything is read from what the run committed; no model is loaded. What a run does not have (tuning off, no control, a
stage that was not reached) is said in words.
"""

import json
import platform
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from m3dspy.signatures.values import (
    SPLITS,
    Design,
    Fingerprint,
    Index,
    Outcome,
    PatientKey,
    Plan,
    Request,
    Tuned,
)
from m3dspy.workspace.reporting import anomalies, examples, figures, heat, reports
from m3dspy.workspace.reporting.prose import fenced, figure, interval, table, text
from m3dspy.workspace.runs import Run, dataset, write_atomic

V = TypeVar("V")

TRIALS_SHOWN = 30
EXAMPLES = 3  # of the worst cases, and as many others
PACKAGES = ("m3dspy", "torch", "monai", "lightning", "optuna", "dspy", "numpy", "nibabel", "pydicom")


@dataclass(frozen=True)
class Finished:
    """What a run committed; None for a stage that was not reached."""

    folder: Path
    events: list[dict]
    request: Request
    outcome: Outcome
    fingerprint: Fingerprint | None
    plan: Plan | None
    index: Index | None
    design: Design | None
    tuned: Tuned | None

    @property
    def figures(self) -> Path:
        return self.folder / "figures"


def report(run_folder: Path) -> Path:
    """Write `report.md` and `figures/*.png` into the folder of a run that has ended.

    Returns: the path of `report.md`, which is written last and whole.
    Raises:  M3Error: the run has no outcome yet, or one of its files is damaged.
    """
    run = Run(run_folder)

    def reached(name: str, kind: type[V]) -> V | None:
        return run.load(name, kind) if run.has(name) else None

    finished = Finished(
        run.folder,
        list(run.events()),
        run.load("request", Request),
        run.load("outcome", Outcome),
        reached("fingerprint", Fingerprint),
        reached("plan", Plan),
        reached("index", Index),
        reached("design", Design),
        reached("tuned", Tuned),
    )
    sections = (_head, _outcome, _plan, _data, _design, _training, _tuning, _results, _examples, _way, _ledger, _again)
    lines = [line for section in (*sections, _limits) for line in (*section(finished), "")]
    path = run.folder / "report.md"
    write_atomic(path, "\n".join(lines).encode())
    return path


def _size(values: Iterable[float]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counts.items()) or "not known"


def _setting(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_setting, value)) or "none"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _head(run: Finished) -> list[str]:
    lines = [f"# {text(run.plan.goal if run.plan else run.request.text)}", ""]
    lines += ["**For research use only. Not a medical device.**", ""]
    if run.outcome.phantom:
        lines += [
            "> **PHANTOM DATA.** The images are made up. The scores show that the pipeline works; they say nothing "
            "about patients.",
            "",
        ]
    if run.plan and run.plan.task == "anomaly_detection" and run.request.weights is None:
        lines += [
            "> **RANDOM BACKBONE.** No pretrained weights were given, so CLIP's features are those of random weights: "
            "the numbers test the method's path only.",
            "",
        ]
    return [*lines, "## Request", "", f"> {text(run.request.text)}"]


def _outcome(run: Finished) -> list[str]:
    outcome, grade, lines = run.outcome, run.outcome.grade, ["## Outcome", ""]
    if outcome.status != "done":
        happened = {"refused": "The request was refused", "failed": "The run failed"}[outcome.status]
        return [*lines, f"{happened}: {text(outcome.reason) or 'no reason was recorded.'}"]
    if not grade:
        return [*lines, "A model was trained, but it was not graded: no score can be given."]
    mark, article = " (phantom)" if outcome.phantom else "", "an" if grade.metric[0] in "aeiou" else "a"
    answers = _answers(run.index.task if run.index else "")
    control = (
        f"; the same pipeline trained on shuffled {answers} reaches {interval(grade.control)}" if grade.control else ""
    )
    lines += [
        f"On {grade.cases} test cases of {grade.patients} patients the model reached {article} "
        f"**{text(grade.metric)} of {interval(grade.score)}{mark}**. The trivial answer reaches "
        f"{interval(grade.floor)}{control}. In brackets: 95 % intervals, by bootstrap over patients.",
        "",
        f"- S1, a valid model and a well-formed prediction for every test case: **{_passed(grade.s1)}**",
        f"- S2, better than the trivial answer and than the control: **{_passed(grade.s2)}**",
    ]
    if not grade.control:
        lines.append(f"- No control was trained on shuffled {answers}: S2 rests on the trivial answer alone.")
    if grade.above_oracle:
        lines.append("- **LEAK: the score is above what this phantom allows. Do not trust this model.**")
    if grade.missing:
        some = text(", ".join(grade.missing[:20])) + (", ..." if len(grade.missing) > 20 else "")
        lines.append(f"- Test cases without a usable prediction, which count as 0: {len(grade.missing)} ({some})")
    if not outcome.contained:
        lines.append("- The scripts of this run were **not** contained by a sandbox.")
    return lines


def _passed(success: bool) -> str:
    return "passed" if success else "not passed"


def _plan(run: Finished) -> list[str]:
    if not (plan := run.plan):
        return ["## Plan", "", "No plan was made."]
    caps = [f"{n} {name}" for name, n in (("training", plan.caps.training), ("test", plan.caps.test)) if n]
    rows = [
        ("task", f"{plan.task}, {plan.dims}D, {plan.modality}"),
        *_asked(plan),
        ("images", plan.images),
        (
            f"{_answers(plan.task)} come from",
            " ".join(filter(None, (plan.source.kind, plan.source.path, plan.source.column))),
        ),
        *anomalies.plan_rows(plan),
        ("patients come from", _patients(plan.patient)),
        ("described by", f"the card {plan.card}" if plan.card else "no card, only the folder itself"),
        ("at most", f"{' and '.join(caps)} images" if caps else "all images"),
    ]
    return ["## Plan", "", *table(("", ""), rows)]


def _asked(plan: Plan) -> list[tuple[str, str]]:
    """What the model is to answer."""
    if plan.task == "report_generation":
        return [("findings", plan.findings), ("impression", plan.impression or "none")]
    return [("labels", ", ".join(plan.labels) + (" (left and right are told apart)" if plan.sided else ""))]


def _answers(task: str) -> str:
    return "reports" if task == "report_generation" else "labels"


def _patients(key: PatientKey | None) -> str:
    if key is None:
        return "nothing says it"
    if key.where == "column":
        return f"column {key.column} of {key.table}"
    return f"the {key.where}, by {key.part}"


def _data(run: Finished) -> list[str]:
    lines = ["## Data", ""]
    if found := run.fingerprint:
        lines += [f"{found.files} files, {found.megabytes:.0f} MB: {text(_counts(found.formats))}.", ""]
        rows = (
            (
                group.pattern,
                f"{group.count} slice folders" if group.slices else group.count,
                group.format,
                _size(group.shape.median) + (f", {group.channels} channels" if group.channels > 1 else ""),
                _size(group.spacing.median) if group.spacing else "not given",
                _counts(group.orientations),
                _counts(group.units),
            )
            for group in found.groups
        )
        lines += table(("images", "count", "format", "median size", "spacing (mm)", "orientation", "units"), rows)
        if found.unpacked:
            lines += [f"Unpacked from {text(found.unpacked.format)}: {text(' '.join(found.unpacked.how))}", ""]
        lines += [f"- Warning: {text(warning)}" for warning in found.warnings] or ["The folder gave no warnings."]
        lines.append("")
    if not (index := run.index):
        return [*lines, "The cases were not split."]
    classes = () if index.task == "segmentation" else index.labels
    rows = []
    for split in SPLITS:
        items = index.items(split)
        labels = [item.label if isinstance(item.label, tuple) else (item.label,) for item in items]
        patients = len({item.patient for item in items})
        rows.append((split, len(items), patients, *(sum(name in given for given in labels) for name in classes)))
    lines += [
        "No patient is in two of these parts. The model was chosen on the validation cases; it never saw the "
        f"{_answers(index.task)}"
    ]
    lines += ["of the test cases.", "", *table(("", "cases", "patients", *classes), rows)]
    return lines + anomalies.support(index, run.design, run.tuned)


def _design(run: Finished) -> list[str]:
    if not (design := run.design):
        return ["## Design", "", "No design was made."]
    shown = design.model_dump(exclude={"space", "why"}, exclude_none=True)
    rows = ((name, _setting(value)) for name, value in shown.items())
    lines = ["## Design", "", text(design.why), "", *table(("setting", "value"), rows)]
    if not (run.folder / "code" / "train.py").is_file():
        return [*lines, "No script was written."]

    from m3dspy.workspace import emit

    lines += [f"`code/train.py` differs from the template {text(design.template)} in these lines only:", ""]
    return lines + fenced(emit.diff(run.folder / "code"), "diff")


class Epoch(BaseModel):
    """One line of the history in `model/result.json`: a claim of the script."""

    epoch: int
    loss: FiniteFloat
    score: FiniteFloat


class History(BaseModel):
    epoch: int
    history: list[Epoch] = Field(min_length=1)


def _training(run: Finished) -> list[str]:
    lines, result = ["## Training", ""], run.folder / "model" / "result.json"
    if not result.is_file():
        return [*lines, "No training was finished."]
    try:
        claimed = History.model_validate_json(result.read_bytes())
    except ValidationError:
        return [*lines, "The script left no record of its epochs that can be read."]
    epochs = claimed.history
    figures.learning_curve([epoch.model_dump() for epoch in epochs], run.figures / "learning_curve.png")
    best = max(epochs, key=lambda epoch: epoch.score)
    lines.append(
        f"The final training ran for {len(epochs)} epochs, by its own account; the model of epoch {best.epoch}"
    )
    kept = " and was kept." if best.epoch == claimed.epoch else f"; that of epoch {claimed.epoch} was kept."
    lines += [f"is the best on the validation cases ({best.score:.3f}){kept}", ""]
    return lines + figure("learning_curve", "Loss and validation score by epoch")


def _tuning(run: Finished) -> list[str]:
    lines = ["## Tuning", ""]
    if not (run.tuned and run.tuned.trials):
        return [*lines, "Tuning was off: the model was trained with the settings of the design."]
    tried = run.tuned.trials
    ranked = sorted(tried, key=lambda trial: -1 if trial.score is None else trial.score, reverse=True)
    best = next((trial for trial in ranked if trial.state == "complete"), None)
    lines.append(f"Optuna tried {len(tried)} settings, judged on the validation cases.")
    lines += [
        f"Trial {best.number} was the best." if best else "No trial was completed: the design's settings were kept."
    ]
    figures.trials(tried, run.figures / "trials.png")
    lines += ["", *figure("trials", "Validation score by trial, pruned trials marked")]
    names = sorted({name for trial in tried for name in trial.settings})
    rows = (
        (
            trial.number,
            trial.state,
            "none" if trial.score is None else f"{trial.score:.3f}",
            *(_setting(trial.settings.get(name, "default")) for name in names),
            _time(trial.seconds),
        )
        for trial in sorted(ranked[:TRIALS_SHOWN], key=lambda trial: trial.number)
    )
    lines += table(("trial", "state", "score", *names, "time"), rows)
    if len(tried) > TRIALS_SHOWN:
        lines.append(f"These are the best {TRIALS_SHOWN}; `tuned.json` holds all {len(tried)}.")
    return lines


def _results(run: Finished) -> list[str]:
    lines, grade, index = ["## Results on the test cases", ""], run.outcome.grade, run.index
    if not (grade and index):
        return [*lines, "No model was graded."]
    if index.task == "anomaly_detection":
        return lines + anomalies.results(grade, index, run.folder / "predictions", run.figures)
    if index.task == "report_generation":
        return lines + reports.results(grade)
    lines += table(
        ("metric", "value (95 % interval)"),
        ((name, interval(s)) for name, s in [(grade.metric, grade.score), *grade.others.items()]),
    )
    if index.task == "segmentation":
        figures.structures(grade, run.figures / "structures.png")
        lines += figure("structures", "Dice of each structure, with the atlas floor")
        return lines + table(
            ("structure", "Dice (95 % interval)"), ((n, interval(s)) for n, s in grade.per_label.items())
        )
    each = grade.metric.removeprefix("macro ")
    if not grade.confusion:
        lines += ["A case may have several labels at once, so there is no confusion matrix.", ""]
        return lines + table(
            ("class", f"{each} (95 % interval)"), ((n, interval(s)) for n, s in grade.per_label.items())
        )
    figures.confusion(grade.confusion, index.labels, run.figures / "confusion.png")
    lines += figure("confusion", "True class against the model's answer")
    answered = [sum(column) for column in zip(*grade.confusion, strict=True)]
    rows = (
        (name, sum(grade.confusion[i]), grade.confusion[i][i], answered[i], interval(grade.per_label.get(name)))
        for i, name in enumerate(index.labels)
    )
    return lines + table(("class", "test cases", "recognised", "times answered", f"{each} (95 % interval)"), rows)


def _examples(run: Finished) -> list[str]:
    lines, grade, index, design = ["## Examples", ""], run.outcome.grade, run.index, run.design
    if not (grade and index and design):
        return [*lines, "There are no predictions to show."]
    root, predictions = dataset(run.folder, run.request), run.folder / "predictions"
    worst, others = examples.choose(index, grade.worst, EXAMPLES)
    rows, tiles, unread = examples.answers(predictions), [], []
    for item in (*worst, *others):
        missing = item.id in grade.missing
        try:
            if index.task == "anomaly_detection":
                given = (None, None) if missing else (rows.get(item.id), predictions)
                tiles.append(examples.mapped(item, index, design, root, *given))
            elif index.task == "report_generation":
                tiles.append(examples.plain(item, design, root))
            elif index.task == "classification":
                tiles.append(examples.classified(item, index, design, root, None if missing else rows.get(item.id)))
            else:
                tiles.append(examples.segmented(item, index, design, root, None if missing else predictions))
        except (OSError, ValueError) as error:
            unread.append(f"- {text(item.id)} cannot be shown: {text(error)}")
    if not tiles:
        return [*lines, "No example can be shown: the test images can no longer be read.", "", *unread]
    if index.task == "anomaly_detection":
        heat.sheet(tiles, run.figures / "examples.png")
        about = heat.legend(tiles)
    elif index.task == "report_generation":
        figures.sheet(tiles, run.figures / "examples.png")
        about = "The middle slice of each case, and below the radiologist's report beside the model's."
    elif index.task == "classification":
        figures.sheet(tiles, run.figures / "examples.png")
        about = "The middle slice of each case, its true class → the model's answer and its probability."
    else:
        figures.sheet(tiles, run.figures / "examples.png", index.labels, index.values, index.multilabel)
        about = "The slice of each case that shows the structures best; solid: the expert, dashed: the model."
    lines += [f"First the {len(worst)} worst cases, then {len(others)} others spread evenly over the test list.", about]
    if any(tile.left for tile in tiles):
        lines.append("R and A mark the patient's right and front.")
    lines += ["", *figure("examples", "Example predictions, worst first"), *unread]
    if index.task == "report_generation":
        lines += ["", *reports.side_by_side((*worst, *others), predictions)]
    return lines


def _way(run: Finished) -> list[str]:
    seconds = run.outcome.seconds
    lines = ["## How it went", "", *table(("stage", "time"), ((name, _time(spent)) for name, spent in seconds.items()))]
    repairs = [event for event in run.events if event.get("kind") in ("repair", "back")]
    for event in repairs:
        what = (
            f"Repair by {event['role']}" if event["kind"] == "repair" else f"From {event['by']} back to {event['to']}"
        )
        lines.append(f"- {text(what)}: {text(event['complaint'])}")
    lines += [f"- Warning: {text(event['text'])}" for event in run.events if event.get("kind") == "warning"]
    return lines if repairs else [*lines, "- Nothing had to be repaired."]


def _ledger(run: Finished) -> list[str]:
    lines, path = ["## Language models", ""], run.folder / "lm.jsonl"
    calls: dict[tuple[str, str], list[dict]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            call = json.loads(line)
        except ValueError:  # torn by a crash
            continue
        calls.setdefault((call["role"] or "preflight", call["model"]), []).append(call)
    lines += [f"Compiled program: {text(run.outcome.program)}.", ""]
    if {run.request.lm, *run.request.routing.values()} == {"rules"}:
        lines += ["No language model was asked: `rules`, the built-in expert rules, made every decision.", ""]
    if not calls:
        return [*lines, "The ledger is empty: there were no calls."]
    groups = [*calls.items(), (("all", ""), [call for group in calls.values() for call in group])]
    rows = (
        (
            *names,
            len(group),
            *(sum(call[key] or 0 for call in group) for key in ("input_tokens", "output_tokens")),
            "not known"
            if any(call["cost"] is None for call in group)
            else f"{sum(call['cost'] for call in group):.4f}",
            _time(sum(call["seconds"] for call in group)),
        )
        for names, group in groups
    )
    return lines + table(("role", "model", "calls", "tokens in", "tokens out", "dollars", "time"), rows)


def _again(run: Finished) -> list[str]:
    request, here = run.request, run.folder
    options = {"--data": request.data, "--trials": request.trials, "--seed": request.seed}
    if request.program:
        options["--program"] = here / "program"
    if not request.routing:  # --lm would overrule it
        options["--lm"] = request.lm
    if request.weights:
        options["--weights"] = request.weights
    command = ["m3dspy", "run", request.text]
    for option, value in options.items():
        command += [option, str(value)]
    lines = ["## To reproduce", "", "The whole run:", "", *fenced(shlex.join(command), "sh")]
    if (here / "code" / "train.py").is_file():
        command = ["python", f"{here}/code/train.py", "--index", f"{here}/index.json"]
        command += ["--data", request.data, "--out", "again"]
        if request.weights:
            command += ["--weights", request.weights if Path(request.weights).is_absolute() else "FILE"]
        settings = {"seed": request.seed, **(run.tuned.settings if run.tuned else {})}
        command += ["--set", *(f"{name}={_spelled(value)}" for name, value in settings.items())]
        lines += ["The training alone, without m3dspy and language models:", "", *fenced(shlex.join(command), "sh")]
    if run.outcome.status == "done":
        lines += [
            "The model on new images:",
            "",
            *fenced(f"m3dspy predict {shlex.quote(str(here))} IMAGES --out DIR", "sh"),
        ]
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    return [*lines, f"Python {platform.python_version()} on {platform.system()} {platform.machine()}; {versions}."]


def _spelled(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _limits(run: Finished) -> list[str]:
    lines = ["## Limits", "", "- For research use only: this model must not guide the care of a patient."]
    if run.outcome.phantom:
        lines.append("- The data is a phantom: no number in this report may be quoted as clinical performance.")
    else:
        lines.append(
            "- Training and test cases come from one folder: other scanners, sites and patients were not tried."
        )
    grade, plan = run.outcome.grade, run.plan
    if grade and grade.patients < 100:
        lines.append(f"- The test holds only {grade.patients} patients: mind the width of the intervals.")
    if plan and plan.patient is None:
        alike = (
            "images that look alike were kept together" if plan.task != "segmentation" else "each file counts as one"
        )
        lines.append(
            f"- The data does not name the patients: {alike}. One patient may still be in training and in test."
        )
    if run.tuned and run.tuned.trials:
        lines.append(
            "- Settings were picked on the validation cases: validation scores are too kind, the test score is not."
        )
    return lines
