"""What a mistake is, and the mistakes of form, which are made in every role.

An *answer* is a dict: output field -> value, as JSON would hold it; code is text. *Inputs* are the texts of the
question's input fields.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Answer = dict[str, Any]
Inputs = Mapping[str, str]


@dataclass(frozen=True)
class Mistake:
    """One way to go wrong.

    Args:
        field: the output field it spoils; "" stands for any.
        base: how often a model without any skill makes it where it can be made.
        rule: what a teacher writes into the instructions against it.
        told: how instructions speak of the rule.  about: how complaints and feedback speak of the mistake.
        spoil: (answer, inputs) -> the wrong answer, or the whole completion where that is broken; None where the
            answer does not show the thing, so that it cannot be got wrong there.
    """

    name: str
    field: str
    base: float
    rule: str
    told: str
    about: str
    spoil: Callable[[Answer, Inputs], Answer | str | None]


def _prose(answer: Answer, inputs: Inputs) -> str:
    return "Sure! I looked at the request and the data, and I would suggest to go ahead as described. Shall I?"


def _unclosed_fence(answer: Answer, inputs: Inputs) -> Answer | None:
    field = "prepare" if "prepare" in answer else "mended"
    if not answer.get(field) or "```" in answer[field]:
        return None
    return {**answer, field: f"Here is the script you asked for.\n\n```python\n{answer[field]}"}


def _extra_field(answer: Answer, inputs: Inputs) -> Answer | None:
    field = "plan" if "plan" in answer else "design"
    return changed(answer, field, confidence="high") if isinstance(answer[field], dict) else None


def changed(answer: Answer, field: str, **changes: Any) -> Answer:
    """The answer with other values inside one of its fields."""
    return {**answer, field: {**answer[field], **changes}}


def respelled(label: str) -> str:
    """A label as one misremembers it: other case, underscores; a code as a table tool would write it."""
    if label.isdigit():
        return f"{label}.0"
    other = "_".join(label.upper().split())
    return other if other != label else label.lower()


def renamed(column: str) -> str:
    """A column as one misremembers it."""
    other = "_".join(column.lower().split())
    return other if other != column else f"{column}_name"


def extra_field(field: str, base: float) -> Mistake:
    """A field that the schema does not have, inside `field`."""
    return Mistake(
        "extra field",
        field,
        base,
        f"The {field} holds exactly the fields of its schema; add none, leave none out.",
        r"add no(ne)?\b|no (other|extra|additional|further) (field|key)s?|exactly the fields",
        r"extra inputs|extra_forbidden|validation error",
        _extra_field,
    )


def unclosed_fence(field: str, base: float) -> Mistake:
    """Code behind a sentence and a fence that never ends, asked for with `field`."""
    return Mistake(
        "unclosed fence",
        field,
        base,
        "The field holds code only: no sentence before it, and no code fence, or one that is closed.",
        r"code only|code fence|no fence|backtick",
        r"invalid syntax|SyntaxError|does not parse|code fence|```",
        _unclosed_fence,
    )


PROSE = Mistake(
    "prose",
    "",
    0.12,
    "Give every output field between its markers and nothing else: no greeting, no question, no prose around it.",
    r"prose|nothing else|only the fields?|between (its|the) markers",
    r"cannot be serialized|expected to find output fields|output failed to parse",
    _prose,
)
