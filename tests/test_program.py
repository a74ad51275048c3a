"""`--program` of run and bench, and the commands that tell about compiled programs."""

import json

import pytest
from rules_server import by_rules, serve
from test_cli import KIDNEY, one_line

from m3dspy import job
from m3dspy.errors import UsageError
from m3dspy.m3bench import task
from m3dspy.programs import artifact
from m3dspy.programs.artifact import Manifest, Scores, Usage
from m3dspy.programs.builder import Builder, _by_rules
from m3dspy.programs.lms.ledger import Ledger
from m3dspy.programs.lms.model import M3dLM
from m3dspy.programs.lms.rules import MODEL as RULES
from m3dspy.signatures.values import AS_WRITTEN, Success

LEARNED = "Learned: name the classes as the folders do."
EIGHT = Success(successes=8, runs=10, low=0.49, high=0.943)
FIVE = Success(successes=5, runs=10, low=0.237, high=0.763)


def compiled(folder, **more):
    """A program whose first prompt holds one sentence more."""
    builder = Builder()
    make_plan = builder.task_manager.make_plan
    make_plan.signature = make_plan.signature.with_instructions(f"{make_plan.signature.instructions}\n{LEARNED}")
    make_plan.demos = [{"request": "segment the liver", "plan": None, "refusal": "There are no masks."}]
    about = {"name": "brief", "made": "2026-01-01T00:00:00Z", "optimizer": "gepa", "student": "rules",
             "teacher": "gpt-4o", "improved": True}  # fmt: skip
    artifact.write(folder, builder, Manifest(**{**about, **more}), Builder())
    return folder


@pytest.fixture
def home(tmp_path):
    """A folder with a small phantom `kidney` and a program `p`."""
    task.make("CT-kidney", tmp_path / "kidney", size=task.find("CT-kidney").smallest)
    compiled(tmp_path / "p")
    return tmp_path


def run_of(home):
    (run,) = (home / "runs").glob("[!.]*")
    calls = [json.loads(line) for line in (run / "lm.jsonl").read_text().splitlines()]
    return run, calls


# ------------------------------------------------------------------------------------------------ run --program
def test_a_run_asks_with_the_compiled_prompts_and_records_the_program(m3dspy, home):
    status, _, err = m3dspy("run", KIDNEY, "--data", "kidney", "--program", "p", "--max-calls", 2)
    assert (status, "budget of 2 calls" in one_line(err)) == (1, True)
    run, (_, plan) = run_of(home)
    assert LEARNED in plan["messages"][0]["content"]
    assert "There are no masks." in plan["messages"][2]["content"]
    assert json.loads((run / "request.json").read_text())["program"] == "p"
    made = artifact.read_manifest(home / "p")
    assert artifact.read_manifest(run / "program") == made
    assert json.loads((run / "outcome.json").read_text())["program"] == f"brief ({made.program[:12]})"


def test_a_run_that_goes_on_keeps_its_program_though_the_first_copy_is_gone(m3dspy, home):
    m3dspy("run", KIDNEY, "--data", "kidney", "--program", "p", "--max-calls", 1)
    (home / "p" / "program.json").unlink()
    run, _ = run_of(home)
    request = json.loads((run / "request.json").read_text())
    (run / "request.json").write_text(json.dumps({**request, "max_calls": 2}))
    m3dspy("resume", run)
    assert LEARNED in run_of(home)[1][1]["messages"][0]["content"]


def test_without_a_program_the_run_says_so(m3dspy, home):
    m3dspy("run", KIDNEY, "--data", "kidney", "--max-calls", 1)
    run, _ = run_of(home)
    assert json.loads((run / "outcome.json").read_text())["program"] == AS_WRITTEN
    assert not (run / "program").exists()


def test_each_role_is_given_the_lm_that_the_routing_names(m3dspy, home, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    seen = []

    def reply(request):
        seen.append(request["model"])
        return by_rules(request)

    with serve(reply) as base:
        compiled(home / "p", student=f"openai/small@{base}", routing={"data_engineer": "rules"})
        status, _, err = m3dspy("run", KIDNEY, "--data", "kidney", "--program", "p", "--max-calls", 4)
    assert (status, "budget of 4 calls" in one_line(err)) == (1, True)
    _, calls = run_of(home)
    assert [(call["role"], call["model"]) for call in calls] == [
        ("", "openai/small"),
        ("", RULES),
        ("task_manager", "openai/small"),
        ("data_engineer", RULES),
    ]
    assert seen == ["small", "small"]


def test_a_program_that_names_a_server_elsewhere_is_not_followed_there_unasked(home):
    there = "openai/qwen@http://192.0.2.7:8000/v1"
    program = str(compiled(home / "p", student="gpt-4o", routing={"data_engineer": there}))
    with pytest.raises(UsageError, match=r"would send prompts, and your key, to http://192\.0\.2\.7:8000/v1"):
        job.asked_of(program, None)
    assert job.asked_of(program, None, force=True)["routing"] == {"data_engineer": there}
    assert job.asked_of(program, "rules")["lm"] == "rules"


def test_the_lm_that_is_named_overrules_routing_and_student(home):
    program = str(compiled(home / "p", student="gpt-4o", routing={"data_engineer": "rules"}))
    assert job.asked_of(program, None) == {
        "program": program, "lm": "gpt-4o", "routing": {"data_engineer": "rules"},
    }  # fmt: skip
    assert job.asked_of(program, "gpt-4o-mini") == {"program": program, "lm": "gpt-4o-mini"}
    assert job.asked_of(None, None) == {"program": None, "lm": "rules"}


def test_rules_that_write_after_another_lm_planned_are_not_trusted_blindly(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    builder = Builder()
    builder.set_lm(M3dLM("rules", Ledger()))
    assert _by_rules(builder.task_manager, builder.data_engineer)
    builder.task_manager.set_lm(M3dLM("openai/any", Ledger()))
    assert not _by_rules(builder.task_manager, builder.data_engineer)


def test_an_edited_program_is_refused_before_a_run_is_made_and_used_by_force_with_a_warning(m3dspy, home):
    text = (home / "p" / "program.json").read_text()
    (home / "p" / "program.json").write_text(text.replace(LEARNED, "Say nothing."))
    words = ["run", KIDNEY, "--data", "kidney", "--program", "p", "--max-calls", 1]
    status, _, err = m3dspy(*words)
    assert (status, "program.json is not the one" in one_line(err)) == (1, True)
    assert not (home / "runs").exists()
    m3dspy(*words, "--force")
    run, _ = run_of(home)
    assert "The compiled program: program.json is not the one" in (run / "events.jsonl").read_text()


def test_bench_runs_a_program_too_and_a_round_that_spends_its_calls_has_failed(m3dspy, tmp_path):
    compiled(tmp_path / "p")
    status, out, _ = m3dspy("bench", "--tasks", "COVID19", "--program", "p", "--max-calls", 1, "--json")
    (kept,) = tmp_path.glob("runs/bench/COVID19/round-00/out/*/program/program.json")
    assert LEARNED in kept.read_text()
    assert status == 0
    (failure,) = json.loads(out)["rows"][0]["failures"]
    assert "budget of 1 calls" in failure


def test_a_program_that_is_not_there_is_bad_usage(m3dspy, home):
    for words in (["run", KIDNEY, "--data", "kidney", "--program", "nowhere"], ["program", "show", "nowhere"]):
        status, _, err = m3dspy(*words)
        assert (status, "No compiled program is called 'nowhere'" in one_line(err)) == (2, True)


# ------------------------------------------------------------------------------------------------ show, diff, list
def test_show_tells_what_compiled_a_program_and_with_what_effect(m3dspy, tmp_path):
    spent = Usage(
        lm="gpt-4o", role="task_manager", calls=7, input_tokens=700, output_tokens=70, dollars=0.01, seconds=9
    )
    compiled(
        tmp_path / "p",
        held_out=Scores(before={"whole": FIVE}, after={"whole": EIGHT}),
        usage=(spent,),
        routing={"task_manager": "gpt-4o"},
        ended="the budget was spent",
    )
    status, out, _ = m3dspy("program", "show", "p")
    assert status == 0
    for line in (
        "held-out    whole             5/10 [24%, 76%] -> 8/10 [49%, 94%]",
        "spent       gpt-4o task_manager: 7 calls, 700 tokens in, 70 out, $0.0100, 9 s",
        "routing     task_manager: gpt-4o",
        "ended early: the budget was spent",
        "task_manager.make_plan, 1 demonstrations",
        f"    {LEARNED}",
    ):
        assert line in out.splitlines()
    found = json.loads(m3dspy("program", "show", "p", "--json")[1])
    assert (found["differences"], found["predictors"]["task_manager.make_plan"]["demos"]) == ([], 1)


def test_diff_shows_what_compiling_changed_and_nothing_else(m3dspy, tmp_path):
    compiled(tmp_path / "p")
    artifact.write(tmp_path / "q", Builder(), artifact.read_manifest(tmp_path / "p"), Builder())
    found = json.loads(m3dspy("program", "diff", "p", "--json")[1])
    assert list(found["prompts"]) == ["task_manager.make_plan"]
    added = [line for line in found["prompts"]["task_manager.make_plan"].splitlines() if line.startswith("+")]
    assert any(LEARNED in line for line in added)
    assert "There are no masks." in "\n".join(added)
    assert f"-        {LEARNED}" in m3dspy("program", "diff", "p", "q")[1]
    assert m3dspy("program", "diff", "q")[1].strip() == "The prompts are the same."


def test_list_finds_programs_below_the_runs_and_names_a_damaged_one(m3dspy, tmp_path):
    compiled(tmp_path / "runs" / "one")
    (tmp_path / "runs" / "two").mkdir()
    (tmp_path / "runs" / "two" / "manifest.json").write_text("{")
    one, two = json.loads(m3dspy("program", "list", "--json")[1])["programs"]
    assert (one["name"], one["optimizer"], one["improved"]) == ("brief", "gepa", True)
    assert "is not as m3dspy writes it" in two["error"]
    assert "none below nowhere" in m3dspy("program", "list", "--runs", "nowhere")[1]
