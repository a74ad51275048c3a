"""`rules`: the built-in offline core. It is not a language model.

It answers every signature of m3dspy by expert rules, from the text of the prompt alone, whatever the adapter: a pure
function. It makes the whole product run with no key and no network, is the baseline of every comparison, and keeps
tests honest about everything except language. What it knows is in `experts/`, one file a role.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import signature
from typing import Any

from dspy.lm15 import InvalidRequestError, Message, Request, Response, TextPart, Usage, response_to_events
from pydantic import TypeAdapter

from m3dspy.programs.lms import prompt
from m3dspy.programs.lms.experts import data_engineer, model_trainer, module_architect, repair, task_manager

MODEL = "m3dspy/rules-7"  # raise the number with every change of an answer: it is part of cache keys and manifests

_EXPERTS: Mapping[frozenset[str], Callable[..., dict[str, Any]]] = {
    frozenset({"plan", "refusal"}): task_manager.make_plan,
    frozenset({"next_thought", "next_tool_name", "next_tool_args"}): data_engineer.next_look,
    frozenset({"notes"}): data_engineer.look_closer,
    frozenset({"prepare"}): data_engineer.write_prepare,
    frozenset({"design"}): module_architect.design_training,
    frozenset({"verdict", "mended"}): model_trainer.judge_smoke_run,
    frozenset({"blame", "advice"}): repair.repair,
}


def answer(system: str, messages: Sequence[tuple[str, str]]) -> str:
    """The completion for a prompt.

    Args:   system: the system message.  messages: (role, text) of the others.
    Raises: LookupError: the prompt asks none of our signatures.
    """
    question = prompt.read(system, messages)
    if not question.outputs:
        return "ready"  # a preflight: no fields are asked for
    if set(question.inputs) == {"text"}:  # the second step of a TwoStepAdapter: our first answer, to be taken apart
        return question.answer(prompt.fields(question.inputs["text"]))
    expert = _EXPERTS.get(frozenset(question.outputs) - {"reasoning"})
    if expert is None:
        raise LookupError(
            f"`rules` answers m3dspy's own signatures only, not one with the outputs {', '.join(question.outputs)}. "
            "Name a language model with --lm."
        )
    typed = {
        name: _typed(question.inputs.get(name, ""), parameter.annotation)
        for name, parameter in signature(expert).parameters.items()
    }
    values = TypeAdapter(dict[str, Any]).dump_python(expert(**typed), mode="json")
    return question.answer({"reasoning": "By rule.", **values})


def _typed(text: str, annotation: Any) -> Any:
    return text if annotation is str else TypeAdapter(annotation).validate_json(text)


class RulesEngine:
    """`answer` behind DSPy's engine interface."""

    supports_function_calling = supports_response_schema = supports_reasoning = False
    supported_params: frozenset[str] = frozenset()

    def complete(self, request: Request) -> Response:
        system = request.system or ""
        if not isinstance(system, str):
            system = "".join(getattr(part, "text", "") for part in system)
        messages = [(message.role, message.text or "") for message in request.messages]
        try:
            text = answer(system, messages)
        except LookupError as error:
            raise InvalidRequestError(str(error)) from error
        words = len(system.split()) + sum(len(text.split()) for _, text in messages)
        return Response(
            id=None,
            model=request.model,
            message=Message.assistant([TextPart(text)]),
            finish_reason="stop",
            usage=Usage(input_tokens=words, output_tokens=len(text.split())),
        )

    def stream(self, request: Request) -> Iterator[Any]:
        return response_to_events(self.complete(request))

    def close(self) -> None:
        """Nothing is held open."""

    def dump_state(self) -> dict[str, Any]:
        return {}

    @classmethod
    def load_state(cls, state: dict[str, Any]) -> "RulesEngine":
        return cls()
