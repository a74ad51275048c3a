"""`m3dspy compare` over HTTP: what is counted, what ends a row or all, and how LMs are routed to roles."""

import json
import re
from pathlib import Path

import dspy
import pytest
from lms.server import repeats, serve
from PIL import Image

from m3dspy.m3bench import partition
from m3dspy.optimizers.chart import draw
from m3dspy.optimizers.compare import Contest, compare
from m3dspy.optimizers.measure import Bench, measure
from m3dspy.optimizers.practice import WHOLE
from m3dspy.optimizers.route import Assignment, assignment, assignments, below, choose, verified
from m3dspy.optimizers.session import Limits
from m3dspy.optimizers.standings import PARTS, Comparison, Measured, Route, Row, markdown
from m3dspy.optimizers.workshop import Workshop
from m3dspy.programs import artifact
from m3dspy.programs.artifact import Manifest
from m3dspy.programs.builder import Builder
from m3dspy.programs.lms.ledger import Ledger, asked
from m3dspy.programs.lms.model import M3dLM
from m3dspy.signatures.values import ROLES

REFUSED = ("forge-dicom-pictures-000000", "forge-frame-folders-000000")  # to be refused: few scripts run
BIG, MEDIUM, MINI, NANO = (f"openai/{name}" for name in ("gpt-4o", "gpt-4.1-mini", "gpt-4o-mini", "gpt-4.1-nano"))


@pytest.fixture
def only_refused(monkeypatch):
    """Comparisons on exercises that cost no more than a call or two."""
    monkeypatch.setattr(partition, "names", lambda part, count, seed=0: list(REFUSED[:count]))


@pytest.fixture
def program(tmp_path):
    """The prompts as written, and a demonstration."""
    builder = Builder()
    builder.task_manager.make_plan.demos = [{"request": "segment the liver", "plan": None, "refusal": "No masks."}]
    manifest = Manifest(name="p", made="", optimizer="bootstrap", student=MINI, teacher="gpt-4o", improved=True)
    artifact.write(tmp_path / "p", builder, manifest, Builder())
    return artifact.load(tmp_path / "p")


def contest(base, *lms, **how):
    return Contest(lms=lms, exercises=how.pop("exercises", 2), api_base=base, **how)


def measured(results, dollars=0.0):
    """Counts that do not matter here are 0; `dollars` are of one exercise."""
    named = {f"e{k}": bool(result) for k, result in enumerate(results)}
    cost = None if dollars is None else dollars * len(named)
    return Measured(
        results=named, calls=0, input_tokens=600, output_tokens=0, dollars=cost, seconds=0, unread=0, repairs=0
    )


# ------------------------------------------------------------------------------------------------- what is counted
def test_a_question_is_counted_whether_it_is_paid_for_or_remembered(program, practice, tmp_path):
    ledger = Ledger(tmp_path / "lm.jsonl")
    bench = Bench(REFUSED, Workshop(practice), ledger, 2, lambda event: None)
    with serve(log=tmp_path / "calls") as base, dspy.context(lm=M3dLM(NANO, ledger, base), adapter=dspy.ChatAdapter()):
        first = measure(bench, Builder(), "task_manager", "nano")
        paid = ledger.calls
        again = measure(bench, Builder(), "task_manager", "nano")
    assert ledger.calls == paid == first.calls > 0
    assert again == first
    assert first.dollars == pytest.approx(1e-7 * first.input_tokens + 4e-7 * first.output_tokens, abs=1e-6)


def test_answers_that_cannot_be_read_are_counted_each(practice):
    ledger = Ledger()
    bench = Bench(REFUSED[:1], Workshop(practice), ledger, 1, lambda event: None)
    with serve(fault="prose") as base, dspy.context(lm=M3dLM(NANO, ledger, base), adapter=dspy.ChatAdapter()):
        found = measure(bench, Builder(), "task_manager", "nano")
    assert not any(found.results.values())
    assert (found.calls, found.unread, found.repairs) == (ledger.calls, ledger.calls, 1)


def test_an_empty_answer_counts_as_unread(practice):
    ledger = Ledger()
    bench = Bench(REFUSED[:1], Workshop(practice), ledger, 1, lambda event: None)
    with serve(fault="null") as base, dspy.context(lm=M3dLM(NANO, ledger, base), adapter=dspy.ChatAdapter()):
        found = measure(bench, Builder(), "task_manager", "nano")
    assert found.unread == found.calls == ledger.calls > 0


def test_keys_are_collected_only_inside():
    ledger = Ledger()
    with asked() as keys, ledger.asking("a"):
        pass
    with ledger.asking("b"):
        pass
    assert keys == ["a"]


# ------------------------------------------------------------------------------------------------- what ends it
@pytest.mark.usefixtures("only_refused")
def test_a_comparison_done_again_asks_nothing_and_finds_the_same(program, practice, tmp_path):
    log, out = tmp_path / "calls", tmp_path / "out"
    with serve(log=log) as base:
        stopped = compare(program, contest(base, BIG, MEDIUM), Limits(max_calls=4), out, practice, 2)
        whole = compare(program, contest(base, BIG, MEDIUM), Limits(), out, practice, 1)
        calls = log.read_text()
        again = compare(program, contest(base, BIG, MEDIUM), Limits(), out, practice, 2)
    assert "budget of 4 calls" in stopped.problem
    assert again == whole == Comparison.model_validate_json((out / "comparison.json").read_text())
    assert log.read_text() == calls
    assert repeats(log) == 0
    assert [(row.lm, row.compiled) for row in whole.rows] == [
        (BIG, True),
        (BIG, False),
        (MEDIUM, True),
        (MEDIUM, False),
    ]
    assert all(set(row.parts) == set(PARTS) for row in whole.rows)


@pytest.mark.usefixtures("only_refused")
def test_an_lm_that_is_down_ends_its_own_rows_only(program, practice, tmp_path):
    with serve(fault="401", fault_model="gpt-4.1-nano", fault_after=2) as base:
        found = compare(program, contest(base, NANO, MINI), Limits(), tmp_path / "out", practice, 1)
    dead, *_, live = found.rows
    assert "gpt-4.1-nano" in dead.ended and "refused the key" in dead.ended
    assert WHOLE not in dead.parts
    assert (live.ended, set(live.parts)) == ("", set(PARTS))
    assert dead.ended in found.problem
    assert f"{NANO}, compiled ended early" in (tmp_path / "out" / "comparison.md").read_text()


@pytest.mark.usefixtures("only_refused")
def test_a_model_that_does_not_exist_is_a_row_that_says_so(m3dspy, program, practice, tmp_path):
    with serve() as base:
        words = ("--lm", "openai/gpt-9", "--lm", "rules", "--api-base", base, "--exercises", 2, "--practice", practice)
        status, out, err = m3dspy("compare", program.folder, *words, "--out", tmp_path / "out", "--json")
    assert status == 1
    assert "Ended early: openai/gpt-9: There is no model openai/gpt-9" in err
    found = json.loads(out)
    assert [bool(row["parts"]) for row in found["rows"]] == [False, False, True, True]
    assert found["rows"][2]["parts"][WHOLE]["dollars"] == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("nowhere", "--lm", "rules"), "No compiled program is called 'nowhere'"),
        (("p", "--lm", "gtp-4o"), "No language model is called 'gtp-4o'"),
        (("p", "--lm", "openai/a@http://x/v1", "--lm", "openai/a@http://y/v1"), "are one model by name"),
        (("p", "--route", *(w for k in range(6) for w in ("--lm", f"openai/{k}@http://x/v1"))), "weighs 5 .* got 6"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_begun(m3dspy, program, words, line):
    status, out, err = m3dspy("compare", *words)
    assert (status, out) == (2, "")
    assert re.search(f"(?m)^m3dspy: .*{line}", err)
    assert not Path("runs").exists()


# ------------------------------------------------------------------------------------------------- what is shown
@pytest.mark.usefixtures("only_refused")
def test_rules_stand_beside_as_no_language_model(program, practice, tmp_path):
    found = compare(program, contest(None, "rules"), Limits(), tmp_path, practice, 1)
    text = (tmp_path / "comparison.md").read_text()
    assert "| rules (no language model), compiled |" in text
    assert found.rows[0].parts["task_manager"].success.runs == 2
    assert found.rows[0].parts["data_engineer"].success.runs == 0  # what must be refused is not for it
    assert Image.open(tmp_path / "comparison.png").width == 800


def test_an_unknown_price_is_never_shown_as_nothing(tmp_path):
    parts = dict.fromkeys(PARTS, measured([1, 0], dollars=None))
    found = Comparison(program="p", exercises=("e0", "e1"), rows=(Row(lm="openai/own", compiled=True, parts=parts),))
    assert "price not known" in markdown(found)
    assert "$" not in markdown(found)
    draw(found, tmp_path / "plot.png")
    assert Image.open(tmp_path / "plot.png").size == (800, 500)


# ------------------------------------------------------------------------------------------------- routing
def test_an_assignment_succeeds_where_all_its_roles_do_and_costs_what_they_cost():
    everything, dear = measured([1, 1, 0], 0.5), measured([1, 1, 1], 1)
    most = dear.model_copy(update={"results": {"e0": False, "e2": True}, "dollars": 2.0})  # e1 must be refused
    found = assignment(("a", "b", "b", "b"), [everything, dear, most, dear])
    assert found.results == (False, True, False)
    assert found.dollars == 0.5 + 1 + 1 + 1


def test_all_assignments_are_tried():
    parts = {name: dict.fromkeys(ROLES, measured([1], cost)) for name, cost in (("a", 1), ("b", 2), ("c", 3))}
    assert len({each.lms for each in assignments(parts)}) == 3**4


def test_a_cheap_lm_gets_the_roles_that_it_can_do():
    good, bad = [1] * 20, [1] * 10 + [0] * 10
    parts = {
        "strong": dict.fromkeys(ROLES, measured(good, 10)),
        "weak": dict.fromkeys(ROLES, measured(bad, 1)) | {"model_trainer": measured(good, 1)},
    }
    tried = assignments(parts)
    assert choose(tried, tried).lms == ("strong", "strong", "strong", "weak")


def test_what_is_not_below_the_best_is_neither_significantly_nor_by_much_below():
    best = [True] * 20
    assert not below([False] + [True] * 19, best)  # 5 points
    assert below([False] * 2 + [True] * 18, best)  # 10 points, p = 1/4
    many = [True] * 200
    assert below([False] * 5 + [True] * 195, many)  # 2.5 points, p = 1/32
    assert not below([False] * 4 + [True] * 196, many)  # 2 points, p = 1/16


def test_of_equally_cheap_assignments_the_more_successful_is_chosen():
    worse, better = (Assignment((name,) * 4, (True,) * count + (False,) * (40 - count), 1.0) for name, count in
                     (("a", 39), ("b", 40)))  # fmt: skip
    both = [worse, better]
    assert choose(both, both) == choose(both[::-1], both) == better


def test_a_route_that_does_worse_as_a_whole_does_not_hold():
    single = measured([1] * 10, 5)
    cheap_and_good, cheap_and_bad = measured([1] * 10, 2), measured([1] * 8 + [0] * 2, 2)
    good, bad = (verified(Route(single="big", whole=each), single) for each in (cheap_and_good, cheap_and_bad))
    assert good.holds and good.said.startswith("The route costs $2 a run")
    assert not bad.holds and "does not hold" in bad.said
    assert bad.p_worse == 1 / 4


@pytest.mark.usefixtures("only_refused")
def test_without_a_cheaper_assignment_there_is_no_route_and_that_is_no_failure(m3dspy, program, practice, tmp_path):
    with serve() as base:
        words = ("--lm", MINI, "--api-base", base, "--exercises", 2, "--practice", practice, "--route")
        status, out, _ = m3dspy("compare", program.folder, *words, "--out", tmp_path / "out")
    assert status == 0
    assert "there is no route" in out
    assert not (tmp_path / "out" / "routed").exists()


@pytest.mark.soak
def test_a_route_costs_less_than_the_best_single_lm_and_is_written(program, practice, tmp_path):
    with serve() as base:
        lms = contest(base, BIG, MEDIUM, MINI, NANO, exercises=6, seed=2, route=True)  # six on which one holds
        found = compare(program, lms, Limits(), tmp_path / "out", practice, 2)
    assert found.problem == "" and found.route and found.route.holds
    single = next(row for row in found.rows if row.lm == found.route.single and row.compiled).parts[WHOLE]
    assert found.route.whole.dollars < single.dollars
    assert found.route.whole.success.successes >= single.success.successes
    routed = artifact.load(found.routed)
    assert (routed.manifest.name, routed.manifest.routing) == ("p-routed", found.route.routing)
    assert routed.manifest.arguments["routed_from"] == program.manifest.title
    assert artifact.program_hash(routed.builder) == artifact.program_hash(program.builder)
