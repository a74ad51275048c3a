"""What the bundle runs: the training script's own reading, network and answers.

The folder holds the script of a run of m3dspy word for word (`train.py` and what it imports); here is only the door
that `configs/inference.json` goes through.
"""

import json
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))


def items(folder: str, slices: bool) -> list[dict[str, Any]]:
    """The images below a folder, {"id", "image"}: every file that can be read, or every folder of slices."""
    root = Path(folder)
    found = [path for path in root.rglob("*") if path.is_file() and not path.name.startswith(".") and _is_image(path)]
    places = [path.relative_to(root) for path in found]
    places.sort(key=lambda place: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(place))])
    if slices:
        folders = sorted({place.parent for place in places})
        return [
            {"id": _id(place.as_posix()), "image": [p.as_posix() for p in places if p.parent == place]}
            for place in folders
        ]
    return [{"id": _id(_stem(place.as_posix())), "image": place.as_posix()} for place in places]


def _is_image(path: Path) -> bool:
    try:
        import_module("sources").source_of(path)
    except ValueError:
        return False
    return True


def _stem(place: str) -> str:
    suffix = next((end for end in import_module("sources").IMAGE_SUFFIXES if place.lower().endswith(end)), "")
    return place[: len(place) - len(suffix)]


def _id(place: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in place)


def network_def(model: str) -> Any:
    """The network with its trained weights; of an anomaly detection the CLIP with its adapters."""
    net = _loaded(Path(model))[1]
    return getattr(net, "detector", net)


def _loaded(model: Path) -> Any:
    train = import_module("train")
    if train.TASK == "anomaly_detection":
        clip = model / "clip"  # is not there where the run had a random one
        return train.load_model(model, train.Settings, clip if clip.is_file() else None)
    own = getattr(train, "saved_writer", None) or getattr(train, "saved_network", None)
    return (own or import_module("harness").saved_model)(model, train.Settings)


class Evaluator:
    """Answers every image and writes the answers to a folder: masks in the image's own grid, a CSV, or JSON."""

    def __init__(self, model: str, data: str, cases: list[dict[str, Any]], out: str):
        self.model, self.data, self.cases, self.out = Path(model), Path(data), cases, Path(out)

    def run(self) -> None:
        """Raises: SystemExit: there are no images, or some could not be answered; the log names them."""
        if not self.cases:
            raise SystemExit(f"There are no images in {self.data}.")
        failed = import_module("train").predict(self.cases, self.data, self.out, *_loaded(self.model))
        print(json.dumps({"answered": len(self.cases) - len(failed), "failed": failed}))
        if failed:
            raise SystemExit(1)
