"""How long the view of a large dataset takes that training scripts are given: `python benchmarks/view_many_files.py`

One line each for making it (every file linked, those of training and validation twice), using it again, removing it.
"""

import argparse
import tempfile
import time
from pathlib import Path

from m3dspy.signatures.values import Index, Item, Request
from m3dspy.workspace import public
from m3dspy.workspace.runs import Run


def dataset(root: Path, files: int) -> Index:
    """So many small files, two classes, a hundred to a patient; the index of them, a fifth of it for testing."""
    items = []
    for k in range(files):
        label, patient = ("sick", "well")[k % 2], f"p{k // 100}"
        path = root / label / patient / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 100)
        items.append(Item(id=f"{label}-{k}", patient=patient, image=f"{label}/{patient}/{k}.png", label=label))
    train, validate = files * 7 // 10, files * 8 // 10
    splits = {"training": items[:train], "validation": items[train:validate], "test": items[validate:]}
    return Index.model_validate({"task": "classification", "labels": ("sick", "well"), **splits})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=20_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "data")
        index = dataset(root, given.files)
        run = Run.create(Request(text="tell", data=str(root)), Path(folder, "runs"))
        run.commit("index", index)
        show = lambda: public.shown(run, test=True, trusted=False)  # noqa: E731
        for name, act in (("made", show), ("again", show), ("removed", lambda: public.forget(run))):
            wall, cpu = time.perf_counter(), time.process_time()
            act()
            print(f"{name}: {time.perf_counter() - wall:.2f} s, {time.process_time() - cpu:.2f} s CPU")
