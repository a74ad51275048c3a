"""The script that m3dspy emits where nobody tunes it, against the one that an earlier commit emits: both trained here.

    git worktree add ../before COMMIT
    python benchmarks/before.py ../before [--phantoms ADNI BTCV ...] [--out runs/before]

Each tree's rules design for an expert's index, and train as long as they please; the seconds of CPU stand beside the
scores. Both are graded here, on the same hidden test cases, and so is their difference, by bootstrap over patients.
What is done lies in OUT and is not done again.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

from m3dspy.m3bench import task as datasets
from m3dspy.m3bench.grade import grade
from m3dspy.signatures.values import Score

PHANTOMS = [task.name for task in datasets.tasks() if task.task != "anomaly_detection"]
EMIT = """
import inspect, sys
from pathlib import Path
from m3dspy.m3bench.exercise import plan_of
from m3dspy.m3bench.task import find
from m3dspy.programs.lms.experts.module_architect import design_training
from m3dspy.signatures import values
from m3dspy.workspace import emit
from m3dspy.workspace.indexing import summary
from m3dspy.workspace.look import look

task, root, home = find(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
index, fingerprint = task.gold(root, 0), look(root)
plan = plan_of(index, task.facts, fingerprint, None, 4)
known = {
    "request": task.requests[0], "plan": plan, "index": summary(index), "fingerprint": fingerprint,
    "catalogue": emit.catalogue(plan.task), "complaint": "",
}
if "machine" in inspect.signature(design_training).parameters:
    known["machine"] = values.Machine()
emit.emit(design_training(**known)["design"], index, home / "code")
(home / "index.json").write_text(index.without_test_labels().model_dump_json())
"""


def trained(tree: Path, name: str, root: Path, home: Path) -> float:
    """Let the rules of `tree` write a script, and train it; the seconds of CPU of its training."""
    home.mkdir(parents=True)
    paths = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", EMIT, name, root, home]
    subprocess.run([*map(str, words)], cwd=tree, env=paths, check=True)
    words = [sys.executable, "train.py", "--index", home / "index.json", "--data", root, "--out", home / "out"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    with (home / "log.txt").open("w") as log:
        subprocess.run([*map(str, words)], cwd=home / "code", check=True, stdout=log, stderr=log)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def compared(name: str, trees: dict[str, Path], out: Path) -> list[str]:
    """The row of a phantom."""
    kept = out / name / "row.json"
    if not kept.is_file():
        task, root = datasets.find(name), out / "data" / name
        if not root.is_dir():
            datasets.make(name, root)
        index, seconds = task.gold(root, 0), {}
        for which, tree in trees.items():
            seconds[which] = trained(tree, name, root, out / name / which)
        answers = {which: out / name / which / "out" / "predictions" for which in trees}
        then = grade(index, root, answers["before"], checkpoint=None)
        now = grade(index, root, answers["now"], checkpoint=None, untuned=answers["before"])
        gain = now.others["gain by tuning"]
        row = [name, now.metric, *map(_text, (then.score, now.score, gain)), *(f"{s:.0f}" for s in seconds.values())]
        kept.write_text(json.dumps(row))
    return json.loads(kept.read_text())


def _text(score: Score) -> str:
    return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("--phantoms", nargs="+", default=PHANTOMS)
    parser.add_argument("--out", type=Path, default=Path("runs/before"))
    given = parser.parse_args()
    trees = {"before": given.before.resolve(), "now": Path(__file__).resolve().parents[1]}
    print("| phantom | metric | before | now | gain [95 %] | seconds before | now |\n|---|---|---|---|---|---|---|")
    for name in given.phantoms:
        print("|", " | ".join(compared(name, trees, given.out.resolve())), "|", flush=True)


if __name__ == "__main__":
    main()
