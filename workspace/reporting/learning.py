"""What a report says of the design, the training and the tuning."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, Field, FiniteFloat, NonNegativeInt, ValidationError

from m3dspy.errors import DataError
from m3dspy.signatures.values import Trial
from m3dspy.workspace import untrusted
from m3dspy.workspace.reporting import charts, timeline
from m3dspy.workspace.reporting.blocks import Block, Charts, Code, Fold, Table, Words, say
from m3dspy.workspace.reporting.committed import Committed, folds_of

TRIALS_SHOWN = 30
LARGEST_RESULT = 8 << 20  # bytes of a result.json
MOST_LINES = 4000  # of a script that is shown whole


def designed(run: Committed) -> list[Block]:
    """The design, and the script as it differs from its template."""
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


def _setting(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_setting, value)) or "none"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


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


def trained(run: Committed) -> list[Block]:
    """The epochs of the final training, as the script claims them."""
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
    if not run.design or (count := folds_of(run)) == 1:
        return [epochs] if epochs else []
    tuned = run.tuned.settings.get("epochs") if run.tuned else None
    each = tuned if isinstance(tuned, int) and tuned > 0 else run.design.epochs
    folds: list[list[dict[str, Any]]] = [[] for _ in range(count)]
    for epoch in epochs:
        number = min(epoch["epoch"] // each, count - 1)
        folds[number].append(epoch | {"epoch": epoch["epoch"] - number * each})
    return [fold for fold in folds if fold]


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


def tuned(run: Committed) -> list[Block]:
    """The trials, and which settings mattered."""
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
