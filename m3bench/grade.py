"""The examiner: predictions in, a Grade out, against labels that the script never saw.

A case without a well-formed answer scores 0: as a class, it is ranked below all cases for the true label and above all
for the others; as a mask, every structure is missed; as a report, every finding. Intervals and comparisons resample
patients, 1000 times.
"""

from collections.abc import Sequence
from pathlib import Path

from m3dspy.errors import DataError
from m3dspy.m3bench import anomalies, classes, masks, reports
from m3dspy.m3bench.answers import valid_weights
from m3dspy.m3bench.stats import beats, resampled, score
from m3dspy.signatures.values import Grade, Index

TASKS = {"classification": classes, "segmentation": masks, "anomaly_detection": anomalies, "report_generation": reports}
ABOVE_ORACLE = 0.01  # what chance on the test cases may add to the best possible score


def grade(
    index: Index,
    root: Path,
    predictions: Path,
    *,
    checkpoint: Path | None,
    control: Path | None = None,
    oracle: float | None = None,
    draws: Sequence[Path] = (),
    untuned: Path | None = None,
    seed: int = 0,
) -> Grade:
    """Grade the predictions of a run.

    Args: index: with the labels of the test cases.  root: the dataset.  predictions: folder of the answers.
        checkpoint: `model.safetensors`.  control: predictions of the same pipeline trained on shuffled labels; one
        that misses a case proves nothing and counts as none.  oracle: the best score that a phantom allows.
        draws, untuned: of an anomaly detection: predictions for the same test cases after learning from other draws of
        the shots (draw 1, 2, ...; `predictions` are draw 0), and with the settings before tuning; None: there are none.
    Returns: a Grade; without a control `s2` is False.
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
    compared = None
    if control is not None:
        shuffled = task.examine(index, root, control)
        compared = None if shuffled.missing else shuffled.metric

    value = score(answered.metric, weights)
    s1 = not answered.missing and checkpoint is not None and valid_weights(checkpoint)
    ahead = beats(answered.metric, trivial, weights)
    return Grade(
        metric=task.METRIC,
        score=value,
        floor=score(trivial, weights),
        control=score(compared, weights) if compared else None,
        cases=len(index.test),
        patients=len({item.patient for item in index.test}),
        missing=answered.missing,
        s1=s1,
        s2=s1 and ahead and compared is not None and beats(answered.metric, compared, weights),
        above_oracle=oracle is not None and value.value > oracle + ABOVE_ORACLE,
        **task.details(index, root, predictions, trivial, weights, **beside),
    )
