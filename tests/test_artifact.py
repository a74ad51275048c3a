"""Compiled programs on disk: the same prompts come back, and whatever speaks against a program is named."""

import json

import dspy
import pytest

from m3dspy.errors import DataError, UsageError
from m3dspy.m3bench import task
from m3dspy.programs import artifact, state
from m3dspy.programs.artifact import Manifest, Usage
from m3dspy.programs.builder import Builder
from m3dspy.programs.lms.ledger import Ledger
from m3dspy.programs.lms.model import M3dLM
from m3dspy.signatures.data_engineer import PythonCode
from m3dspy.signatures.values import Plan, Source
from m3dspy.workspace.look import look

PREDICTORS = {
    "task_manager.make_plan",
    "task_manager.repair",
    "data_engineer.look.react",
    "data_engineer.look.extract.predict",
    "data_engineer.write",
    "data_engineer.repair",
    "module_architect.design_training",
    "module_architect.repair",
    "model_trainer.judge",
    "model_trainer.repair",
}
PLAN = Plan(
    task="classification",
    goal="tell Zysten from stones: \u201equoted\u201c\nand a second line",
    modality="CT",
    dims=2,
    images="*/*.png",
    labels=("cyst", "stone"),
    source=Source(kind="folder", path=""),
)


@pytest.fixture(scope="module")
def fingerprint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "kidney"
    task.make("CT-kidney", folder, size=task.find("CT-kidney").smallest)
    return look(folder)


def compiled(fingerprint):
    """A builder as an optimizer leaves it: other instructions, typed demonstrations, roles frozen."""
    builder = Builder()
    for name, predictor in builder.named_predictors():
        text = f"{predictor.signature.instructions}\n\nLearned for {name}: \u201cbe brief\u201d \u00e4."
        predictor.signature = predictor.signature.with_instructions(text)
    make_plan, write = builder.task_manager.make_plan, builder.data_engineer.write
    make_plan.demos = [
        dspy.Example(request="tell cysts from stones", fingerprint=fingerprint, cards=[], complaint="", plan=PLAN,
                     refusal="", augmented=True, exercise=object()),
        {"request": "segment the liver", "fingerprint": fingerprint, "plan": None, "refusal": "There are no masks."},
    ]  # fmt: skip
    write.demos = [dspy.Example(plan=PLAN, fingerprint=fingerprint, prepare=PythonCode(code="x = {'a': 1}\n"))]
    builder.task_manager._compiled = builder.data_engineer._compiled = True
    return builder


def manifest(**more):
    return Manifest(name="t", made="2026-01-01T00:00:00Z", optimizer="gepa", student="rules", teacher="gpt-4o",
                    improved=True, **more)  # fmt: skip


@pytest.fixture
def written(fingerprint, tmp_path):
    program = compiled(fingerprint)
    artifact.write(tmp_path / "p", program, manifest(), Builder())
    return tmp_path / "p", program


def change(folder, file, edit):
    path = folder / file
    state = json.loads(path.read_text())
    edit(state)
    path.write_text(json.dumps(state))


def prompts(program):
    program = program.deepcopy()
    for role in (program.task_manager, program.data_engineer):
        role._compiled = False
    return {name: state.rendered(predictor) for name, predictor in program.named_predictors()}


# ------------------------------------------------------------------------------------------------ there and back
def test_every_prompt_is_the_same_to_the_letter_after_a_round_trip(written):
    folder, program = written
    loaded = artifact.load(folder)
    before, after = prompts(program), prompts(loaded.builder)
    assert set(before) == PREDICTORS
    assert after == before
    assert "There are no masks." in after["task_manager.make_plan"]
    assert "x = {'a': 1}" in after["data_engineer.write"]
    assert artifact.program_hash(loaded.builder) == artifact.program_hash(program) == loaded.manifest.program
    assert artifact.differences(folder) == []


def test_the_state_is_read_by_dspy_itself_and_holds_no_lm(written, fingerprint):
    folder, _ = written
    plain = Builder()
    plain.load(folder / "program.json")
    assert artifact.program_hash(plain) == artifact.read_manifest(folder).program
    program = compiled(fingerprint)
    program.set_lm(M3dLM("rules", Ledger()))
    assert artifact.program_hash(program) == artifact.read_manifest(folder).program


def test_writing_leaves_the_program_as_it_is(written):
    _, program = written
    assert program.task_manager._compiled
    assert isinstance(program.task_manager.make_plan.demos[0]["plan"], Plan)


def test_what_was_compiled_can_be_read(written):
    folder, _ = written
    assert {path.stem for path in (folder / "prompts").glob("*.md")} == PREDICTORS
    page = (folder / "prompts" / "task_manager.make_plan.md").read_text()
    assert "+Learned for task_manager.make_plan: “be brief” ä." in page
    assert "## Demonstrations: 2" in page


def test_a_second_program_replaces_the_first(written):
    folder, _ = written
    artifact.write(folder, Builder(), manifest(), Builder())
    assert artifact.differences(folder) == []
    assert prompts(artifact.load(folder).builder) == prompts(Builder())
    page = (folder / "prompts" / "task_manager.make_plan.md").read_text()
    assert "compiling did not change them" in page


def test_no_login_of_a_server_is_kept():
    secret, told = "openai/a@http://me:secret@host/v1", "openai/a@http://host/v1"
    counts = {"calls": 1, "input_tokens": 1, "output_tokens": 1, "dollars": None, "seconds": 1}
    kept = Manifest(
        name="t",
        made="2026-01-01T00:00:00Z",
        optimizer="gepa",
        student=secret,
        teacher=secret,
        improved=True,
        arguments={"reflector": secret, "minutes": 3},
        routing={"task_manager": secret},
        usage=(Usage(lm=secret, role="", **counts),),
    )
    assert kept.student == kept.teacher == kept.routing["task_manager"] == kept.usage[0].lm == told
    assert kept.arguments == {"reflector": told, "minutes": 3}


# ------------------------------------------------------------------------------------------------ what speaks against
def rename(state):
    state["task_manager.make_plan"]["signature"]["fields"][0]["name"] = "wish"


def lm(state):
    state["data_engineer.write"]["lm"] = {"model": "openai/evil", "api_base": "http://evil/v1"}


def no_repair(state):
    del state["model_trainer.repair"]


def more(state):
    state["critic.judge"] = state["model_trainer.repair"]


def fields(state):
    state["fields"]["task_manager.make_plan"] = "another"


def dspy_34(state):
    state["versions"]["dspy"] = "3.3.9"


DIFFERENCES = [
    ("program.json", rename, "program.json is not the one"),
    ("program.json", lm, "data_engineer.write carries an LM of its own"),
    ("program.json", no_repair, "It has no prompt for model_trainer.repair"),
    ("program.json", more, "It has a prompt for critic.judge, which this m3dspy does not have"),
    ("manifest.json", fields, "The types of the fields of task_manager.make_plan differ"),
    ("manifest.json", dspy_34, r"It was compiled with DSPy 3\.3, this is 3\.4"),
    ("manifest.json", lambda state: state.update(code="another"), "The code of signatures and programs has changed"),
    ("manifest.json", lambda state: state.update(improved=False), "manifest.json was edited: its seal is broken"),
    ("manifest.json", lambda state: state.update(schema_version=2), "Its manifest has schema 2, this m3dspy reads 1"),
]


@pytest.mark.parametrize(("file", "edit", "words"), DIFFERENCES)
def test_every_difference_is_refused_by_name_and_loaded_by_force(written, file, edit, words):
    folder, _ = written
    change(folder, file, edit)
    with pytest.raises(DataError, match=rf"{words}.*--force") as caught:
        artifact.load(folder)
    assert "\n" not in str(caught.value)
    loaded = artifact.load(folder, force=True)
    assert all(predictor.lm is None for predictor in loaded.builder.predictors())


def test_other_versions_of_python_and_m3dspy_are_no_difference(written):
    folder, _ = written
    versions = {**artifact.read_manifest(folder).versions, "python": "3.99.0", "m3dspy": "9.9", "dspy": "3.4.99"}
    old = artifact.read_manifest(folder).model_copy(update={"versions": versions})
    (folder / "manifest.json").write_text(old.model_copy(update={"seal": artifact._seal(old)}).model_dump_json())
    assert artifact.differences(folder) == []


class Wish(dspy.Signature):
    """Another order of the same fields, and one more."""

    role: str = dspy.InputField()
    blame: str = dspy.OutputField(desc="whose fault")
    hope: str = dspy.InputField(desc="a field that the file does not know")
    advice: str = dspy.OutputField(desc="what now")


def test_fields_are_matched_by_name_and_a_new_one_stays_as_written(written, monkeypatch):
    folder, _ = written
    import m3dspy.programs.role as role

    monkeypatch.setattr(role, "Repair", Wish)
    found = artifact.differences(folder)
    assert found[0] == (
        "The fields of task_manager.repair differ: role, work, complaint, blame, advice there, "
        "role, hope, blame, advice here."
    )
    loaded = artifact.load(folder, force=True).builder.task_manager.repair.signature
    descriptions = {name: field.json_schema_extra["desc"] for name, field in loaded.fields.items()}
    assert descriptions == {
        "role": "whose work it is",
        "hope": "a field that the file does not know",
        "blame": "${blame}",
        "advice": "what to do differently, one or two sentences",
    }


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("manifest.json", None, r"holds no compiled program: there is no manifest\.json"),
        ("program.json", None, r"holds no compiled program: there is no program\.json"),
        ("manifest.json", "{", r"manifest\.json is not as m3dspy writes it"),
        ("program.json", "[]", r"program\.json is not as m3dspy writes it"),
        ("program.json", '{"task_manager.make_plan": {"demos": 3}}', r"task_manager\.make_plan\.demos: "),
    ],
)
def test_what_cannot_be_read_is_refused_even_by_force(written, file, text, words):
    folder, _ = written
    (folder / file).unlink() if text is None else (folder / file).write_text(text)
    with pytest.raises(DataError, match=words):
        artifact.load(folder, force=True)
    assert len(artifact.differences(folder)) == 1


def test_a_routing_to_an_unknown_role_is_refused():
    with pytest.raises(ValueError, match="no role is called manager; known: task_manager"):
        manifest(routing={"manager": "rules"})


def test_a_name_that_is_no_program_is_bad_usage():
    with pytest.raises(UsageError, match="No compiled program is called 'nowhere'"):
        artifact.find("nowhere")


def test_every_shipped_program_can_be_used_here():
    for folder in artifact.shipped():
        assert artifact.differences(folder) == [], folder
