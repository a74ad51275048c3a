"""Grading of reports: the F1 of their findings decides; wording (BLEU, ROUGE-L), sides and baselines stand beside it.

Wording cannot decide: a constant normal report reaches almost the BLEU of a working model. So what each report says is
there is read by rules (`findings`), and F1 is taken over all findings of all cases together (micro). A report without
any counts as having "no finding", so that a normal case that is called normal is right, and one without an answer is
missed; "F1 of abnormal findings" leaves these out. Findings and impression are read, and compared, as one text.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3dspy.errors import DataError
from m3dspy.m3bench.answers import read_reports
from m3dspy.m3bench.findings import NONE, findings_of
from m3dspy.m3bench.stats import Examined, Metric, mean_of, scores, worst
from m3dspy.signatures.values import Index, Item
from m3dspy.workspace import sources

METRIC = "finding F1"
GRAMS = 4  # of BLEU: words in a row
GRID = 24  # voxels an axis in which the retrieval baseline compares images
REMEMBERED = 2000  # training images, at most, among which it looks

Found = Sequence[dict[str, frozenset[str]] | None]


# ------------------------------------------------------------------------------------------------ the examiner's seams
def floor(index: Index, root: Path) -> Metric:
    """The most frequent training report for every case."""
    return finding_f1(_truth(index), [findings_of(_constant(index))] * len(index.test))


def examine(index: Index, root: Path, predictions: Path) -> Examined:
    """The deciding metric and the cases without an answer."""
    answers = read_reports(predictions, index)
    missing = tuple(item.id for item in index.test if item.id not in answers)
    return Examined(finding_f1(_truth(index), _found(_texts(index, answers))), missing)


def details(index: Index, root: Path, predictions: Path, trivial: Metric, weights: NDArray) -> dict[str, Any]:
    """The further fields of a Grade."""
    truth, references = _truth(index), [_text(item) for item in index.test]
    texts = _texts(index, read_reports(predictions, index))
    found = _found(texts)
    others = {
        "F1 of abnormal findings": finding_f1(truth, found, leave_out=(NONE,)),
        "side accuracy": _sides(truth, found),
    }
    others |= wording(references, texts) | {"length ratio": length_ratio(references, texts)}
    for name, said in (("constant", [_constant(index)] * len(texts)), ("retrieval", retrieved(index, root))):
        others[f"{name} {METRIC}"] = finding_f1(truth, _found(said))
        others |= {f"{name} {metric}": value for metric, value in wording(references, said).items() if metric in BESIDE}
    names = sorted({name for held in truth if held for name in held})
    each = {name: finding_f1(truth, found, only=name) for name in names}
    different = len({text for text in texts if text is not None})
    if different == 1 < len(texts):
        note = "all cases were given the same report: the model does not look at the image"
    else:
        note = f"{different} different reports were written for {len(texts)} cases"
    return {
        "others": scores(others, weights),
        "per_label": scores(each, weights),
        "worst": worst(index.test, _each_f1(truth, found)),
        "notes": (note,),
    }


# ------------------------------------------------------------------------------------------------ findings
def finding_f1(truth: Found, found: Found, leave_out: Sequence[str] = (), only: str = "") -> Metric:
    """Micro F1 of what reports say is there: ``2 TP / (2 TP + FP + FN)`` over all cases and findings.

    Args: found: None where there is no answer: all findings of the case are missed.  only: of this finding alone.
    """
    counts = np.zeros((len(truth), 2))  # 2 TP, and 2 TP + FP + FN = |truth| + |found|
    for row, (held, said) in enumerate(zip(truth, found, strict=True)):
        wanted, given = ({k for k in s or () if k not in leave_out and only in ("", k)} for s in (held, said))
        counts[row] = 2 * len(wanted & given), len(wanted) + len(given)
    return _ratio(counts[:, 0], counts[:, 1])


def _ratio(above: NDArray, below: NDArray) -> Metric:
    """The sum of one count over that of another; NaN where the other is 0."""

    def metric(weights: NDArray) -> NDArray:
        total = weights @ below
        return np.divide(weights @ above, total, out=np.full(len(weights), np.nan), where=total > 0)

    return metric


def _sides(truth: Found, found: Found) -> Metric:
    """Of the findings that both name and the radiologist gives a side: the share with just that side."""
    right, all_ = np.zeros(len(truth)), np.zeros(len(truth))
    for row, (held, said) in enumerate(zip(truth, found, strict=True)):
        for name, side in (held or {}).items():
            if side and said and name in said:
                all_[row] += 1
                right[row] += said[name] == side
    return _ratio(right, all_)


def _each_f1(truth: Found, found: Found) -> NDArray[np.float64]:
    """(cases,): the F1 of each case, less where it names sides wrongly."""
    one = np.eye(len(truth))
    wrong = np.nan_to_num(1 - _sides(truth, found)(one))
    return finding_f1(truth, found)(one) - 0.01 * wrong


def _truth(index: Index) -> Found:
    return [findings_of(_text(item)) for item in index.test]


def _found(texts: Sequence[str | None]) -> Found:
    return [None if text is None else findings_of(text) for text in texts]


def _text(item: Item) -> str:
    """Findings and impression of a case as one text."""
    return joined(item.findings or "", item.impression or "")


def joined(findings: str, impression: str) -> str:
    """Findings and impression as one text, on a line each."""
    return "\n".join(filter(None, (findings.strip(), impression.strip())))


def _texts(index: Index, answers: dict[str, tuple[str, str]]) -> list[str | None]:
    return [joined(*answers[item.id]) if item.id in answers else None for item in index.test]


# ------------------------------------------------------------------------------------------------ wording
BESIDE = ("BLEU-4", "ROUGE-L")  # of the baselines


def words(text: str) -> list[str]:
    """Words, numbers and punctuation marks in lower case.

    >>> words("No X-ray; 2.5 cm.")
    ['no', 'x-ray', ';', '2.5', 'cm', '.']
    """
    return re.findall(r"\d+(?:\.\d+)+|[^\W_]+(?:[-'/][^\W_]+)*|[^\w\s]", text.lower())


def wording(references: Sequence[str], texts: Sequence[str | None]) -> dict[str, Metric]:
    """BLEU-1 to BLEU-4 and ROUGE-L; a case without an answer is an empty text."""
    pairs = [(words(reference), words(text or "")) for reference, text in zip(references, texts, strict=True)]
    counts = np.array([_grams(*pair) for pair in pairs])
    found: dict[str, Metric] = {f"BLEU-{n}": _bleu(counts, n) for n in range(1, GRAMS + 1)}
    return found | {"ROUGE-L": mean_of(np.array([rouge_l(*pair) for pair in pairs]))}


def _grams(reference: Sequence[str], text: Sequence[str]) -> list[int]:
    """Words of both, then for n = 1 to GRAMS: n-grams of the text, and those that are the reference's, too."""
    row = [len(reference), len(text)]
    for n in range(1, GRAMS + 1):
        wanted, given = (Counter(zip(*(said[k:] for k in range(n)), strict=False)) for said in (reference, text))
        row += [given.total(), (wanted & given).total()]
    return row


def _bleu(counts: NDArray, most: int) -> Metric:
    """BLEU of all cases together, without smoothing: Papineni et al. 2002, doi:10.3115/1073083.1073135.

    Args: counts: rows of `_grams`.
    """

    def metric(weights: NDArray) -> NDArray:
        total = weights @ counts
        asked, said, grams = total[:, 0], total[:, 1], total[:, 2 : 2 + 2 * most]
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = np.log(grams[:, 1::2] / grams[:, 0::2]).mean(1)
            bleu = np.exp(precision + np.minimum(0, 1 - asked / said))
        return np.where(said > 0, np.nan_to_num(bleu), 0.0)

    return metric


def rouge_l(reference: Sequence[str], text: Sequence[str]) -> float:
    """F1 of the longest common subsequence: Lin 2004, aclanthology.org/W04-1013. In [0, 1]; 1 of two empty texts.

    The subsequence by bits: Hyyrö 2004, a row of the table is one whole number.
    """
    places: dict[str, int] = {}
    for place, word in enumerate(reference):
        places[word] = places.get(word, 0) | 1 << place
    ones = row = (1 << len(reference)) - 1
    for word in text:
        seen = row & places.get(word, 0)
        row = ((row + seen) | (row - seen)) & ones
    common = len(reference) - row.bit_count()
    return 2 * common / (len(reference) + len(text)) if reference or text else 1.0


def length_ratio(references: Sequence[str], texts: Sequence[str | None]) -> Metric:
    """Words written over words of the radiologists."""
    lengths = [[len(words(text or "")) for text in side] for side in (texts, references)]
    return _ratio(*np.array(lengths, float))


# ------------------------------------------------------------------------------------------------ baselines
def _constant(index: Index) -> str:
    """The most frequent training report; of those that are equally frequent, the first."""
    return Counter(_text(item) for item in index.training).most_common(1)[0][0] if index.training else ""


def retrieved(index: Index, root: Path) -> list[str]:
    """For each test case the report of the training image nearest to it, as grey values on GRID voxels an axis.

    Raises: DataError: an image cannot be read.
    """
    step = max(1, -(-len(index.training) // REMEMBERED))
    known = index.training[::step]
    bank = np.stack([_thumbnail(item, root) for item in known])
    lengths = (bank**2).sum(1)
    asked = np.stack([_thumbnail(item, root) for item in index.test])
    return [_text(known[place]) for place in (lengths - 2 * asked @ bank.T).argmin(1)]


def _thumbnail(item: Item, root: Path) -> NDArray[np.float32]:
    """A case as GRID voxels an axis, with mean 0 and deviation 1, flat; planes have one slice."""
    files = (item.image,) if isinstance(item.image, str) else item.image
    try:
        voxels, _ = sources.read(root / files[0] if len(files) == 1 else [root / file for file in files])
    except (OSError, ValueError) as error:
        raise DataError(f"The image of case {item.id} cannot be read: {error}.") from None
    grey = np.nan_to_num(voxels.astype(np.float32), posinf=0, neginf=0)
    if grey.ndim == 4 or (grey.ndim == 3 and grey.shape[2] <= 4):
        grey = grey.mean(-1)
    for axis in range(grey.ndim):
        edges = np.linspace(0, grey.shape[axis], GRID + 1).astype(int)[:-1].clip(0, grey.shape[axis] - 1)
        grey = np.add.reduceat(grey, edges, axis) / np.diff([*edges, grey.shape[axis]]).clip(1).reshape(
            [-1 if other == axis else 1 for other in range(grey.ndim)]
        )
    return ((grey - grey.mean()) / max(float(grey.std()), 1e-6)).ravel()
