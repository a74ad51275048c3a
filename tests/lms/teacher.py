"""Answers to the questions that prompt optimizers ask: MIPROv2's five and GEPA's one."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b

from lms.mistakes import MISTAKES
from lms.mistakes.form import Inputs, Mistake
from m3dspy.programs.lms.prompt import Prompt
from m3dspy.signatures.data_engineer import WritePrepare
from m3dspy.signatures.model_trainer import JudgeSmokeRun
from m3dspy.signatures.module_architect import DesignTraining
from m3dspy.signatures.repair import Repair
from m3dspy.signatures.task_manager import MakePlan

SAID = {
    "observations": "Each sample is a folder of medical images in numbers and a request in a clinician's words.",
    "summary": "Requests for models of medical images, each with the folder that shall teach them.",
    "program_description": "Four roles in a row plan, index, design and test the training of a medical image model.",
    "module_description": "One role: it answers with typed fields that a check in plain Python then reads.",
}
FIELD_OF = {
    MakePlan: "plan",
    WritePrepare: "prepare",
    DesignTraining: "design",
    JudgeSmokeRun: "verdict",
    Repair: "blame",
}
MOST = 3  # new rules in one proposal of GEPA


def asked(question: Prompt) -> bool:
    """Whether an optimizer asks."""
    return not {*SAID, "proposed_instruction", "new_instruction"}.isdisjoint(question.outputs)


def answers(question: Prompt, knowing: bool) -> dict[str, str]:
    """Field -> answer; one that does not know the rules gives instructions back as they are."""
    said = SAID | {"reasoning": "From the examples."}
    if "proposed_instruction" in question.outputs:
        said["proposed_instruction"] = _proposed(question.inputs, knowing)
    if "new_instruction" in question.outputs:
        said["new_instruction"] = _reflected(question.inputs, knowing)
    return said


def _proposed(inputs: Inputs, knowing: bool) -> str:
    """MIPROv2: the basic instruction and half of the rules, another half for every prompt."""
    instruction, tip = inputs["basic_instruction"], json.dumps(dict(inputs), sort_keys=True)
    known = [mistake for mistake in _known(instruction) if _half(f"{mistake.name} {tip}")] if knowing else []
    return _appended(instruction, known)


def _half(key: str) -> bool:
    return blake2b(key.encode(), digest_size=1).digest()[0] < 128


def _reflected(inputs: Inputs, knowing: bool) -> str:
    """GEPA: the current instruction and the rules that its feedback is about, the most frequent first."""
    instruction = inputs["current_instruction"]
    feedback = [str(example.get("Feedback", "")) for example in json.loads(inputs["examples_with_feedback"])]
    heard = Counter(
        {
            mistake: sum(re.search(mistake.about, text, re.I | re.S) is not None for text in feedback)
            for mistake in _known(instruction)
        }
    )
    new = [mistake for mistake, times in heard.most_common() if times]
    return _appended(instruction, new[:MOST] if knowing else [])


def _known(instruction: str) -> list[Mistake]:
    """The mistakes that can be made where this instruction stands, and against which it holds no rule yet."""
    heading = {field: signature.instructions.strip().splitlines()[0] for signature, field in FIELD_OF.items()}
    fields = {field for field, line in heading.items() if line in instruction}
    return [
        mistake
        for mistake in MISTAKES
        if (mistake.field in fields or (fields and not mistake.field)) and mistake.rule not in instruction
    ]


def _appended(instruction: str, mistakes: Sequence[Mistake]) -> str:
    return "\n".join([instruction, *(f"- {mistake.rule}" for mistake in mistakes)])
