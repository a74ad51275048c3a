"""The simulated models err as often as they are said to, learn from prompts, and fail over HTTP as real servers do."""

import json
import re
import runpy
import sys
import threading
import urllib.request

import dspy
import numpy as np
import pytest
from dspy.propose.grounded_proposer import GroundedProposer
from dspy.teleprompt.gepa.instruction_proposal import InstructionProposer
from dspy.utils.exceptions import AdapterParseError
from lms.mending import mended
from lms.mistakes import MISTAKES, prepare, smoke
from lms.server import FAULTS, repeats, serve
from lms.simulated import SIGNATURES, Simulated, further_instructions, right_answer
from PIL import Image
from test_emit import HEADS as TWO_CLASSES
from test_emit import classifier
from test_rules import ADNI, CT, FOLDERS

from m3dspy.errors import DataError
from m3dspy.programs.lms import prompt, rules
from m3dspy.programs.lms.ledger import Ledger
from m3dspy.programs.lms.model import M3dLM
from m3dspy.programs.task_manager import check_plan
from m3dspy.signatures.data_engineer import LookCloser, WritePrepare
from m3dspy.signatures.model_trainer import JudgeSmokeRun
from m3dspy.signatures.module_architect import DesignTraining
from m3dspy.signatures.repair import Repair
from m3dspy.signatures.task_manager import MakePlan
from m3dspy.signatures.values import Caps, DataCard, Index, IndexSummary, Machine
from m3dspy.workspace.emit import catalogue, check_design, emit
from m3dspy.workspace.indexing import check_index
from m3dspy.workspace.look import look
from m3dspy.workspace.preparing import read_index

CARD = DataCard(
    name="ADNI",
    text="Volumes in `ADNI_PT`; `Group` holds the class. Use only `AD` and `MCI`. "
    "Use at most 40 training and 12 test images, balanced.",
)
TEACHER, STUDENT = Simulated("gpt-4o", 1.0), Simulated("gpt-4o-mini", 0.55)
CHAT = dspy.ChatAdapter()


def prompted(signature, inputs, demos=(), instructions=""):
    """(system, messages) of a question, as DSPy would send it."""
    told = signature.with_instructions(f"{signature.instructions}\n{instructions}")
    system, *messages = CHAT.format(told, list(demos), inputs)
    return system["content"], [(message["role"], message["content"]) for message in messages]


def plan_question(request, fingerprint, cards=(), complaint=""):
    return {"request": request, "fingerprint": fingerprint, "cards": list(cards), "complaint": complaint}


def planned(inputs):
    return CHAT.parse(MakePlan, rules.answer(*prompted(MakePlan, inputs)))["plan"]


def script_question(plan, fingerprint):
    return {"plan": plan, "card": "", "fingerprint": fingerprint, "notes": "", "manual": "", "complaint": ""}


def design_question(plan, fingerprint):
    index = IndexSummary(task=plan.task, labels=plan.labels, cases={"training": 14}, patients={"training": 14})
    question = {"request": "", "plan": plan, "index": index, "fingerprint": fingerprint, "machine": Machine()}
    return question | {"catalogue": catalogue(plan.task), "complaint": ""}


def pictures(root):
    """Class folders of 2 x 12 pictures that hold nothing of a patient; every second nearly repeats the one before."""
    noise = np.random.default_rng(0)
    for name in ("cyst", "stone"):
        (root / "folders" / name).mkdir(parents=True)
        for number in range(12):
            if number % 2 == 0:
                grey = noise.integers(0, 256, (32, 32), dtype=np.uint8)
            Image.fromarray(grey).save(root / "folders" / name / f"{number}.png")


def table(root):
    """A table of 24 patients with two pictures each, beside the pictures."""
    noise, rows = np.random.default_rng(1), ["file,subject,Finding,Use"]
    (root / "table/images").mkdir(parents=True)
    for number in range(48):
        grey = noise.integers(0, 256, (32, 32), dtype=np.uint8)
        Image.fromarray(grey).save(root / f"table/images/img{number:03}.png")
        patient = number // 2
        use = ("train", "train", "val", "test")[patient // 2 % 4]
        rows.append(f"img{number:03}.png,P{patient:03},{('Normal', 'Tumor')[patient % 2]},{use}")
    (root / "table/list.csv").write_text("\n".join(rows) + "\n")


def masks(root):
    """Twelve pictures, each with a mask of two values and the names of both."""
    (root / "masks/images").mkdir(parents=True)
    (root / "masks/masks").mkdir()
    for number in range(12):
        grey = np.random.default_rng(number).integers(0, 256, (32, 32), dtype=np.uint8)
        mask = np.zeros((32, 32), np.uint8)
        mask[4:12, 4:12], mask[16:28, 16:28] = 1, 2
        Image.fromarray(grey).save(root / f"masks/images/case_{number:03}.png")
        Image.fromarray(mask).save(root / f"masks/masks/case_{number:03}.png")
    (root / "masks/labels.json").write_text('{"1": "left kidney", "2": "right kidney"}')


REQUESTS = {
    "folders": "tell cysts from stones",
    "table": "tell tumor from normal tissue",
    "masks": "segment both kidneys",
}


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Name -> (folder, fingerprint, plan) of datasets that are really there."""
    root = tmp_path_factory.mktemp("real")
    for make in (pictures, table, masks):
        make(root)
    found = {}
    for name, request in REQUESTS.items():
        fingerprint = look(root / name)
        found[name] = (root / name, fingerprint, planned(plan_question(request, fingerprint)))
    folder, fingerprint, plan = found["table"]
    capped = plan.model_copy(update={"caps": Caps(training=12, test=6, balanced=True)})
    return found | {"capped": (folder, fingerprint, capped)}


PLAN_QUESTIONS = (
    plan_question("diagnose dementia", ADNI, [CARD]),
    plan_question("tell cysts from stones", FOLDERS),
    plan_question("segment both lungs and the infection on chest CT", CT),
    plan_question("segment the liver in abdominal CT", CT),
)


def expert(signature, inputs):
    return CHAT.parse(signature, rules.answer(*prompted(signature, inputs)))


# ------------------------------------------------------------------------------------------------ the teacher
def test_a_teacher_answers_every_signature_as_the_experts_do(real):
    asked = [(MakePlan, question) for question in PLAN_QUESTIONS]
    asked += [(WritePrepare, script_question(plan, fingerprint)) for _, fingerprint, plan in real.values()]
    asked += [(DesignTraining, design_question(plan, fingerprint)) for _, fingerprint, plan in real.values()]
    asked += [(JudgeSmokeRun, {"design": classifier(), "script": "", "log": "ended well"})]
    asked += [(Repair, {"role": "data_engineer", "work": "", "complaint": "adni.csv has no column 'Sub'."})]
    asked += [(LookCloser, {"plan": real["table"][2], "card": "", "fingerprint": ADNI})]
    for signature, inputs in asked:
        question = prompted(signature, inputs)
        assert CHAT.parse(signature, TEACHER.answer(*question)) == CHAT.parse(signature, rules.answer(*question))


def test_a_teacher_mends_a_script_that_lost_an_import_to_the_very_bytes_that_were_emitted(tmp_path):
    sound = (emit(classifier(), TWO_CLASSES, tmp_path) / "train.py").read_text()
    broken = sound.replace("import torch\n", "", 1)
    assert broken != sound
    inputs = {"design": classifier(), "script": broken, "log": "failed\nNameError: name 'torch' is not defined"}
    answer = CHAT.parse(JudgeSmokeRun, TEACHER.answer(*prompted(JudgeSmokeRun, inputs)))
    assert answer["verdict"] == "repair"
    assert answer["mended"].code == sound.strip()


@pytest.fixture
def gepa_feedback():
    return [
        {
            "Inputs": {"plan": "..."},
            "Generated Outputs": {"prepare": "..."},
            "Feedback": "An answer was refused: table gives '/data/list.csv', which leaves the dataset folder.",
        }
    ]


def reflect(name, instruction, feedback):
    """What GEPA makes of a model's answer."""
    with serve() as base, dspy.context(lm=M3dLM(f"openai/{name}", Ledger(), api_base=base, cache=False)):
        return InstructionProposer()({"write": instruction}, {"write": feedback}, ["write"])["write"]


def test_a_teacher_adds_the_rule_that_the_feedback_is_about_for_gepa(gepa_feedback):
    old = WritePrepare.instructions
    (rule,) = [mistake.rule for mistake in prepare.MISTAKES if mistake.name == "absolute path"]
    assert reflect("gpt-4o", old, gepa_feedback) == f"{old}\n- {rule}".strip()


def test_who_is_no_teacher_gives_the_instruction_back(gepa_feedback):
    assert reflect("gpt-4.1-nano", WritePrepare.instructions, gepa_feedback) == WritePrepare.instructions.strip()


def test_no_more_than_three_rules_are_added_at_a_time(gepa_feedback):
    words = "has no column; leaves the dataset folder; invalid syntax; two splits; no row of; the caps"
    new = reflect("gpt-4o", WritePrepare.instructions, [gepa_feedback[0] | {"Feedback": words}])
    assert new.count("\n- ") == WritePrepare.instructions.count("\n- ") + 3


def test_a_teacher_answers_the_five_questions_of_mipro():
    program = dspy.Predict(MakePlan)
    trainset = [dspy.Example(request=word).with_inputs("request") for word in ("a", "b")]
    with serve() as base:
        lm = M3dLM("openai/gpt-4o", Ledger(), api_base=base, cache=False)
        proposer = GroundedProposer(lm, program, trainset)
        proposed = proposer.propose_instruction_for_predictor(program, program, 0, [[[], []]], 1, {}, tip="Be brief.")
    assert proposer.data_summary.startswith("Requests for models")
    assert proposed.startswith(MakePlan.instructions.strip().splitlines()[0])
    rules_of_plan = [mistake.rule for mistake in MISTAKES if mistake.field in ("plan", "")]
    assert 1 <= sum(rule in proposed for rule in rules_of_plan) < len(rules_of_plan)


# ------------------------------------------------------------------------------------------------ students
def sixty():
    return [plan_question(f"diagnose dementia, study {number}", ADNI, [CARD]) for number in range(60)]


def rate(name, demos=(), instructions="", student=STUDENT):
    """On how many of sixty questions it makes the mistake."""
    made = [student.mistakes(*prompted(MakePlan, inputs, demos, instructions)) for inputs in sixty()]
    return sum(name in names for names in made)


def test_a_mistake_is_made_as_often_as_its_rate_says():
    for name, base in (("plan caps", 0.4), ("plan patient", 0.35), ("plan column", 0.3)):
        for skill in (0.25, 0.55):
            expected = 60 * base * (1 - skill)
            made = rate(name, student=Simulated("some", skill))
            assert abs(made - expected) < 3 * expected**0.5  # three standard deviations, and a little more


def test_the_better_the_model_the_fewer_its_mistakes():
    models = [Simulated("some", skill) for skill in (0.25, 0.55, 0.8, 1.0)]
    wrong = [sum(bool(model.mistakes(*prompted(MakePlan, inputs))) for inputs in sixty()) for model in models]
    assert wrong == sorted(wrong, reverse=True)
    assert (wrong[0] > 45, wrong[-1]) == (True, 0)


def shown(*inputs):
    """Right demonstrations of plans."""
    return [question | expert(MakePlan, question) for question in inputs]


def test_right_demonstrations_of_the_same_kind_all_but_end_a_mistake():
    before = rate("plan caps")
    demos = shown(*(plan_question(f"diagnose dementia {word}", ADNI, [CARD]) for word in ("now", "soon", "later")))
    assert before >= 6
    assert rate("plan caps", demos) <= 1


def test_a_demonstration_of_another_kind_helps_less_and_one_that_lacks_the_thing_not_at_all():
    same = shown(plan_question("diagnose dementia now", ADNI, [CARD]))
    other = shown(plan_question("segment the left lung on chest CT", CT))
    without = shown(plan_question("tell cysts from stones", FOLDERS))
    weak = Simulated("weak", 0.0)
    plain, like, unlike = (rate("dims", demos, student=weak) for demos in ((), same, other))
    assert like < unlike < plain
    assert rate("plan caps", without, student=weak) == rate("plan caps", student=weak)


def test_a_rule_in_the_instructions_makes_its_mistake_rarer_and_no_other():
    (rule,) = [mistake.rule for mistake in MISTAKES if mistake.name == "plan caps"]
    weak = Simulated("weak", 0.0)
    assert rate("plan caps", instructions=rule, student=weak) < rate("plan caps", student=weak) / 2
    assert rate("plan column", instructions=rule, student=weak) == rate("plan column", student=weak)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: f"{mistake.field} {mistake.name}")
def test_a_rule_is_known_by_its_own_words_alone(mistake):
    told = [
        other.name for other in MISTAKES if other.field == mistake.field and re.search(other.told, mistake.rule, re.I)
    ]
    assert told == [mistake.name]


@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_signatures_own_words_are_no_further_instructions(signature):
    system = CHAT.format_system_message(signature)
    assert further_instructions(system) == ""
    assert further_instructions(f"{system}\n        Copy the caps.") == "Copy the caps."


def test_the_same_prompt_gets_the_same_answer():
    question = prompted(MakePlan, sixty()[0])
    assert STUDENT.answer(*question) == Simulated("gpt-4o-mini", 0.55).answer(*question)


def test_a_complaint_mends_its_mistake_with_some_models_and_leaves_the_others():
    complaint = "adni.csv has no column 'group'; it has Group, Subject."
    weak = Simulated("weak", 0.0)
    before = [weak.mistakes(*prompted(MakePlan, q)) for q in sixty()]
    after = [weak.mistakes(*prompted(MakePlan, q | {"complaint": complaint})) for q in sixty()]
    slips = [("plan column" in one, "plan column" in other) for one, other in zip(before, after, strict=True)]
    assert 0 < sum(other for _, other in slips) < sum(one for one, _ in slips)
    assert [[n for n in names if n != "plan column"] for names in before] == [
        [n for n in names if n != "plan column"] for names in after
    ]


# ------------------------------------------------------------------------------------------------ what mistakes lead to
def slip(mistake, signature, inputs):
    """The completion with this mistake in an otherwise right answer; None where it cannot be made."""
    system, messages = prompted(signature, inputs)
    question = prompt.read(system, messages)
    given = mistake.spoil(right_answer(question, rules.answer(system, messages)), question.inputs)
    return question.answer(given) if isinstance(given, dict) else given


def named(field):
    return pytest.mark.parametrize(
        "mistake", [m for m in MISTAKES if m.field in ("", field)], ids=lambda mistake: mistake.name
    )


def slips(mistake, signature, questions):
    """(inputs, parsed answer or None if it cannot be read) wherever the mistake can be made: at least once."""
    found = [(inputs, slip(mistake, signature, inputs)) for inputs in questions]
    found = [(inputs, text) for inputs, text in found if text is not None]
    assert found
    for inputs, text in found:
        try:
            yield inputs, CHAT.parse(signature, text)
        except AdapterParseError:
            yield inputs, None


@named("plan")
def test_a_mistake_in_a_plan_is_refused_or_leads_to_another_plan(mistake):
    for inputs, answer in slips(mistake, MakePlan, PLAN_QUESTIONS):
        right = expert(MakePlan, inputs)["plan"]
        plan = answer and answer["plan"]
        assert answer is None or (plan and check_plan(plan, inputs["fingerprint"], inputs["cards"])) or plan != right


def index_by(code, plan, root, out, monkeypatch):
    """The index that a prepare.py writes; None where it fails or is refused."""
    out.mkdir(exist_ok=True)
    (out / "prepare.py").write_text(code)
    monkeypatch.setattr(sys, "argv", ["prepare.py", "--data", str(root), "--out", str(out)])
    try:
        runpy.run_path(str(out / "prepare.py"))
        index = read_index(out)
    except (DataError, SyntaxError, AttributeError):
        return None
    return None if check_index(index, root, plan.caps) or set(index.labels) != set(plan.labels) else index


@named("prepare")
def test_a_mistake_in_a_script_fails_or_leads_to_another_index(mistake, real, tmp_path, monkeypatch):
    questions = {id(plan): (root, script_question(plan, fingerprint)) for root, fingerprint, plan in real.values()}
    for inputs, answer in slips(mistake, WritePrepare, [question for _, question in questions.values()]):
        root, plan = questions[id(inputs["plan"])][0], inputs["plan"]
        right = index_by(expert(WritePrepare, inputs)["prepare"].code, plan, root, tmp_path / "right", monkeypatch)
        assert right is not None
        if answer is not None:
            assert index_by(answer["prepare"].code, plan, root, tmp_path / "wrong", monkeypatch) != right


@named("design")
def test_a_mistake_in_a_design_is_refused_or_against_what_the_data_says(mistake, real):
    plans = [(plan, fingerprint) for _, fingerprint, plan in real.values()]
    plans.append((planned(PLAN_QUESTIONS[2]), CT))
    for inputs, answer in slips(mistake, DesignTraining, [design_question(*one) for one in plans]):
        if answer is None:
            continue
        design, plan = answer["design"], inputs["plan"]
        values = tuple(range(1, len(plan.labels) + 1)) if plan.task == "segmentation" else ()
        index = Index(task=plan.task, labels=plan.labels, values=values)
        shape = next(group.shape.most for group in inputs["fingerprint"].groups if group.pattern == plan.images)
        against = [
            plan.sided and {3: 0, 2: 1}[plan.dims] in design.flips,
            design.intensity == "window" and plan.modality != "CT",
            max(design.size) > 2 * max(shape),
        ]
        assert check_design(design, index) or any(against)


@named("verdict")
def test_a_mistake_about_a_failed_script_leaves_it_unmended(mistake, tmp_path):
    sound = (emit(classifier(), TWO_CLASSES, tmp_path) / "train.py").read_text()
    broken = sound.replace("import torch\n", "", 1)
    inputs = {"design": classifier(), "script": broken, "log": "failed\nNameError: name 'torch' is not defined"}
    for _, answer in slips(mistake, JudgeSmokeRun, [inputs]):
        if answer is None or answer["verdict"] == "go":
            continue
        code = answer["mended"].code
        whole = all(part in code for part in ("class Settings:", "SETTINGS = ", "SPACE = "))
        assert not whole or code.startswith("Here is") or "import torch\n" not in code


def test_a_mistake_in_a_repair_sends_the_work_back_to_who_did_it_right():
    inputs = {"role": "data_engineer", "work": "", "complaint": "SyntaxError: invalid syntax"}
    (blames,) = [mistake for mistake in smoke.MISTAKES if mistake.name == "blames"]
    assert [answer["blame"] for _, answer in slips(blames, Repair, [inputs])] == ["plan"]


def test_a_script_that_is_as_its_template_says_cannot_be_mended(tmp_path):
    assert mended((emit(classifier(), TWO_CLASSES, tmp_path) / "train.py").read_text()) == ""


# ------------------------------------------------------------------------------------------------ over HTTP
def ask(base, model="gpt-4o", text="ready?", **more):
    """Status, headers and body of one request; status 0 where the connection ends without an answer."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
    request = urllib.request.Request(f"{base}/chat/completions", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()
    except OSError:
        return 0, {}, b""


def told(body):
    return json.loads(body)["choices"][0]["message"]["content"]


def test_several_answers_are_given_and_four_letters_count_as_a_token():
    with serve() as base:
        status, _, body = ask(base, text="x" * 9, n=3)
    assert status == 200
    assert [choice["message"]["content"] for choice in json.loads(body)["choices"]] == ["ready"] * 3
    assert json.loads(body)["usage"] == {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9}


def test_every_model_answers_by_its_name_and_no_other_does():
    with serve() as base:
        for model in ("gpt-4o", "gpt-4.1-mini", "gpt-4o-mini", "gpt-4.1-nano", "rules", "openai/gpt-4o"):
            assert told(ask(base, model)[2]) == "ready"
        assert ask(base, "gpt-5")[0] == 404


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        ("429", 429, b"rate_limit_exceeded"),
        ("quota", 429, b"insufficient_quota"),
        ("500", 500, b"server_error"),
        ("503", 503, b"<html>"),
        ("401", 401, b"invalid_api_key"),
        ("404", 404, b"model_not_found"),
        ("no choices", 200, b'"choices": []'),
        ("null", 200, b'"content": null'),
        ("length", 200, b'"finish_reason": "length"'),
        ("refusal", 200, b'"refusal": "I can'),
        ("prose", 200, b"I think the answer is maybe 42?"),
        ("cut", 200, b'"choices"'),
        ("silence", 0, b""),
        ("dropped", 0, b""),
    ],
)
def test_a_fault_is_served_as_it_is_named(fault, status, words):
    assert fault in FAULTS
    with serve(fault=fault, delay=0.1) as base:
        got, headers, body = ask(base)
    assert got == status
    assert words in body
    assert headers.get("Retry-After") == ("1" if fault == "429" else None)
    if fault == "cut":
        with pytest.raises(json.JSONDecodeError):
            json.loads(body)


def test_a_fault_may_come_late_and_to_one_model_only():
    with serve(fault="500", fault_model="gpt-4o", fault_after=2) as base:
        assert [ask(base, model)[0] for model in ("gpt-4o", "rules", "gpt-4o", "rules")] == [200, 200, 500, 200]


def test_the_log_holds_what_was_answered_and_counts_what_was_paid_twice(tmp_path):
    log = tmp_path / "calls.jsonl"
    with serve(log=log, fault="500", fault_after=3) as base:
        for text in ("one", "two", "one", "two"):
            ask(base, text=text)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["status"] for line in lines] == [200, 200, 200, 500]
    assert lines[0]["key"] == lines[2]["key"] != lines[1]["key"]
    assert repeats(log) == 1  # the second "two" failed: nothing was paid


def test_a_request_at_which_the_client_dies_is_never_answered(tmp_path):
    deaths, log = [], tmp_path / "calls.jsonl"
    with serve(log=log, die_at=2, kill=lambda: deaths.append(1)) as base:
        assert [ask(base, text=text)[0] for text in ("one", "two", "two")] == [200, 0, 200]
    assert deaths == [1]
    assert (len(log.read_text().splitlines()), repeats(log)) == (2, 0)


def test_many_may_ask_at_once():
    with serve() as base:
        got = []
        threads = [threading.Thread(target=lambda: got.append(ask(base)[0])) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert got == [200] * 16
