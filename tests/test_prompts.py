"""Every optimizer of prompts: what it does for a weak student, on real exercises, with simulated models over HTTP."""

import contextlib
import io
import json

import dspy
import pytest
from lms.server import serve

from m3dspy.m3bench import partition
from m3dspy.optimizers.compile import OPTIMIZERS
from m3dspy.optimizers.metrics import Metric, examine
from m3dspy.optimizers.practice import Practice, examples
from m3dspy.optimizers.prompts._search import Search
from m3dspy.optimizers.track import Track
from m3dspy.optimizers.workshop import Workshop
from m3dspy.programs.builder import Builder
from m3dspy.programs.lms.ledger import Ledger
from m3dspy.programs.lms.model import M3dLM

ROLE, ROLLOUTS = "data_engineer", 60


@pytest.fixture(scope="module")
def workshop(practice):
    return Workshop(practice)


@pytest.fixture(scope="module")
def base():
    with serve() as address:
        yield address


def searched(name, workshop, base, threads, measured=True, **settings):
    """State of the program that was found, mean scores before and after if they are measured, and the ledger."""
    cases = {part: examples(partition.names(part, 12), ROLE, workshop) for part in ("train", "validation")}
    ledger = Ledger()
    student, teacher = (M3dLM(lm, ledger, base, **settings) for lm in ("openai/gpt-4o-mini", "openai/gpt-4o"))
    track = Track(case.exercise for case in cases["validation"])
    metric = Metric(ROLE, workshop, track)
    program = Practice(getattr(Builder(), ROLE), workshop, track)

    def mean(program):
        if measured:
            verdicts = examine(program, cases["validation"], metric, threads)
            return sum(verdict.score for verdict in verdicts) / len(verdicts)
        return None

    with dspy.context(lm=student, adapter=dspy.ChatAdapter()), contextlib.redirect_stdout(io.StringIO()):
        before = mean(program)
        given = Search(cases["train"], cases["validation"], metric, teacher, ROLLOUTS, seed=0, threads=threads)
        after = mean(OPTIMIZERS[name].search(program, given))
    return json.dumps(track.best(), sort_keys=True), before, after, ledger


@pytest.mark.soak
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_helps_a_weak_student_and_always_alike(name, workshop, base):
    state, before, after, ledger = searched(name, workshop, base, threads=1)
    assert after > before
    assert {line["model"] for line in ledger.lines} == {"openai/gpt-4o-mini", "openai/gpt-4o"}
    again, *_ = searched(name, workshop, base, threads=2)
    assert again == state


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_says_beforehand_about_what_it_will_ask(name, workshop, base):
    train, val = (len(examples(partition.names(part, 12), ROLE, workshop)) for part in ("train", "validation"))
    predictors = len(getattr(Builder(), ROLE).predictors())
    said = OPTIMIZERS[name].expected(train, val, predictors, ROLLOUTS)
    *_, ledger = searched(name, workshop, base, threads=1, measured=False)
    questions = sum(line["model"] == "openai/gpt-4o" and line["role"] == "" for line in ledger.lines)
    assert questions <= said.teacher_questions
    assert said.student_runs <= max(ROLLOUTS, 2 * val) + 3 * val


@pytest.mark.slow
def test_litellm_carries_the_same_as_the_native_client(workshop, base):
    native, *_ = searched("bootstrap", workshop, base, threads=1)
    state, before, after, ledger = searched("bootstrap", workshop, base, threads=1, engine="litellm")
    assert (state, after > before) == (native, True)
    assert all(line["input_tokens"] for line in ledger.lines)
