"""A DSPy prompt read back into fields, and answers written the way its adapter wants them.

Every adapter of DSPy 3.4 lists the fields in the system message as ``1. `name` (type): meaning`` under a heading for
inputs and one for outputs, and gives the values in the last user message: Chat, JSON and BAML between
`[[ ## name ## ]]` markers, XML between tags, TwoStep as `name: value` paragraphs. The last line of the user message
says in which form to answer.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Style = Literal["chat", "json", "xml"]

_FIELD = re.compile(r"^\d+\. `(\w+)` \(", re.M)
_MARKER = re.compile(r"^\[\[ ## (\w+) ## \]\][ \t]*$", re.M)
_OUTPUTS_BEGIN = re.compile(r"Your output fields are:|Your outputs must contain:")
_OUTPUTS_END = re.compile(r"All interactions will be structured|You should lay out your outputs")


@dataclass(frozen=True)
class Prompt:
    """One question: the values of its input fields as text, the names of its output fields in order, and the form."""

    inputs: Mapping[str, str]
    outputs: tuple[str, ...]
    style: Style

    def answer(self, values: Mapping[str, Any]) -> str:
        """The completion that the adapter behind this prompt parses into `values`."""
        chosen = {name: values[name] for name in self.outputs}
        if self.style == "json":
            return json.dumps(chosen)
        if self.style == "xml":
            return "\n\n".join(_xml(name, value) for name, value in chosen.items())
        blocks = [f"[[ ## {name} ## ]]\n{_text(value)}" for name, value in chosen.items()]
        return "\n\n".join([*blocks, "[[ ## completed ## ]]"])


def read(system: str, messages: Sequence[tuple[str, str]]) -> Prompt:
    """The question in a prompt.

    Args: system: the system message.  messages: (role, text) of the others, demonstrations first.
    """
    begin = _OUTPUTS_BEGIN.search(system)
    if begin is None:
        return Prompt({}, (), "chat")
    end = _OUTPUTS_END.search(system, begin.end())
    names = _FIELD.findall(system[: begin.start()])
    outputs = tuple(_FIELD.findall(system[begin.end() : end.start() if end else len(system)]))
    question = next(text for role, text in reversed(messages) if role == "user")
    body, _, reminder = question.rpartition("\n\nRespond with ")
    style: Style = "xml" if "wrapped in XML tags" in reminder else "json" if "a JSON object" in reminder else "chat"
    return Prompt(_values(body or question, names, style, "outputs must contain" in begin.group()), outputs, style)


def fields(text: str) -> dict[str, str]:
    """The values between `[[ ## name ## ]]` markers, e.g. of a completion."""
    marks = list(_MARKER.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return {mark.group(1): text[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)}


def _values(body: str, names: list[str], style: Style, paragraphs: bool) -> dict[str, str]:
    """Values of the declared inputs only, in declared order: a value may itself hold what looks like a marker."""
    if style == "xml":
        found = {name: re.search(rf"<{name}>\n(.*?)\n</{name}>", body, re.S) for name in names}
        return {name: match.group(1).strip() for name, match in found.items() if match}
    form = r"^{}:(?: |$)" if paragraphs else r"^\[\[ ## {} ## \]\][ \t]*$"
    marks: list[tuple[str, int, int]] = []
    for name in names:
        if mark := re.compile(form.format(name), re.M).search(body, marks[-1][2] if marks else 0):
            marks.append((name, *mark.span()))
    ends = [start for _, start, _ in marks[1:]] + [len(body)]
    return {name: body[begin:end].strip() for (name, _, begin), end in zip(marks, ends, strict=True)}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _xml(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        inner = "".join(_xml(key, item) if key.isidentifier() else _entry(key, item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        inner = "".join(_xml("item", item) for item in value)
    elif value is None:
        inner = ""
    else:
        inner = _text(value).replace("&", "&amp;").replace("<", "&lt;")
    return f"<{name}>{inner}</{name}>"


def _entry(key: str, value: Any) -> str:
    quoted = key.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return _xml("entry", value).replace("<entry>", f'<entry key="{quoted}">', 1)
