"""The script that m3dspy emits where nobody tunes it: what the rules design for an expert's index."""

from pathlib import Path

from m3dspy.m3bench.exercise import plan_of
from m3dspy.m3bench.task import BenchTask
from m3dspy.programs.lms.experts.module_architect import design_training
from m3dspy.signatures.values import Design, Index, Machine
from m3dspy.workspace import emit
from m3dspy.workspace.indexing import summary
from m3dspy.workspace.look import look


def default_script(task: BenchTask, index: Index, root: Path, home: Path) -> tuple[Design, Path]:
    """The design, and the folder of the script; the index that it may see is written to `home`/index.json."""
    fingerprint = look(root)
    plan = plan_of(index, task.facts, fingerprint, None, 4)
    known = emit.catalogue(plan.task)
    asked = design_training(task.requests[0], plan, summary(index), fingerprint, Machine(), known, "")
    code = emit.emit(asked["design"], index, home / "code")
    (home / "index.json").write_text(index.without_test_labels().model_dump_json())
    return asked["design"], code
