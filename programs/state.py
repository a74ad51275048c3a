"""The prompts of a program as data: to write, to restore, to compare and to read."""

import difflib
import json
import re
from typing import Any

import dspy
from dspy.adapters.utils import serialize_for_json
from pydantic import TypeAdapter

from m3dspy.programs.lms.adapter import Chat
from m3dspy.signatures.values import Value


class Described(Value):
    """A field of a signature: what a prompt says of it."""

    name: str
    prefix: str
    description: str


class Instructed(Value):
    """A signature: what compiling may change of it."""

    instructions: str
    fields: tuple[Described, ...]


class Prompt(Value):
    """One predictor's state as DSPy reads it, and the fields' names besides, which DSPy leaves out."""

    demos: tuple[dict[str, Any], ...]
    signature: Instructed
    lm: dict[str, Any] | None = None


def predictors(program: dspy.Module) -> dict[str, dspy.Predict]:
    """All predictors of a copy, also those that an optimizer froze by marking their module as compiled."""
    program = program.deepcopy()
    for _, module in program.named_sub_modules():
        vars(module)["_compiled"] = False
    return dict(program.named_predictors())


def prompt(predictor: dspy.Predict) -> Prompt:
    """The state of a predictor, its demonstrations reduced to the fields that a prompt shows."""
    described = {name: info.json_schema_extra for name, info in _signature(predictor).fields.items()}
    return Prompt(
        demos=tuple(
            {name: serialize_for_json(demo[name]) for name in described if name in demo} for demo in predictor.demos
        ),
        signature=Instructed(
            instructions=_signature(predictor).instructions,
            fields=tuple(
                Described(name=name, prefix=extra["prefix"], description=extra["desc"])
                for name, extra in described.items()
            ),
        ),
    )


def text(program: dspy.Module) -> str:
    """What program.json holds: the same for the same prompts, on every machine."""
    state: dict[str, Any] = {name: prompt(each).model_dump() for name, each in predictors(program).items()}
    return json.dumps({**state, "metadata": {"dependency_versions": {}}}, indent=1, ensure_ascii=False) + "\n"


def parse(text: str) -> dict[str, Prompt]:
    """Predictor -> its prompt, from what program.json holds.

    Raises: ValidationError.
    """
    state = TypeAdapter(dict[str, Any]).validate_json(text)
    state.pop("metadata", None)
    return TypeAdapter(dict[str, Prompt]).validate_python(state)


def restore(predictor: dspy.Predict, saved: Prompt) -> None:
    """Give a predictor its saved prompt; fields are matched by name, those that are not in it stay as written."""
    known = {field.name: field for field in (*prompt(predictor).signature.fields, *saved.signature.fields)}
    signature = _signature(predictor)
    predictor.signature = signature.load_state(
        {
            "instructions": saved.signature.instructions,
            "fields": [known[name].model_dump() for name in signature.fields],
        }
    )
    predictor.demos = list(saved.demos)


def fields(predictor: dspy.Predict) -> str:
    """Names, types and order of a predictor's fields, and which are inputs."""
    signature = _signature(predictor)
    return json.dumps(
        [
            (name, name in signature.input_fields, TypeAdapter(info.annotation).json_schema())
            for name, info in signature.fields.items()
        ]
    )


def rendered(predictor: dspy.Predict) -> str:
    """The whole prompt, the question's own values left open."""
    return "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in _messages(predictor))


def page(name: str, before: dspy.Predict, after: dspy.Predict) -> str:
    """What compiling made of a predictor, in Markdown."""
    old, new = (_signature(each).instructions.splitlines() for each in (before, after))
    lines = [f"# {name}", "", "## Instructions", ""]
    if old == new:
        lines += ["As written; compiling did not change them.", "", *_fenced("\n".join(new), "text")]
    else:
        lines += _fenced("\n".join(difflib.unified_diff(old, new, "before", "after", n=len(old), lineterm="")), "diff")
    lines += [f"## Demonstrations: {len(after.demos)}", ""]
    for message in _messages(after)[1:-1]:
        lines += [f"{message['role']}:", "", *_fenced(message["content"], "text")]
    return "\n".join(lines)


def _messages(predictor: dspy.Predict) -> list[dict[str, Any]]:
    signature = _signature(predictor)
    return Chat().format(signature, predictor.demos, {name: f"<{name}>" for name in signature.input_fields})


def _signature(predictor: dspy.Predict) -> Any:
    """A signature class; DSPy declares it looser than it is."""
    return predictor.signature


def _fenced(code: str, language: str) -> list[str]:
    """A block of code in Markdown, fenced by more backticks than it holds in a row."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", code)), default=0))
    return [f"{fence}{language}", code.rstrip("\n"), fence, ""]
