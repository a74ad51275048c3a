"""What a compile will cost, before a cent is spent: calls, tokens and dollars by language model.

The built-in rules do a few of the exercises, for nothing: the prompts are the real ones, and are measured. Reckoned
with: four characters a token, no answer that has to be asked for twice. Weak models need repairs, so that a run of
theirs takes up to twice as many calls.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import dspy

from m3dspy.optimizers.compile import OPTIMIZERS, Order, checked, names_of
from m3dspy.optimizers.practice import Practice, examples
from m3dspy.optimizers.workshop import Workshop
from m3dspy.programs.builder import Builder
from m3dspy.programs.lms.adapter import Chat
from m3dspy.programs.lms.ledger import Ledger, read_ledger
from m3dspy.programs.lms.model import M3dLM, price
from m3dspy.signatures.values import ROLES, Value

PROBED = 2  # exercises a role
CHARACTERS = 4  # a token
QUESTION = (3000, 500)  # tokens read and written when the teacher is asked for better prompts


class Cost(Value):
    """What one language model will be asked, about."""

    lm: str
    role: str
    calls: int
    input_tokens: int
    output_tokens: int
    dollars: float | None


def estimate(order: Order, practice: Path) -> tuple[Cost, ...]:
    """Student and teacher, as the order stands; no call leaves the house.

    Raises: UsageError: as `compile_program`.
    """
    optimizer, names, workshop = OPTIMIZERS[checked(order).optimizer], names_of(order), Workshop(practice)
    spent = {"student": [0.0, 0.0, 0.0], "teacher": [0.0, 0.0, 0.0]}  # calls, tokens read, tokens written

    def add(who: str, times: float, calls: float, read: float, written: float) -> None:
        for k, amount in enumerate((calls, read, written)):
            spent[who][k] += times * amount

    for role in ROLES:
        cases = {part: examples(found, role, workshop) for part, found in names.items()}
        predictors = len(getattr(Builder(), role).predictors())
        given = optimizer.expected(len(cases["train"]), len(cases["validation"]), predictors, order.rollouts)
        calls, read, written, demo = _a_run(role, cases["train"][:PROBED], workshop)
        measured = 2 * len(cases["held-out"]) + len(cases["validation"])  # by itself and in the whole; before and after
        add("student", measured, calls, read, written)
        add("student", measured + given.student_runs, calls, read + given.demos * demo, written)
        add("teacher", given.teacher_runs, calls, read, written)
        add("teacher", given.teacher_questions, 1, *QUESTION)
    return tuple(_cost(order, who, *amounts) for who, amounts in spent.items())


def _a_run(role: str, cases: list[dspy.Example], workshop: Workshop) -> tuple[float, float, float, float]:
    """Of one run of a role: calls, tokens read and written, and tokens that it adds when it is shown to another."""
    with TemporaryDirectory() as scratch:
        path = Path(scratch, "lm.jsonl")
        with dspy.context(lm=M3dLM("rules", Ledger(path)), adapter=Chat()):
            for case in cases:
                Practice(getattr(Builder(), role), workshop)(**case.inputs())
        lines = list(read_ledger(path))
    messages = [message for line in lines for message in line["messages"]]
    read = sum(len(message["content"]) for message in messages)
    asked = sum(len(message["content"]) for message in messages if message["role"] == "user")
    written = sum(len(answer) for line in lines for answer in line["answer"])
    tokens = CHARACTERS * len(cases)
    return len(lines) / len(cases), read / tokens, written / tokens, (asked + written) / tokens


def _cost(order: Order, who: str, calls: float, read: float, written: float) -> Cost:
    name = order.student if who == "student" else order.teacher
    rates = price(name)
    return Cost(
        lm=name,
        role=who,
        calls=round(calls),
        input_tokens=round(read),
        output_tokens=round(written),
        dollars=None if rates is None else round(rates[0] * read + rates[1] * written, 2),
    )
