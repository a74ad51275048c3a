"""A run in plain words, pictures and numbers: `report.html`, for the researcher who has to judge the model.

One file that loads nothing from elsewhere. Everything is read from what the run committed; no model is loaded. What a
run does not have (tuning off, no control, a stage that was not reached) is said in words.
"""

import json
import platform
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, Field, FiniteFloat, NonNegativeInt, ValidationError

from m3dspy.errors import DataError
from m3dspy.signatures.values import (
    SPLITS,
    Design,
    Fingerprint,
    Grade,
    Index,
    Item,
    Outcome,
    PatientKey,
    Plan,
    Request,
    Trial,
    Tuned,
)
from m3dspy.workspace import private, untrusted
from m3dspy.workspace.reporting import anomalies, charts, examples, pictures, reports, timeline
from m3dspy.workspace.reporting.blocks import (
    Block,
    Bullets,
    Charts,
    Code,
    Fold,
    Page,
    Section,
    Steps,
    Table,
    Views,
    Words,
    exactly,
    html,
    interval,
    say,
    scores,
)
from m3dspy.workspace.runs import Run, dataset, write_atomic
from m3dspy.workspace.weights import file_in

V = TypeVar("V")

NAME = "report.html"
TRIALS_SHOWN = 30
VOLUMES, PICTURES = 6, 12  # of the worst cases, and as many others
MOST_PICTURES = 2_800_000  # characters of all pictures of a page
LARGEST_RESULT = 8 << 20  # bytes of a result.json
MOST_LINES = 4000  # of a script that is shown whole
CURVES = 5  # classes whose curves are shown
PACKAGES = ("m3dspy", "torch", "monai", "lightning-fabric", "optuna", "dspy", "numpy", "nibabel", "pydicom")


@dataclass(frozen=True)
class Committed:
    """What a run has committed so far; None for a stage that was not reached."""

    folder: Path
    events: list[dict[str, Any]]
    calls: list[timeline.Call]
    request: Request
    outcome: Outcome | None
    fingerprint: Fingerprint | None
    plan: Plan | None
    index: Index | None
    design: Design | None
    tuned: Tuned | None

    @property
    def grade(self) -> Grade | None:
        return self.outcome.grade if self.outcome else None


def report(run_folder: Path) -> Path:
    """Write `report.html` into the folder of a run, which the caller holds.

    Returns: its path; it is written whole or not at all.
    Raises:  M3Error: one of the run's files is damaged.
    """
    path = run_folder.resolve() / NAME
    write_atomic(path, page(run_folder).encode())
    return path


def page(run_folder: Path) -> str:
    """The page of a run as it is now: done, refused, failed or still going on.

    Raises: M3Error: one of the run's files is damaged.
    """
    run = Run(run_folder)

    def reached(name: str, kind: type[V]) -> V | None:
        return run.load(name, kind) if run.has(name) else None

    with private.hiding(private.read(run.folder / private.FILE)):
        committed = Committed(
            run.folder,
            list(run.events()),
            timeline.calls(run.folder / "lm.jsonl"),
            run.load("request", Request),
            reached("outcome", Outcome),
            reached("fingerprint", Fingerprint),
            reached("plan", Plan),
            reached("index", Index),
            reached("design", Design),
            reached("tuned", Tuned),
        )
        return html(_page(committed))


def _page(run: Committed) -> Page:
    parts = (
        ("plan", "Request and plan", _plan),
        ("data", "Data", _data),
        ("design", "Design and script", _design),
        ("training", "Training", _training),
        ("tuning", "Tuning", _tuning),
        ("results", "Test results", _results),
        ("cases", "Cases", _cases),
        ("timeline", "How it went", _way),
        ("models", "Language models", _ledger),
        ("again", "To reproduce", _again),
        ("limits", "Limits", _limits),
    )
    title = run.plan.goal if run.plan else run.request.text
    sections = [Section(name, title, blocks(run)) for name, title, blocks in parts]
    chart = charts.verdict(run.grade) if run.grade else None
    return Page(title, run.folder.name, _banners(run), _outcome(run), sections, chart)


def _size(values: Iterable[float]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counts.items()) or "not known"


def _setting(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_setting, value)) or "none"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _banners(run: Committed) -> list[str]:
    lines: list[str] = [say("<strong>For research use only.</strong> Not a medical device.")]
    if run.outcome and run.outcome.phantom:
        lines.append(
            say(
                "<strong>PHANTOM DATA.</strong> The images are made up. The scores show that the pipeline works; they "
                "say nothing about patients."
            )
        )
    if run.plan and run.plan.task == "anomaly_detection" and run.request.weights is None:
        lines.append(
            say(
                "<strong>RANDOM BACKBONE.</strong> No pretrained weights were given, so CLIP's features are those of "
                "random weights: the numbers test the method's path only."
            )
        )
    return lines


def _outcome(run: Committed) -> list[Block]:
    if not (outcome := run.outcome):
        stages = [event["name"] for event in run.events if event["kind"] == "stage" and event["status"] == "start"]
        last = timeline.STAGES.get(stages[-1], stages[-1]) if stages else "nothing yet"
        return [Words(f"The run is not finished. Last begun: {last}.", "note")]
    if outcome.status != "done":
        happened = {"refused": "The request was refused", "failed": "The run failed"}[outcome.status]
        return [Words(f"{happened}: {outcome.reason or 'no reason was recorded.'}", "warning")]
    if not (grade := outcome.grade):
        return [Words("A model was trained, but it was not graded: no score can be given.", "warning")]
    score = grade.score
    mark, article = " (phantom)" if outcome.phantom else "", "an" if grade.metric[0] in "aeiou" else "a"
    answers = _answers(run.index.task if run.index else "")
    control = (
        f"; the same pipeline trained on shuffled {answers} reaches {interval(grade.control)}" if grade.control else ""
    )
    blocks: list[Block] = [
        Words(
            say(
                "<b>{}</b> {}{}, 95 % interval {} to {}",
                f"{score.value:.3f}", grade.metric, mark, f"{score.low:.3f}", f"{score.high:.3f}",
            ),
            "score",
        ),
        Words(
            say(
                "On {} test cases of {} patients the model reached {} <strong>{} of {}{}</strong>. The trivial answer "
                "reaches {}{}. In brackets: 95 % intervals, by bootstrap over patients.",
                grade.cases, grade.patients, article, grade.metric, interval(grade.score), mark, interval(grade.floor),
                control,
            )
        ),
    ]  # fmt: skip
    if grade.oracle is not None:
        blocks.append(
            Words(f"The labels of this phantom are noisy; the best that any reader could reach is {grade.oracle:.3f}.")
        )
    if grade.above_oracle:
        leak = "LEAK: the score is above what this phantom allows. Do not trust this model."
        blocks.insert(0, Words(say("<strong>{}</strong>", leak), "warning"))
    lines: list[str] = [
        say("S1, a valid model and a well-formed prediction for every test case: <b>{}</b>", _passed(grade.s1)),
        say("S2, better than the trivial answer and than the control: <b>{}</b>", _passed(grade.s2)),
    ]
    if grade.s3 is not None:
        lines.append(say("S3, 90 % of the reference recipe's score: <b>{}</b>", _passed(grade.s3)))
    if not grade.control:
        lines.append(f"No control was trained on shuffled {answers}: S2 rests on the trivial answer alone.")
    if grade.missing:
        some = ", ".join(grade.missing[:20]) + (", ..." if len(grade.missing) > 20 else "")
        lines.append(f"Test cases without a usable prediction, which count as 0: {len(grade.missing)} ({some})")
    if not outcome.contained:
        lines.append(say("The scripts of this run were <strong>not</strong> contained by a sandbox."))
    return [*blocks, Bullets(lines)]


def _passed(success: bool) -> str:
    return "passed" if success else "not passed"


def _plan(run: Committed) -> list[Block]:
    asked: list[Block] = [Words(say("The request: <q>{}</q>", run.request.text))]
    if not (plan := run.plan):
        return [*asked, Words("No plan was made.")]
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
    return [*asked, Table("The plan", ("", "decided"), rows)]


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


def _data(run: Committed) -> list[Block]:
    blocks: list[Block] = []
    if found := run.fingerprint:
        blocks.append(Words(f"{found.files} files, {found.megabytes:.0f} MB: {_counts(found.formats)}."))
        rows = [
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
        ]
        head = ("images", "count", "format", "median size", "spacing (mm)", "orientation", "units")
        if rows:
            blocks.append(Table("What a look at the folder found", head, rows))
        if found.unpacked:
            blocks.append(Words(f"Unpacked from {found.unpacked.format}: {' '.join(found.unpacked.how)}"))
        blocks.append(
            Bullets([f"Warning: {warning}" for warning in found.warnings])
            if found.warnings
            else Words("The folder gave no warnings.")
        )
    drawn = [charts.intensities(found)] if found else []
    if run.index:
        drawn.append(charts.parts(run.index))
    if charted := [chart for chart in drawn if chart]:
        blocks.append(Charts(charted))
    if not (index := run.index):
        return [*blocks, Words("The cases were not split.")]
    classes = () if index.task == "segmentation" else index.labels
    rows = []
    for split in SPLITS:
        items = index.items(split)
        labels = [item.label if isinstance(item.label, tuple) else (item.label,) for item in items]
        patients = len({item.patient for item in items})
        rows.append((split, len(items), patients, *(sum(name in given for given in labels) for name in classes)))
    return [
        *blocks,
        Words(
            "No patient is in two of these parts. The model was chosen on the validation cases; it never saw the "
            f"{_answers(index.task)} of the test cases."
        ),
        Table("The split, by patient", ("part", "cases", "patients", *classes), rows),
        *anomalies.support(index, run.design, run.tuned),
    ]


def _design(run: Committed) -> list[Block]:
    if not (design := run.design):
        return [Words("No design was made.")]
    shown = design.model_dump(exclude={"space", "why"}, exclude_none=True)
    rows = [(name, _setting(value)) for name, value in shown.items()]
    blocks: list[Block] = [Words(design.why)] if design.why else []
    blocks.append(Fold("All settings of the design", [Table("The design", ("setting", "value"), rows)]))
    if not (run.folder / "code" / "train.py").is_file():
        return [*blocks, Words("No script was written.")]

    from m3dspy.workspace import emit

    return [
        *blocks,
        Words(say("<code>code/train.py</code> differs from the template {} in these lines only:", design.template)),
        _marked("What differs from the template", emit.diff(run.folder / "code")),
        Fold("The whole script", [_marked("code/train.py", emit.diff(run.folder / "code", context=MOST_LINES))]),
    ]


def _marked(about: str, diff: str) -> Code:
    """A unified diff, without its head, as lines that are kept, added or taken away."""
    lines = diff.splitlines()[2:]
    return Code(about, [(line[:1].strip(), "…" if line.startswith("@@") else line[1:]) for line in lines])


class Epoch(BaseModel):
    """One line of the history in `model/result.json`: a claim of the script."""

    epoch: NonNegativeInt
    loss: FiniteFloat
    score: FiniteFloat


class History(BaseModel):
    epoch: int
    kept: list[int] = []  # of each fold, where there are several
    history: list[Epoch] = Field(min_length=1)

    def lines(self) -> list[dict[str, Any]]:
        """The epochs, each with whether its model was kept."""
        kept = self.kept or [self.epoch]
        return [epoch.model_dump() | {"kept": epoch.epoch in kept} for epoch in self.history]


def _training(run: Committed) -> list[Block]:
    if not (run.folder / "model" / "result.json").is_file():
        so_far = [event for event in run.events if event["kind"] == "epoch" and event["attempt"] == "final"]
        begun = f"{len(so_far)} epochs of the final training have gone by." if so_far else ""
        lines = [event | {"kept": False} for event in so_far]
        return [Words(f"No training was finished. {begun}".strip()), *_curves(_by_fold(run, lines))]
    try:
        claimed = History.model_validate_json(untrusted.read(run.folder / "model", "result.json", LARGEST_RESULT))
    except (ValidationError, DataError):
        return [Words("The script left no record of its epochs that can be read.")]
    epochs = claimed.lines()
    folds, scores = _by_fold(run, epochs), ", ".join(f"{line['score']:.3f}" for line in epochs if line["kept"])
    if len(folds) > 1:
        lengths = ", ".join(str(len(fold)) for fold in folds)
        text = (
            f"{len(folds)} models were trained, each checked on another part of the cases, for {lengths} epochs, by "
            f"their own account. Of each an epoch was kept ({scores} on its part); their probabilities are averaged."
        )
    else:
        text = (
            f"The final training ran for {len(epochs)} epochs, by its own account; the model of epoch {claimed.epoch} "
            f"was kept ({scores or 'no score'} on the validation cases)."
        )
    return [Words(text), *_curves(folds)]


def _by_fold(run: Committed, epochs: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The epochs of each fold, counted from its own first; a script counts them through."""
    if not run.design or (count := _folds(run)) == 1:
        return [epochs] if epochs else []
    tuned = run.tuned.settings.get("epochs") if run.tuned else None
    each = tuned if isinstance(tuned, int) and tuned > 0 else run.design.epochs
    folds: list[list[dict[str, Any]]] = [[] for _ in range(count)]
    for epoch in epochs:
        number = min(epoch["epoch"] // each, count - 1)
        folds[number].append(epoch | {"epoch": epoch["epoch"] - number * each})
    return [fold for fold in folds if fold]


def _folds(run: Committed) -> int:
    """How many models were trained: as many as were asked for, where the template has folds."""
    from m3dspy.workspace import emit

    asked = run.request.folds
    return asked if asked > 1 and run.design and "folds" in emit.fields(run.design.template) else 1


def _curves(folds: list[list[dict[str, Any]]]) -> list[Block]:
    if not folds:
        return []
    return [
        Charts(
            [
                charts.learning(folds, "loss", "Training loss", "loss"),
                charts.learning(folds, "score", "Score on the validation cases", "score"),
            ]
        )
    ]


def _tuning(run: Committed) -> list[Block]:
    if run.tuned is None and not (run.outcome and run.outcome.status == "done"):
        so_far = [event for event in run.events if event["kind"] == "trial"]
        return [Words(f"Tuning was not finished; {len(so_far)} trials have ended." if so_far else "Nothing was tuned.")]
    if not (tried := run.tuned.trials if run.tuned else ()):
        return [Words("Tuning was off: the model was trained with the settings of the design.")]
    ranked = sorted(tried, key=lambda trial: -1 if trial.score is None else trial.score, reverse=True)
    best = next((trial for trial in ranked if trial.state == "complete"), None)
    found = f"Trial {best.number} was the best." if best else "No trial was completed: the design's settings were kept."
    names = sorted({name for trial in tried for name in trial.settings})
    rows = [
        (
            trial.number,
            trial.state,
            "none" if trial.score is None else f"{trial.score:.3f}",
            *(_setting(trial.settings.get(name, "default")) for name in names),
            timeline.seconds(trial.seconds),
        )
        for trial in sorted(ranked[:TRIALS_SHOWN], key=lambda trial: trial.number)
    ]
    drawn = [charts.history(tried)]
    knobs = run.design.space if run.design else {}
    varied = [name for name in names if len({trial.settings.get(name) for trial in tried}) > 1]
    if best and varied:
        if shares := _importances(tried, varied):
            drawn.append(charts.importances(shares))
        logarithmic = [name for name in varied if name in knobs and knobs[name].log]
        drawn.append(charts.parallel(tried, varied, logarithmic))
    blocks: list[Block] = [
        Words(f"Optuna tried {len(tried)} settings, judged on the validation cases. {found}"),
        Charts(drawn),
        Fold("The trials in numbers", [Table("Trials", ("trial", "state", "score", *names, "time"), rows)]),
    ]
    if len(tried) > TRIALS_SHOWN:
        blocks.append(Words(f"These are the best {TRIALS_SHOWN}; tuned.json holds all {len(tried)}."))
    return blocks


def _importances(tried: Iterable[Trial], names: list[str]) -> dict[str, float]:
    """Share of each setting in what the completed trials differ by; {} where they are too few to tell."""
    done = [trial for trial in tried if trial.state == "complete" and trial.score is not None]
    done = [trial for trial in done if all(name in trial.settings for name in names)]
    if len(done) < 4:
        return {}

    from optuna import create_study
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
    from optuna.importance import get_param_importances
    from optuna.logging import WARNING, set_verbosity
    from optuna.trial import create_trial

    space: dict[str, BaseDistribution] = {}
    for name in names:
        values = [trial.settings[name] for trial in done]
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            low, high = min(map(float, values)), max(map(float, values))
            if low == high:
                continue
            space[name] = FloatDistribution(low, high, log=low > 0 and high / low > 10)
        else:
            space[name] = CategoricalDistribution(list(dict.fromkeys(values)))
    set_verbosity(WARNING)
    study = create_study(direction="maximize")
    for trial in done:
        params = {name: trial.settings[name] for name in space}
        study.add_trial(create_trial(value=trial.score, params=params, distributions=space))
    return get_param_importances(study)


def _results(run: Committed) -> list[Block]:
    grade, index, predictions = run.grade, run.index, run.folder / "predictions"
    if not (grade and index):
        return [Words("No model was graded.")]
    if index.task == "anomaly_detection":
        return anomalies.results(grade, index, predictions)
    if index.task == "report_generation":
        return reports.results(grade)
    metrics = scores("Metrics", "metric", [(grade.metric, grade.score), *grade.others.items()])
    notes = Bullets([f"{note[:1].upper()}{note[1:]}." for note in grade.notes])
    if index.task == "segmentation":
        rows = [(name, interval(dice), interval(grade.surfaces.get(name))) for name, dice in grade.per_label.items()]
        charted = (
            ("Dice of each structure", "Dice", grade.floor.value, grade.per_label),
            ("Agreement of each structure's surface", "NSD", None, grade.surfaces),
        )
        return [
            Charts([charts.each(title, metric, floor, found) for title, metric, floor, found in charted if found]),
            metrics,
            Table("Structures", ("structure", "Dice (95 % interval)", "NSD (95 % interval)"), rows),
            notes,
        ]
    each = grade.metric.removeprefix("macro ")
    drawn = [charts.each(f"{each} of each class", each, grade.floor.value, grade.per_label)] if grade.per_label else []
    drawn += _class_curves(index, grade, predictions)
    if not grade.confusion:
        return [
            Words("A case may have several labels at once, so there is no confusion matrix."),
            Charts(drawn),
            metrics,
            scores("Classes", "class", grade.per_label.items()),
            notes,
        ]
    drawn.insert(0, charts.confusion(grade.confusion, index.labels))
    answered = [sum(column) for column in zip(*grade.confusion, strict=True)]
    rows = [
        (name, sum(grade.confusion[i]), grade.confusion[i][i], answered[i], interval(grade.per_label.get(name)))
        for i, name in enumerate(index.labels)
    ]
    head = ("class", "test cases", "recognised", "times answered", f"{each} (95 % interval)")
    return [Charts(drawn), metrics, Table("Classes", head, rows), notes]


def _class_curves(index: Index, grade: Grade, predictions: Path) -> list[Any]:
    """ROC, precision and recall of the classes told apart worst, and calibration, of the cases that were answered."""
    rows = examples.answers(predictions)
    items = [item for item in index.test if item.id not in grade.missing and item.id in rows]
    try:
        chances = np.array([[float(rows[item.id][name]) for name in index.labels] for item in items])
    except (KeyError, TypeError, ValueError):
        return []
    if not items or not np.isfinite(chances).all():
        return []
    truth = np.array([[name in _labels(item) for name in index.labels] for item in items])
    tellable = [n for n in range(len(index.labels)) if truth[:, n].any() and not truth[:, n].all()]
    value = {n: grade.per_label[name].value for n, name in enumerate(index.labels) if name in grade.per_label}
    chosen = sorted(sorted(tellable, key=lambda n: value.get(n, 1.0))[:CURVES])
    some = "" if len(chosen) == len(index.labels) else f" Of {len(index.labels)} classes, those told apart worst."
    found = {index.labels[n]: (truth[:, n], chances[:, n]) for n in chosen}
    drawn = []
    if found:
        rocs = {name: charts.roc(*pair) for name, pair in found.items()}
        recalls = {name: charts.precision_recall(*pair) for name, pair in found.items()}
        axes = ("others called so", "cases found")
        drawn.append(
            charts.curves(
                "ROC, each class against the others", axes, rocs, f"The broken line is chance.{some}", diagonal=True
            )
        )
        drawn.append(charts.curves("Precision and recall", ("recall", "precision"), recalls, f"By class.{some}"))
    if not index.multilabel:
        best = chances.argmax(1)
        right = truth[np.arange(len(items)), best]
        reliable = {"the model": charts.reliability(right, chances.max(1))}
        about = "Share of right answers by the probability that was given; on the broken line they are equal."
        drawn.append(charts.curves("Calibration", ("probability given", "share right"), reliable, about, diagonal=True))
    return drawn


def _labels(item: Item) -> tuple[str, ...]:
    return item.label if isinstance(item.label, tuple) else (item.label or "",)


def _cases(run: Committed) -> list[Block]:
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


def _way(run: Committed) -> list[Block]:
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


def _ledger(run: Committed) -> list[Block]:
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


def _again(run: Committed) -> list[Block]:
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
        if (folds := _folds(run)) > 1:
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


def _limits(run: Committed) -> list[Block]:
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
        lines.append(f"The data does not name the patients: {alike}. One patient may still be in training and in test.")
    if run.tuned and run.tuned.trials:
        lines.append(
            "Settings were picked on the validation cases: validation scores are too kind, the test score is not."
        )
    return [Bullets(lines)]
