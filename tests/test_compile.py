"""`m3dspy compile` over HTTP: what it refuses, what stops it, what it costs, and that a killed one repeats nothing."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from lms.server import repeats, serve

from m3dspy.errors import LMFailed, Stopped, UsageError
from m3dspy.optimizers.compile import Limits, Order, checked, compile_program, names_of
from m3dspy.programs import artifact
from m3dspy.programs.lms.ledger import read_ledger

HEAD = ("compile", "--teacher", "gpt-4o", "--student", "openai/gpt-4o-mini")
TINY = ("--exercises", "4", "--rollouts", "8")
PLAIN = 4  # exercises


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    for key in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(key, raising=False)


def order(base, **how):
    given = {"teacher": "gpt-4o", "student": "openai/gpt-4o-mini", "optimizer": "bootstrap", "exercises": PLAIN}
    return Order(**given | {"rollouts": 8, "api_base": base} | how)


# ---------------------------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--teacher", "gpt-4o"), "gpt-4o-mini needs a key: export OPENAI_API_KEY"),
        (("--teacher", "gpt-4o", "--student", "gpt-4o"), "student is the teacher.*cheaper"),
        (("--teacher", "gpt-4o", "--student", "openai/gpt-4o"), "student is the teacher.*cheaper"),
        (("--teacher", "gpt-4o", "--student", "rules"), "rules reads no prompts"),
        (
            ("--teacher", "gtp-4o", "--student", "ollama_chat/llama3.1"),
            "No language model is called 'gtp-4o'. Did you mean 'gpt-4o'",
        ),
        (("--teacher", "gpt-4o", "--optimizer", "gepaa"), "No optimizer is called 'gepaa'. Did you mean 'gepa'"),
        (("--teacher", "gpt-4o", "--tasks", "ADNI"), "No training task is called 'ADNI'"),
        (("--teacher", "gpt-4o", "--exercises", "2"), ""),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_asked(m3dspy, words, line):
    status, out, err = m3dspy("compile", *words)
    assert (status, out) == (2, "")
    assert not Path("runs").exists() or not list(Path("runs").rglob("lm.jsonl"))
    if line:
        [said] = [text for text in err.splitlines() if text.startswith("m3dspy: ")]
        assert re.search(line, said)


@pytest.mark.parametrize("limit", [("--max-calls", "0"), ("--budget", "0")])
def test_a_budget_of_nothing_sends_nothing(m3dspy, tmp_path, limit):
    log = tmp_path / "calls.jsonl"
    with serve(log=log) as base:
        status, _, err = m3dspy(*HEAD, "--api-base", base, *limit)
    assert status == 1
    assert "is spent" in err
    assert not log.exists()


def test_a_dry_run_tells_calls_tokens_and_dollars_of_each_model_and_sends_nothing(m3dspy, tmp_path, practice):
    log = tmp_path / "calls.jsonl"
    with serve(log=log) as base:
        where = ("--api-base", base, "--practice", practice)
        status, out, _ = m3dspy(*HEAD, *TINY, *where, "--dry-run", "--json", "--max-calls", "3")
        assert "--max-calls 3 would end it early" in m3dspy(*HEAD, *TINY, *where, "--dry-run", "--max-calls", "3")[1]
    assert status == 0
    student, teacher = json.loads(out)["costs"]
    assert (student["lm"], teacher["lm"]) == ("openai/gpt-4o-mini", "gpt-4o")
    assert student["dollars"] == pytest.approx(
        1.5e-7 * student["input_tokens"] + 6e-7 * student["output_tokens"], abs=0.006
    )
    assert not log.exists()


def test_tasks_narrow_what_is_learned_from_and_not_what_is_held_out(tmp_path):
    few = names_of(order("", tasks=("table-words", "COVID19"), exercises=8))
    assert {name.rpartition("-")[0] for name in few["train"]} <= {"forge-table-words", ""}
    assert few["held-out"] == names_of(order("", exercises=8))["held-out"]
    assert len(few["train"]) == 8


def test_the_folder_is_named_by_what_the_program_depends_on():
    assert order("http://127.0.0.1:1/v1").id == order("http://127.0.0.1:2/v1").id
    assert order("").id != order("", seed=1).id
    with pytest.raises(UsageError, match="has nothing to learn"):
        checked(order("", student="gpt-4o"))


# ---------------------------------------------------------------------------------------------------- faults
@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("401", LMFailed, "refused the key.*OPENAI_API_KEY"),
        ("404", UsageError, "There is no model"),
        ("quota", LMFailed, "not paid for"),
        ("no choices", LMFailed, "failed|empty answer"),
        ("null", LMFailed, "empty answer"),
        ("cut", LMFailed, "failed"),
        ("length", LMFailed, "limit of output tokens"),
    ],
)
def test_a_model_that_cannot_serve_is_found_before_any_work(tmp_path, practice, fault, kind, words):
    with serve(fault=fault) as base, pytest.raises(kind, match=words) as caught:
        compile_program(order(base), Limits(), tmp_path, practice, 1)
    assert "\n" not in str(caught.value)


@pytest.fixture
def impatient(monkeypatch):
    """No waiting between tries, and a second of silence is too long."""
    monkeypatch.setattr("m3dspy.programs.lms.model.ANSWER_SECONDS", 1)
    monkeypatch.setattr("dspy.clients.execution._delay", lambda *ignored: 0.0)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("401", "refused the key"),
        ("quota", "not paid for"),
        ("429", "out of quota"),
        ("500", "trouble of its own"),
        ("503", "trouble of its own"),
        ("cut", "failed"),
        ("silence", "did not answer|cannot be reached"),
        ("dropped", "cannot be reached"),
    ],
)
def test_a_model_that_dies_half_way_ends_it_in_one_line_and_what_was_paid_for_is_kept(
    tmp_path, practice, impatient, fault, words
):
    with serve(fault=fault, fault_after=8, delay=3) as base:
        folder, manifest = compile_program(order(base), Limits(), tmp_path, practice, 1)
    assert re.search(words, manifest.ended)
    assert "\n" not in manifest.ended
    assert not manifest.improved
    assert len(list(read_ledger(folder / "work" / "lm.jsonl"))) == 8
    assert artifact.load(str(folder)).manifest == manifest  # what was reached can be used
    assert sum(map(len, manifest.tasks.values())) == 3 * PLAIN and len(manifest.tasks_hash) == 64


@pytest.mark.parametrize("fault", ["prose", "no choices", "null", "length", "refusal"])
def test_a_student_without_a_usable_answer_ends_it_before_the_teacher_is_paid(tmp_path, practice, fault):
    with serve(fault=fault, fault_model="gpt-4o-mini", fault_after=2) as base:
        folder, manifest = compile_program(order(base), Limits(), tmp_path, practice, 1)
    assert "openai/gpt-4o-mini gave no usable answer as task_manager, 4 times" in manifest.ended
    models = [line["model"] for line in read_ledger(folder / "work" / "lm.jsonl")]
    assert models.count("openai/gpt-4o") == 1  # its preflight


def test_a_budget_that_is_spent_keeps_what_was_reached_and_the_same_order_goes_on(tmp_path, practice):
    log = tmp_path / "calls.jsonl"
    with serve(log=log) as base:
        _, manifest = compile_program(order(base), Limits(max_calls=12), tmp_path, practice, 1)
        assert manifest.ended.startswith("The budget of 12 calls")
        folder, manifest = compile_program(order(base), Limits(max_calls=14), tmp_path, practice, 1)
        assert manifest.ended.startswith("The budget of 14 calls")
    assert len(list(read_ledger(folder / "work" / "lm.jsonl"))) == 14
    assert repeats(log) == 0


# ---------------------------------------------------------------------------------------------------- the whole
@pytest.mark.soak
def test_killed_twice_it_repeats_no_call_and_ends_in_the_same_program(tmp_path, practice):
    def start(base, home):
        command = [sys.executable, "-m", "m3dspy", *HEAD, *TINY, "--optimizer", "mipro", "--api-base", base]
        command += ["--practice", str(practice), "--out", str(home), "--threads", "1"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    once, log, home = tmp_path / "once.jsonl", tmp_path / "calls.jsonl", tmp_path / "killed"
    with serve(log=once) as base:
        straight = start(base, tmp_path / "straight")
        out, err = straight.communicate()
    assert "improved: " in out, err
    [folder] = (tmp_path / "straight").iterdir()
    whole = artifact.read_manifest(folder)
    calls = len(once.read_text().splitlines())

    started = []
    for share in (0.3, 0.5):  # of all calls; the second start makes the calls from 30 % to 80 %
        with serve(log=log, die_at=round(share * calls), kill=lambda: started[-1].kill()) as base:
            started.append(start(base, home))
            started[-1].communicate()
            assert started[-1].returncode == -9
    with serve(log=log) as base:
        process = start(base, home)
        process.communicate()
    [folder] = home.iterdir()
    assert len(log.read_text().splitlines()) == calls
    assert repeats(log) == repeats(once)  # MIPROv2 asks some questions twice on purpose, for another answer
    ended = artifact.read_manifest(folder)
    assert (ended.program, ended.held_out) == (whole.program, whole.held_out)


def test_two_cannot_compile_the_same_at_once(tmp_path, practice):
    from filelock import FileLock

    from m3dspy.errors import M3Error

    with serve() as base:
        work = tmp_path / order(base).id / "work"
        work.mkdir(parents=True)
        with FileLock(work / "lock"), pytest.raises(M3Error, match="Another process is at work"):
            compile_program(order(base), Limits(), tmp_path, practice, 1)


def test_stopped_is_no_exception_that_an_optimizer_could_swallow():
    assert not issubclass(Stopped, Exception)
