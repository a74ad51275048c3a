"""Names, preflight, ledger and budgets of the LM layer, over real HTTP on loopback."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import dspy
import pytest
from rules_server import serve

from m3dspy.errors import LMFailed, Stopped, UsageError
from m3dspy.programs.lms.ledger import Ledger, read_ledger, speaking
from m3dspy.programs.lms.model import M3dLM, distinct, preflight


@contextmanager
def server_that(status, body):
    """A server that gives every POST the same answer; yields its address and the list of requests it saw."""
    seen = []

    def reply(request):
        seen.append(request)
        return status, body

    with serve(reply) as base:
        yield base, seen


def completion(text, **usage):
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}


READY = completion("ready", prompt_tokens=7, completion_tokens=1, total_tokens=8)


def failure(message, code):
    return {"error": {"message": message, "type": code, "code": code}}


def test_rules_need_neither_key_nor_server():
    preflight(M3dLM("rules", Ledger()))


def test_a_misspelled_name_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match=r"No language model is called 'rulez'\. Did you mean 'rules'"):
        M3dLM("rulez", Ledger())


def test_a_missing_key_is_named_before_any_call(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UsageError, match="gpt-4o needs a key: export OPENAI_API_KEY"):
        M3dLM("gpt-4o", Ledger())


def test_a_name_may_carry_a_server_of_its_own_that_api_base_does_not_overrule(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with server_that(200, READY) as (base, seen), server_that(200, READY) as (other, strangers):
        lms = distinct([f"openai/m@{base}", "openai/n", f"openai/m@{base}"], Ledger(), other)
        for lm in lms.values():
            preflight(lm)
    assert list(lms) == [f"openai/m@{base}", "openai/n"]
    assert [request["model"] for request in seen] == ["m"]
    assert [request["model"] for request in strangers] == ["n"]


def test_one_model_at_two_servers_is_refused():
    with pytest.raises(UsageError, match=r"openai/m@http://a/v1 and openai/m@http://b/v1 are one model by name"):
        distinct(["openai/m@http://a/v1", "openai/m@http://b/v1"], Ledger())


def test_rules_have_no_server():
    with pytest.raises(UsageError, match=r"rules is built in and has no server; got rules@http://a/v1"):
        M3dLM("rules@http://a/v1", Ledger())


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (401, failure("Incorrect API key provided", "invalid_api_key"), LMFailed, "refused the key.*OPENAI_API_KEY"),
        (404, failure("The model does not exist", "model_not_found"), UsageError, "There is no model openai/m at http"),
        (429, failure("You exceeded your quota", "insufficient_quota"), LMFailed, "not paid for"),
        (400, failure("max_tokens is too large", "invalid_request_error"), LMFailed, "openai/m at http.* failed"),
    ],
)
def test_preflight_says_in_one_line_what_is_wrong(status, body, kind, words):
    with server_that(status, body) as (base, _), pytest.raises(kind, match=words) as caught:
        preflight(M3dLM("openai/m", Ledger(), api_base=base, num_retries=0, cache=False))
    assert "\n" not in str(caught.value)


def test_preflight_says_that_nobody_listens():
    with pytest.raises(LMFailed, match=r"cannot be reached.*Check --api-base"):
        preflight(M3dLM("openai/m", Ledger(), api_base="http://127.0.0.1:9/v1", num_retries=0, cache=False))


def test_every_call_is_booked_with_role_tokens_and_price(tmp_path):
    with server_that(200, READY) as (base, _):
        lm = M3dLM("openai/gpt-4o", Ledger(tmp_path / "lm.jsonl"), api_base=base, cache=False)
        with speaking("task_manager"):
            lm("first")
        lm("second")
    first, second = read_ledger(tmp_path / "lm.jsonl")
    assert (first["role"], second["role"]) == ("task_manager", "")
    assert (first["input_tokens"], first["output_tokens"]) == (7, 1)
    assert first["answer"] == ["ready"]
    assert first["cost"] == pytest.approx(7 * 2.5e-6 + 1 * 1e-5)  # the list price of gpt-4o


def test_a_copy_of_a_program_books_to_the_same_ledger():
    ledger = Ledger()
    program = dspy.Predict("question -> answer")
    program.set_lm(M3dLM("rules", ledger))
    assert program.deepcopy().lm.ledger is ledger


def test_calls_stop_at_their_number_even_inside_a_module(tmp_path):
    ledger = Ledger(tmp_path / "lm.jsonl", max_calls=2)
    lm = M3dLM("rules", ledger)
    lm("one")
    lm("two")
    with pytest.raises(Stopped, match="budget of 2 calls"), dspy.context(lm=lm):
        dspy.Predict("question -> answer")(question="three")
    assert Ledger(tmp_path / "lm.jsonl").calls == 2


def test_calls_stop_at_their_number_when_they_are_awaited_too():
    with server_that(200, READY) as (base, seen):
        lm = M3dLM("openai/m", Ledger(max_calls=1), api_base=base, cache=False)
        asyncio.run(lm.acall("one"))
        with pytest.raises(Stopped, match="budget of 1 calls"):
            asyncio.run(lm.acall("two"))
    assert len(seen) == 1


def test_a_resumed_run_remembers_what_it_spent(tmp_path):
    M3dLM("rules", Ledger(tmp_path / "lm.jsonl"))("one")
    with pytest.raises(Stopped, match="budget of 1 calls"):
        M3dLM("rules", Ledger(tmp_path / "lm.jsonl", max_calls=1))("two")


def test_dollars_stop_at_the_budget():
    with server_that(200, READY) as (base, seen):
        lm = M3dLM("openai/gpt-4o", Ledger(budget=1e-5), api_base=base, cache=False)
        lm("costs 2.75e-5")
        with pytest.raises(Stopped, match=r"budget of \$0.00 is spent"):
            lm("never sent")
    assert len(seen) == 1


def test_a_budget_of_nothing_sends_nothing():
    with server_that(200, READY) as (base, seen), pytest.raises(Stopped, match="is spent"):
        M3dLM("openai/gpt-4o", Ledger(budget=0), api_base=base, cache=False)("never sent")
    assert seen == []


def test_dollars_cannot_be_promised_where_the_price_is_not_known():
    with server_that(200, READY) as (base, _):
        lm = M3dLM("openai/my-own", Ledger(budget=1.0), api_base=base, cache=False)
        lm("of unknown price")
        with pytest.raises(Stopped, match=r"price of this language model is not known.*--max-calls"):
            lm("again")


def test_a_torn_last_line_of_the_ledger_is_passed_over(tmp_path):
    (tmp_path / "lm.jsonl").write_text('{"cached": false, "cost": 1.0}\n{"cached": fal')
    assert Ledger(tmp_path / "lm.jsonl").dollars == 1.0


def test_a_question_that_was_answered_is_never_sent_again_not_even_by_the_next_process(tmp_path):
    with server_that(200, READY) as (base, seen):
        for _ in range(2):  # a second ledger on the same file is what a restart has
            ledger = Ledger(tmp_path / "lm.jsonl", max_calls=1)
            lm = M3dLM("openai/m", ledger, api_base=base)
            assert lm("one") == ["ready"]
            assert lm("one") == ["ready"]
    assert (len(seen), ledger.calls, ledger.recalled) == (1, 1, 2)


def test_many_who_ask_the_same_at_once_pay_once():
    with server_that(200, READY) as (base, seen), ThreadPoolExecutor(8) as pool:
        lm = M3dLM("openai/m", Ledger(), api_base=base)
        assert list(pool.map(lm, ["one"] * 8)) == [["ready"]] * 8
    assert len(seen) == 1


def test_another_rollout_is_another_question():
    with server_that(200, READY) as (base, seen):
        lm = M3dLM("openai/m", Ledger(), api_base=base)
        lm("one")
        lm.copy(rollout_id=1, temperature=1.0)("one")
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (completion("") | {"choices": []}, "empty answer"),
        (completion(""), "empty answer"),
        (
            completion("half of") | {"choices": [completion("half of")["choices"][0] | {"finish_reason": "length"}]},
            "limit of output tokens",
        ),
    ],
)
def test_an_answer_of_no_use_is_named_now_and_when_it_is_remembered(body, words):
    with server_that(200, body) as (base, seen):
        lm = M3dLM("openai/m", Ledger(), api_base=base)
        for _ in range(2):
            with pytest.raises(LMFailed, match=words):
                lm("one")
    assert len(seen) == 1


def test_a_vital_model_that_is_down_stops_hard_and_one_question_too_long_does_not():
    down, too_long = failure("Incorrect API key provided", "invalid_api_key"), failure("too long", "context_length")
    with server_that(401, down) as (base, _), pytest.raises(Stopped, match="refused the key"):
        lm = M3dLM("openai/m", Ledger(), api_base=base)
        lm.vital = True
        lm("one")
    with server_that(400, too_long) as (base, _), pytest.raises(Exception, match="too long"):
        lm = M3dLM("openai/m", Ledger(), api_base=base)
        lm.vital = True
        lm("one")


def test_time_that_is_over_sends_nothing():
    with server_that(200, READY) as (base, seen), pytest.raises(Stopped, match="time of 0 minutes is over"):
        M3dLM("openai/m", Ledger(minutes=0), api_base=base)("never sent")
    assert seen == []
