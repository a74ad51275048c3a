"""The way back: a role that blames an earlier one sends the run there, with the complaint, and not for ever."""

import shutil

import dspy
import pytest
import timm
from safetensors.torch import save_file

from m3dspy.errors import DataError
from m3dspy.m3bench import task
from m3dspy.programs.builder import MAX_BACKS, Builder, _offered
from m3dspy.programs.lms.ledger import Ledger
from m3dspy.programs.lms.model import M3dLM
from m3dspy.programs.module_architect import ModuleArchitect
from m3dspy.programs.role import SentBack
from m3dspy.programs.task_manager import TaskManager
from m3dspy.signatures.values import Fingerprint, Request
from m3dspy.workspace.look import look
from m3dspy.workspace.runs import Run


class Accuser(ModuleArchitect):
    """Finds fault with the plan so many times, then does its work and stops the run there."""

    def __init__(self, times):
        super().__init__()
        self.times = times

    def forward(self, **inputs):
        if self.times:
            self.times -= 1
            raise SentBack("plan", "the labels are too many", DataError("too many labels"))
        super().forward(**inputs)
        raise DataError("the design was reached")


class Listener(TaskManager):
    """Remembers the complaints it was called with."""

    def __init__(self):
        super().__init__()
        self.heard = []

    def forward(self, **inputs):
        self.heard.append(inputs["complaint"])
        return super().forward(**inputs)


@pytest.fixture
def run(tmp_path):
    """A run on the smallest COVID19 phantom that was looked at."""
    data = tmp_path / "data"
    task.make("COVID19", data, size=task.find("COVID19").smallest)
    run = Run.create(Request(text="segment both lungs on chest CT", data=str(data)), tmp_path / "runs")
    run.commit("fingerprint", look(data))
    return run


def build(run, times, reason):
    builder = Builder()
    builder.module_architect, builder.task_manager = Accuser(times), Listener()
    lm = M3dLM("rules", Ledger())
    with run.lock(), dspy.context(lm=lm, adapter=dspy.ChatAdapter()), pytest.raises(DataError, match=reason):
        builder(run)
    return builder.task_manager.heard, [event for event in run.events() if event["kind"] == "back"]


def test_a_role_is_entered_again_with_the_complaint_of_a_later_one(run):
    heard, backs = build(run, 1, "the design was reached")
    assert heard == ["", "the labels are too many"]
    assert [(event["by"], event["to"]) for event in backs] == [("design", "plan")]
    assert run.has("index")  # made again from the new plan
    assert not run.has("design")


def offered(tmp_path, **request):
    """The networks that a diagnosis on slices may choose from, and the warnings."""
    data = tmp_path / "kidneys"
    task.make("CT-kidney", data, size=task.find("CT-kidney").smallest)
    request = Request(text="tell cysts, stones, tumours and normal kidneys apart on CT", data=str(data), **request)
    run = Run.create(request, tmp_path / "runs")
    run.commit("fingerprint", look(data))
    with dspy.context(lm=M3dLM("rules", Ledger()), adapter=dspy.ChatAdapter()):
        answer = TaskManager()(request=request.text, fingerprint=run.load("fingerprint", Fingerprint), cards=[])
    return {entry.name for entry in _offered(run, answer.plan).networks}


def test_a_network_that_needs_weights_is_offered_with_them_only(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), path)
    assert offered(tmp_path) == {"cnn", "resnet"}
    shutil.rmtree(tmp_path / "kidneys")
    assert offered(tmp_path, weights=f"test_resnet={path}") == {"timm_backbone"}


def test_a_run_goes_back_no_more_than_twice(run):
    heard, backs = build(run, 9, "too many labels")
    assert (len(heard), len(backs)) == (1 + MAX_BACKS, MAX_BACKS)
