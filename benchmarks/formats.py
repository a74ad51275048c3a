"""Any lab's folder, as its user meets it: `data look`, `run` with the rules, `predict`, for one folder of each format.

    python benchmarks/formats.py [--out runs/formats] [NAME ...]

The folders are those of tests/lab_trees.py. Everything is checked against what the maker of a folder knows: the task
and the labels, the split that the format gives and who is in it, a score above the floor, an answer to every new image.
What is done lies in OUT and is not done again; a format whose folder there is removed is.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from lab_trees import TREES, Tree

from m3dspy.signatures.values import SPLITS, Index, Plan

NEW = {"nnunet": "imagesTs", "decathlon": "imagesTr", "datalist": "scans"}  # masks lie beside
NEW |= dict.fromkeys(("mask_folders", "mask_folders_table"), "images")
COUNTS = {"nnunet": 3, "nnunet_v1": 12}  # images there, where these are not all, or some have no mask
REFUSED = {"coco_boxes": "outline", "yolo": "volume"}  # what boxes cannot teach, beside what they can


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(TREES)}; default: all")
    parser.add_argument("--out", type=Path, default=Path("runs/formats"))
    given = parser.parse_args()
    rows = [row for name in given.names or TREES for row in done(name, given.out.resolve())]
    widths = [max(len(row[k]) for row in [HEADER, *rows]) for k in range(len(HEADER))]
    for row in [HEADER, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    sys.exit(any(WRONG in cell for row in rows for cell in row))


HEADER = ("format", "look", "task and labels", "split", "score / floor", "predicted", "seconds")
WRONG = "WRONG"


def done(name: str, out: Path) -> list[Sequence[str]]:
    """The rows of a format, from its file if that is there."""
    kept = out / name / "rows.json"
    if not kept.is_file():
        print(f"{name} ...", file=sys.stderr, flush=True)
        (out / name).mkdir(parents=True, exist_ok=True)
        rows = checked(name, TREES[name], out / name)
        kept.write_text(json.dumps(rows))
    return json.loads(kept.read_text())


def checked(name: str, tree: Tree, home: Path) -> list[list[str]]:
    """What the three commands say of a folder."""
    started, data = time.monotonic(), home / "data"
    counts = tree.write(data)
    looked, _ = told(home, "data", "look", "data")
    status, said = told(home, "run", tree.request, "--data", "data", "--lm", "rules", "--trials", "0")
    if status or said["status"] != "done":
        why = said.get("error") or said.get("reason", "")
        return [[name, _right(not looked), f"{WRONG}: {why}", "", "", "", f"{time.monotonic() - started:.0f}"]]
    run = Path(said["folder"])
    plan = Plan.model_validate_json((run / "plan.json").read_bytes())
    index = Index.model_validate_json((run / "index.json").read_bytes())
    grade = said["grade"]
    score, floor = grade["score"]["value"], grade["floor"]["value"]
    row = [name, _right(not looked)]
    row.append(f"{plan.task}: {', '.join(plan.labels)} {_right(set(plan.labels) == set(tree.labels))}")
    row.append(_split(index, counts, tree))
    row.append(f"{score:.3f} / {floor:.3f} {_right(grade['s1'] and score > floor)}")
    row.append(_predicted(name, tree, home, run, sum(counts)))
    rows = [[*row, f"{time.monotonic() - started:.0f}"]]
    if name in REFUSED:
        started = time.monotonic()
        asked = f"Segment the nodules and measure their {REFUSED[name]}"
        status, said = told(home, "run", asked, "--data", "data", "--lm", "rules", "--trials", "0")
        right = _right(status == 3 and "masks are boxes" in said.get("error", ""))
        rows.append(
            [f"  {REFUSED[name]} asked", "", f"refused {right}", "", "", "", f"{time.monotonic() - started:.0f}"]
        )
    return rows


def _right(is_right: bool) -> str:
    return "ok" if is_right else WRONG


def _split(index: Index, counts: Sequence[int], tree: Tree) -> str:
    """Cases of each split; whether the format's own is kept, and every patient is in one alone."""
    found = [len(index.items(split)) for split in SPLITS]
    people = [{item.patient for item in index.items(split)} for split in SPLITS]
    apart = len(set().union(*people)) == sum(map(len, people)) == (tree.patients or sum(counts))
    own = len(counts) == 3 and found == list(counts)
    given = {2: sorted(counts)[0] in found, 3: own}.get(len(counts), True) and sum(found) == sum(counts)
    return f"{'/'.join(map(str, found))} of {sum(map(len, people))} patients {_right(apart and given and all(found))}"


def _predicted(name: str, tree: Tree, home: Path, run: Path, count: int) -> str:
    """n of n new images, given as the format has them."""
    tree.write(home / "new")
    new = home / "new"
    if name in NEW:
        new = next(path for path in sorted(new.rglob(NEW[name])) if path.is_dir())
    status, said = told(home, "predict", str(run), str(new.relative_to(home)), "--out", "answers")
    if status:
        return f"{WRONG}: {said.get('error', '')}"
    written = {path.name.partition(".")[0] for path in (home / "answers").iterdir()}
    table = home / "answers/predictions.csv"
    if table.is_file():
        written |= {line.partition(",")[0].partition(".")[0] for line in table.read_text().splitlines()[1:]}
    there = sum(id.partition(".")[0] in written for id in said["ids"])
    wanted = COUNTS.get(name, count)
    return f"{there} of {wanted} {_right(there == wanted)}"


def told(home: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """Exit status of a command, and its JSON."""
    command = [sys.executable, "-m", "m3dspy", *words, "--json"]
    ended = subprocess.run(command, cwd=home, capture_output=True, text=True)
    lines = ended.stdout.strip().splitlines()
    try:
        return ended.returncode, json.loads(lines[-1])
    except (IndexError, ValueError):
        return ended.returncode, {"error": ended.stderr.strip()[-300:]}


if __name__ == "__main__":
    main()
