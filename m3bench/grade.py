"""The examiner: predictions in, a Grade out, against labels that the script never saw.

A case without a well-formed answer scores 0: as a class, it is ranked below all cases for the true label and above all
for the others; as a mask, every structure is missed; as a report, every finding. Intervals and comparisons resample
patients, 1000 times.
"""

from collections.abc import Sequence
from pathlib import Path

from numpy.typing import NDArray

from m3dspy.errors import DataError
from m3dspy.m3bench import anomalies, classes, masks, reports
from m3dspy.m3bench.answers import valid_weights
from m3dspy.m3bench.dealing import dealt as dealt_answers
from m3dspy.m3bench.stats import Examined, Metric, beats, resampled, score
from m3dspy.signatures.values import Grade, Index, Score

TASKS = {"classification": classes, "segmentation": masks, "anomaly_detection": anomalies, "report_generation": reports}
ABOVE_ORACLE = 0.01  # what chance on the test cases may add to the best possible score


def grade(
    index: Index,
    root: Path,
    predictions: Path,
    *,
    checkpoint: Path | None,
    control: Path | None = None,
    dealt: bool = False,
    oracle: float | None = None,
    draws: Sequence[Path] = (),
    untuned: Path | None = None,
    single: Path | None = None,
    seed: int = 0,
) -> Grade:
    """Grade the predictions of a run.

    Args: index: with the labels of the test cases.  root: the dataset.  predictions: folder of the answers.
        checkpoint: `model.safetensors`; None: there is none to be had, and the answers alone are judged.
        control: predictions of the same pipeline trained on shuffled labels; one that misses a case proves nothing, and
        then `s2` is False.  dealt: compare with the same answers dealt to other patients, too: see m3bench.dealing.
        oracle: the best score that a phantom allows.
        untuned: predictions for the same test cases with the settings before tuning; None: there are none.
        single: of a model of several folds: predictions of one that was trained once, with the same settings.
        draws: of an anomaly detection: predictions after learning from other draws of the shots (draw 1, 2, ...;
        `predictions` are draw 0).
    Returns: a Grade; with nothing but the floor to be compared with `s2` is False.
    Raises: DataError: the index has no test labels, or a mask of the dataset cannot be read.
    """
    answers = [item.findings if index.task == "report_generation" else item.label for item in index.test]
    if not answers or None in answers:
        raise DataError("There is nothing to grade against: the index has no labelled test cases.")
    weights = resampled([item.patient for item in index.test], seed)
    task = TASKS[index.task]
    beside = {"draws": draws, "untuned": untuned} if index.task == "anomaly_detection" else {}
    answered = task.examine(index, root, predictions)
    trivial = task.floor(index, root)
    controls: dict[str, Metric] = {}
    if control is not None:
        shuffled = task.examine(index, root, control)
        if not shuffled.missing:
            controls["control"] = shuffled.metric
    if dealt and (other := dealt_answers(index, root, predictions, task, seed)):
        controls["dealt"] = other

    details = task.details(index, root, predictions, trivial, weights, **beside)
    alone = task.examine(index, root, single) if single else answered
    pairs = {"gain by folds": (answered, alone)} if single else {}
    if untuned is not None:
        pairs["gain by tuning"] = alone, task.examine(index, root, untuned)
    gains = {name: _gain(*pair, weights) for name, pair in pairs.items() if not any(each.missing for each in pair)}
    details["others"] = gains | details["others"]
    value = score(answered.metric, weights)
    s1 = not answered.missing and (checkpoint is None or valid_weights(checkpoint))
    asked = {name for name, wanted in (("control", control is not None), ("dealt", dealt)) if wanted}
    ahead = (
        asked
        and asked == set(controls)
        and all(beats(answered.metric, other, weights) for other in (trivial, *controls.values()))
    )
    return Grade(
        metric=task.METRIC,
        score=value,
        floor=score(trivial, weights),
        **{name: score(metric, weights) for name, metric in controls.items()},
        cases=len(index.test),
        patients=len({item.patient for item in index.test}),
        missing=answered.missing,
        s1=s1,
        s2=s1 and bool(ahead),
        oracle=oracle,
        above_oracle=oracle is not None and value.value > oracle + ABOVE_ORACLE,
        **details,
    )


def _gain(later: Examined, earlier: Examined, weights: NDArray) -> Score:
    """How much better one model is than another, on the same patients."""
    return score(lambda weights: later.metric(weights) - earlier.metric(weights), weights)


def out_of_fold(index: Index, root: Path, predictions: Path, seed: int = 0) -> dict[str, Score]:
    """The deciding metric on training and validation cases, each answered by a model that did not learn from it.

    Args: predictions: folder of their answers.
    """
    pooled = index.model_copy(update={"test": (*index.training, *index.validation)})
    task, weights = TASKS[index.task], resampled([item.patient for item in pooled.test], seed)
    return {f"out-of-fold {task.METRIC}": score(task.examine(pooled, root, predictions).metric, weights)}
