"""The four roles: ask, check, act, repair, and the way back, with scripted answers."""

import dspy
import pytest
from dspy.utils import DummyLM
from test_rules import ADNI, CT, FEW, FOLDERS, LIVERS, MVFA, anomaly_design, plan_for

from m3dspy.errors import DataError, LMFailed, Refused, RunFailed
from m3dspy.programs.data_engineer import DataEngineer
from m3dspy.programs.model_trainer import ModelTrainer, check_script
from m3dspy.programs.module_architect import ModuleArchitect
from m3dspy.programs.role import SentBack
from m3dspy.programs.task_manager import TaskManager, check_plan
from m3dspy.signatures.values import Design, Index, Item, Machine
from m3dspy.workspace.emit import TEMPLATES, templates

GOOD = plan_for("tell AD from CN", ADNI).plan
FEW_SHOTS = plan_for(FEW, LIVERS).plan
NO_COLUMN = GOOD.model_copy(update={"source": GOOD.source.model_copy(update={"column": "Diagnosis"})})
HERE = {"blame": "here", "advice": "Use column Group."}
SCRIPT = "class Settings: ...\nSETTINGS = Settings()\nSPACE = {}\ndef train(): ...\ndef predict(): ...\n"
DESIGN = Design(
    template="classify",
    network="cnn",
    dims=2,
    size=(8, 8),
    intensity="percentile",
    loss="ce",
    lr=1e-3,
    batch=4,
    epochs=2,
)


def scripted(*answers):
    """An LM that gives these answers one after another, in the form of the chat adapter."""
    return DummyLM([{name: str(value) for name, value in answer.items()} for answer in answers])


def manage(*answers, **how):
    heard = []
    with dspy.context(lm=scripted(*answers), adapter=dspy.ChatAdapter(use_json_adapter_fallback=False)):
        manager = TaskManager(**how)
        plan = manager(
            request="tell AD from CN", fingerprint=ADNI, cards=[], on_repair=lambda *words: heard.append(words)
        ).plan
    return plan, heard


def test_a_plan_that_names_a_column_which_is_not_there_is_mended():
    plan, heard = manage({"plan": NO_COLUMN, "refusal": ""}, HERE, {"plan": GOOD, "refusal": ""})
    assert plan == GOOD
    assert heard == [("task_manager", "adni.csv has no column 'Diagnosis'; it has Group, Image Data ID, Sex, Subject.")]


def test_an_answer_that_cannot_be_read_is_asked_again():
    plan, heard = manage({"plan": "I think so", "refusal": ""}, HERE, {"plan": GOOD, "refusal": ""})
    assert plan == GOOD
    assert "cannot be read" in heard[0][1]


def test_the_same_wrong_answer_twice_ends_the_asking():
    with pytest.raises(DataError, match="no column 'Diagnosis'"):
        manage({"plan": NO_COLUMN, "refusal": ""}, HERE, {"plan": NO_COLUMN, "refusal": ""}, max_repairs=9)


def test_repairs_end_after_their_number():
    wrong = [
        {"plan": GOOD.model_copy(update={"source": GOOD.source.model_copy(update={"column": f"c{n}"})}), "refusal": ""}
        for n in range(3)
    ]
    with pytest.raises(DataError, match="no column 'c1'"):
        manage(wrong[0], HERE, wrong[1], max_repairs=1)
    with pytest.raises(LMFailed, match="task_manager gave an answer that cannot be read"):
        manage({"plan": "?", "refusal": ""}, max_repairs=0)


def test_a_refusal_is_an_end_and_no_reason_to_repair():
    with pytest.raises(Refused, match="there are no masks"):
        manage({"plan": "null", "refusal": "there are no masks"})


@pytest.mark.parametrize(
    ("plan", "fingerprint", "words"),
    [
        (GOOD, CT, "No image group has the pattern"),
        (GOOD.model_copy(update={"labels": ("AD",)}), ADNI, "needs two classes"),
        (GOOD.model_copy(update={"card": "OASIS"}), ADNI, "No card is called 'OASIS'"),
        (plan_for("tell cysts from stones", FOLDERS).plan, ADNI, "no class folders below"),
        (plan_for("mark the left lung", CT).plan.model_copy(update={"label_values": ()}), CT, "voxel value"),
        (FEW_SHOTS.model_copy(update={"masks": "masks/*.png"}), LIVERS, "No mask group has the pattern 'masks/*.png'"),
        (FEW_SHOTS.model_copy(update={"label_values": ()}), LIVERS, "label_values are the normal and the abnormal one"),
        (FEW_SHOTS.model_copy(update={"dims": 3}), LIVERS, "Anomalies can be found in 2D images only."),
    ],
)
def test_a_plan_is_held_against_the_folder(plan, fingerprint, words):
    assert any(words in problem for problem in check_plan(plan, fingerprint, []))


def test_a_good_plan_passes_the_check():
    assert check_plan(GOOD, ADNI, []) == []


def test_a_design_keeps_to_the_shots_of_the_plan_and_to_the_networks_offered():
    design = anomaly_design(FEW)
    items = [Item(id=f"{label}{n}", patient=f"{n}", image=f"{label}{n}.png", label=label)
             for label in FEW_SHOTS.labels for n in range(8)]  # fmt: skip
    index = Index(task="anomaly_detection", labels=FEW_SHOTS.labels, about="liver CT", training=tuple(items))
    small = design.model_copy(update={"shots": 4, "network": "clip_vit_b16", "space": {}})
    answers = [{"design": small}, HERE, {"design": small}]
    with (
        dspy.context(lm=scripted(*answers), adapter=dspy.ChatAdapter()),
        pytest.raises(DataError, match=r"must be one of: clip_b, clip_l.*The plan says shots 8, the design 4"),
    ):
        seen = {"fingerprint": LIVERS, "machine": Machine(), "catalogue": MVFA}
        ModuleArchitect()(request=FEW, plan=FEW_SHOTS, index=index, **seen)


NO_LOOK = {"next_thought": "Enough.", "next_tool_name": "finish", "next_tool_args": "{}"}
NO_NOTES = {"reasoning": "None needed.", "notes": ""}
EMPTY_INDEX = Index(task="classification", labels=("AD", "CN"))


def engineer(tmp_path, prepare, *answers):
    with dspy.context(lm=scripted(NO_LOOK, NO_NOTES, *answers), adapter=dspy.ChatAdapter()):
        return DataEngineer()(plan=GOOD, card="", fingerprint=ADNI, root=tmp_path, prepare=prepare)


def test_a_script_that_fails_goes_back_with_the_words_of_the_check(tmp_path):
    tried = []

    def prepare(code):
        tried.append(code)
        if len(tried) == 1:
            raise DataError("patient 7 is in training and in test")
        return EMPTY_INDEX

    answer = engineer(tmp_path, prepare, {"prepare": "first()"}, HERE, {"prepare": "second()"})
    assert tried == ["first()", "second()"]
    assert answer.index == EMPTY_INDEX
    assert answer.prepare == "second()"


def test_an_earlier_role_can_be_blamed(tmp_path):
    def prepare(code):
        raise DataError("no row has the class AD")

    with pytest.raises(SentBack) as back:
        engineer(tmp_path, prepare, {"prepare": "first()"}, {"blame": "plan", "advice": "There is no AD."})
    assert back.value.stage == "plan"
    assert "There is no AD." in back.value.complaint


def train(smoke, *answers):
    with dspy.context(lm=scripted(*answers), adapter=dspy.ChatAdapter()):
        return ModelTrainer(max_repairs=2)(design=DESIGN, script=SCRIPT, smoke=smoke)


def failing(tmp_path, times):
    """A smoke run that fails so many times, then ends well."""
    log = tmp_path / "smoke.log"
    log.write_text("RuntimeError: expected 3 channels\n")
    left = [times]

    def smoke(script):
        left[0] -= 1
        if left[0] >= 0:
            raise RunFailed("train.py ended with status 1.", log)
        return "one step, one case"

    return smoke


def test_a_script_that_ran_well_goes_as_it_is(tmp_path):
    answer = train(failing(tmp_path, 0), {"verdict": "go", "mended": ""})
    assert (answer.script, answer.mended) == (SCRIPT, False)


def test_a_mended_script_must_run_before_it_goes(tmp_path):
    better = SCRIPT + "channels = 3\n"
    answer = train(failing(tmp_path, 1), {"verdict": "repair", "mended": better})
    assert (answer.script.strip(), answer.mended) == (better.strip(), True)


def test_go_does_not_pass_a_script_that_failed(tmp_path):
    answers = [{"verdict": "go", "mended": ""}, HERE, {"verdict": "go", "mended": ""}]
    with pytest.raises(RunFailed, match="expected 3 channels"):
        train(failing(tmp_path, 9), *answers)


@pytest.mark.parametrize(
    ("script", "words"),
    [("def main(:", "does not parse: line 1"), ("x = 1", "Settings, SETTINGS, SPACE, train, predict is gone")],
)
def test_half_a_script_is_refused(script, words):
    with pytest.raises(DataError, match=words):
        check_script(script)


@pytest.mark.parametrize("template", templates())
def test_a_whole_template_is_no_half_script(template):
    check_script((TEMPLATES / f"{template}.py").read_text())
