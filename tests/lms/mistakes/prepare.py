"""The mistakes of a weak Data Engineer."""

import ast
import re
from collections.abc import Callable

from lms.mistakes.form import Answer, Inputs, Mistake, renamed, respelled, unclosed_fence


def _code(pattern: str, replacement: str | Callable[[re.Match], str]) -> Callable[[Answer, Inputs], Answer | None]:
    """A mistake that is one replacement in prepare.py."""

    def spoil(answer: Answer, inputs: Inputs) -> Answer | None:
        code = re.sub(pattern, replacement, answer["prepare"], count=1, flags=re.M)
        return {**answer, "prepare": code} if code != answer["prepare"] else None

    return spoil


def _leak(answer: Answer, inputs: Inputs) -> Answer | None:
    named = _code(r"\b(patient(?:_column)?)=r?(?:'[^'\n]*'|\"[^\"\n]*\")", r"\1=None")
    return named(answer, inputs) or _code(r"^items = ix\.group_lookalikes\(.*\n", "")(answer, inputs)


def _script_spelling(answer: Answer, inputs: Inputs) -> Answer | None:
    def keys(match: re.Match) -> str:
        return f"labels = { {respelled(key): label for key, label in ast.literal_eval(match.group(1)).items()}!r}"

    def names(match: re.Match) -> str:
        return f"labels={[respelled(label) for label in ast.literal_eval(match.group(1))]}"

    in_data = _code(r"^labels = (\{.*\})$", keys)
    return in_data(answer, inputs) or _code(r"\blabels=(\[[^\]\n]*\])", names)(answer, inputs)


MISTAKES = (
    unclosed_fence("prepare", 0.2),
    Mistake(
        "absolute path",
        "prepare",
        0.3,
        "Write every path relative to the dataset folder, as the plan gives it; it never begins with a slash.",
        r"relative (path|to)|absolute path|begins? with a slash",
        r"leaves the dataset folder|absolute|relative to",
        _code(
            r"(ix\.from_(?:table|folders|json)\(\s*root, |ix\.from_pairs\(\s*root, images=)(['\"])(?!/)", r"\1\2/data/"
        ),
    ),
    Mistake(
        "no split column",
        "prepare",
        0.7,
        "If the table has a column of train, val and test, give it as `split_column`.",
        r"split[_ ]column|official split",
        r"split_column|split: the dataset says",
        _code(r",\s*split_column=(['\"])[^'\"\n]*\1", ""),
    ),
    Mistake(
        "patient leak",
        "prepare",
        0.4,
        "Pass on the plan's patient key (`patient_column=` or `patient=`); with none, call `ix.group_lookalikes`.",
        r"patient_column|patient key|group_lookalikes",
        r"patients?:|two splits|is in \w+ and|look-?alike",
        _leak,
    ),
    Mistake(
        "script column",
        "prepare",
        0.3,
        "Copy `file_column` and `column` of the plan exactly; never make up a column.",
        r"column.{0,40}exact|(never|not).{0,20}(invent|make up).{0,20}column",
        r"has no column",
        _code(
            r"\b(label_column|file_column)=(['\"])(.*?)\2",
            lambda match: f"{match[1]}={renamed(match[3])!r}",
        ),
    ),
    Mistake(
        "script pattern",
        "prepare",
        0.25,
        "Copy the patterns of the plan into `images` and `masks` unchanged.",
        r"patterns?.{0,40}(unchanged|exactly|as they|of the plan)",
        r"no file of the dataset matches|names a file that matches|has a mask in",
        _code(r"\bimages=(['\"])(?!images_of/)(.*?)\1", r"images=\1images_of/\2\1"),
    ),
    Mistake(
        "script spelling",
        "prepare",
        0.3,
        "Spell the keys of `labels` as the data does and its values as the plan does, letter by letter.",
        r"keys of `?labels|labels?.{0,40}(letter by letter|exactly|as the data)",
        r"no row of|there is no folder|has the labels|not in labels|labels:",
        _script_spelling,
    ),
    Mistake(
        "script caps",
        "prepare",
        0.4,
        "After the split call `ix.cap` with the caps of the plan, if it has any.",
        r"ix\.cap|call `?cap|caps? of the plan",
        r"\bcaps?\b",
        _code(r"^splits = ix\.cap\(.*\n", ""),
    ),
    Mistake(
        "made-up helper",
        "prepare",
        0.25,
        "Call only the helpers that the manual lists, by their own names and keywords.",
        r"only (the )?helpers|helpers? (that|in|of) the manual",
        r"has no attribute|unexpected keyword",
        _code(r"\bix\.from_(\w+)\(", r"ix.load_\1("),
    ),
)
