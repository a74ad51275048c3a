"""A language model, simulated: what the built-in experts say, spoiled by the mistakes of weak models.

Whether a mistake is made is decided by a hash of the model, the mistake and the question's own inputs, which is held
against a probability. Demonstrations in the prompt and rules in the instructions lower it, a complaint about the
mistake makes it likely to be mended: so that prompts can be compiled, and the gain measured, without an API.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import Any

from lms import teacher
from lms.mending import mended
from lms.mistakes import MISTAKES
from lms.mistakes.form import Answer, Inputs, Mistake
from m3dspy.programs.lms import prompt, rules
from m3dspy.signatures.data_engineer import LookCloser, WritePrepare
from m3dspy.signatures.model_trainer import JudgeSmokeRun
from m3dspy.signatures.module_architect import DesignTraining
from m3dspy.signatures.repair import Repair
from m3dspy.signatures.task_manager import MakePlan

SAME_KIND, OTHER_KIND, FLOOR = 0.1, 0.5, 0.03  # what a demonstration leaves of a probability, and all of them at most
INSTRUCTED = 0.25  # what a rule in the instructions leaves
NOT_SUPPLIED = "Not supplied for this particular example"  # DSPy's words for a field that a demonstration lacks
SIGNATURES = (MakePlan, LookCloser, WritePrepare, DesignTraining, JudgeSmokeRun, Repair)
Messages = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Simulated:
    """A model by name.

    Args: skill: 0 makes every mistake at its base rate; 1 makes none, and knows the rules that help others.
    """

    name: str
    skill: float
    seed: int = 0

    def answer(self, system: str, messages: Messages) -> str:
        """The completion for a prompt, a function of nothing else.

        Args:   messages: (role, text), demonstrations first.
        Raises: LookupError: the prompt asks neither a signature of m3dspy nor one of its optimizers.
        """
        question = prompt.read(system, messages)
        if teacher.asked(question):
            return question.answer(teacher.answers(question, knowing=self.skill == 1))
        if not question.outputs or set(question.inputs) == {"text"} or "next_thought" in question.outputs:
            return rules.answer(system, messages)
        right = right_answer(question, rules.answer(system, messages))
        if "blame" in right and self.skill < 1:  # `rules` would answer the same again; a student's slip is its own
            right["blame"] = "here"
        given = self._spoiled(right, question, system, messages)
        return given if isinstance(given, str) else question.answer({"reasoning": "As I see it.", **given})

    def mistakes(self, system: str, messages: Messages) -> list[str]:
        """The names of the mistakes in its answer to a question about our own signatures."""
        question = prompt.read(system, messages)
        right = right_answer(question, rules.answer(system, messages))
        return [mistake.name for mistake in self._made(right, question.inputs, system, messages)]

    def _spoiled(self, right: Answer, question: prompt.Prompt, system: str, messages: Messages) -> Answer | str:
        given: Answer | str = right
        for mistake in self._made(right, question.inputs, system, messages):
            if isinstance(given, dict):  # an earlier mistake may have taken away what this one needs
                given = mistake.spoil(given, question.inputs) or given
        return given

    def _made(self, right: Answer, inputs: Inputs, system: str, messages: Messages) -> list[Mistake]:
        told, demos = further_instructions(system), _demonstrations(system, messages, right, inputs)
        return [
            mistake
            for mistake in MISTAKES
            if mistake.field in ("", *right)
            and (chance := self._chance(mistake.name, inputs)) < mistake.base * (1 - self.skill)
            and mistake.spoil(right, inputs) is not None
            and chance < self.probability(mistake, right, inputs, told, demos)
            and not self._heeds(mistake, inputs)
        ]

    def probability(
        self, mistake: Mistake, right: Answer, inputs: Inputs, told: str, demos: Sequence[tuple[Answer, Inputs]]
    ) -> float:
        """How likely the mistake is on such a question, with these instructions and demonstrations."""
        imitated, kind = 1.0, _kind(right, inputs)
        for answer, asked in demos:
            if mistake.spoil(answer, asked) is not None:  # it shows the thing
                imitated *= SAME_KIND if _kind(answer, asked) == kind else OTHER_KIND
        instructed = INSTRUCTED if re.search(mistake.told, told, re.I) else 1.0
        return mistake.base * (1 - self.skill) * max(FLOOR, imitated) * instructed

    def _heeds(self, mistake: Mistake, inputs: Inputs) -> bool:
        """Whether a complaint about the mistake is taken to heart; a weak model often repeats itself."""
        complaint = inputs.get("complaint", "")
        about = re.search(mistake.about, complaint, re.I | re.S) is not None
        return about and self._chance(f"heed {mistake.name} {complaint}", inputs) < 0.3 + 0.7 * self.skill

    def _chance(self, what: str, inputs: Inputs) -> float:
        own = {name: text for name, text in inputs.items() if name != "complaint"}
        key = json.dumps([self.name, self.seed, what, own], sort_keys=True)
        return int.from_bytes(blake2b(key.encode(), digest_size=7).digest()) / 2**56


def right_answer(question: prompt.Prompt, text: str) -> Answer:
    """The right answer, from the completion that `rules` gives."""
    answer = _read(text)
    if answer.get("verdict") == "repair":
        answer["mended"] = mended(question.inputs["script"])
    return answer


def _read(text: str) -> Answer:
    """A completion taken apart: plan and design as values, code and sentences as text."""
    if text.lstrip().startswith("{"):
        return json.loads(text)
    said = {name: value for name, value in prompt.fields(text).items() if name != "completed"}
    nested = {name: said[name] for name in ("plan", "design") if name in said}
    return said | {name: json.loads(text) if text[:1] == "{" else None for name, text in nested.items()}


def further_instructions(system: str) -> str:
    """The objective in the system message, without the sentences that our signatures bring along."""
    own = {line.strip() for signature in SIGNATURES for line in signature.instructions.splitlines()}
    objective = system.partition("your objective is:")[2]
    return "\n".join(line.strip() for line in objective.splitlines() if line.strip() not in own)


def _demonstrations(system: str, messages: Messages, right: Answer, inputs: Inputs) -> list[tuple[Answer, Inputs]]:
    """(answer, inputs) of the pairs of messages before the last question; those that lack a field show nothing."""
    talk = [(role, text) for role, text in messages if role in ("user", "assistant")]
    demos = []
    for (role, asked), (other, said) in pairwise(talk):
        if (role, other) == ("user", "assistant") and NOT_SUPPLIED not in said:
            answer, given = _read(said), prompt.read(system, [(role, asked)]).inputs
            if set(answer) >= set(right) - {"reasoning"} and set(given) >= set(inputs):
                demos.append((answer, given))
    return demos


def _kind(answer: Answer, inputs: Inputs) -> tuple[Any, ...]:
    """What makes two questions alike: the task, where labels and patients stand, and whether it can be done."""
    if "script" in inputs:
        return answer["verdict"], json.loads(inputs["design"])["template"]
    if "role" in inputs:
        return (inputs["role"],)
    plan = answer["plan"] if "plan" in answer else json.loads(inputs["plan"])
    if not plan:
        return ("refused",)
    if "design" in answer:
        return plan["task"], plan["dims"]
    return plan["task"], plan["source"]["kind"], (plan.get("patient") or {}).get("where")
