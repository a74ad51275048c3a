"""Write the network of a finished training as one file, and compare the two on images. Runs beside its train.py.

    python graph.py onnx|torchscript --items ITEMS.json --data ROOT --model DIR --out DIR [--weights CLIP]

Prints {"difference": 3e-06, "example": 2e-07} last of all. `difference`: the largest of all differences between what
the two answer, as a share of the largest answer. Both compute in float32 on the CPU, on what train.py makes of each
image: the whole of it for a classification or an anomaly detection, each patch of a sliding window for a segmentation.
`example`, of ONNX: the largest difference between the probabilities of example.py, which reads the images by itself,
and those of train.py; null where the images are of a format that it does not know.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric

BATCH = 2  # of the example: 1 would be taken for a constant


class Detecting(torch.nn.Module):
    """An anomaly detection as one network: one image (1, 3, *size) in 0..1 to the scores of image and pixels."""

    def __init__(self, finished):
        super().__init__()
        self.detector, self.reader = finished.detector, finished.judges[0].reader
        self.clip = self.reader.model

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        answers = self.detector.answers(self.detector.parts(self.reader.fresh(image)))
        return answers.image, answers.pixels


def to_onnx(net: torch.nn.Module, x: torch.Tensor, path: Path, outputs: tuple[str, ...] = ("logits",)) -> Callable:
    """Write model.onnx, any number of images at a time where `x` has several; what runs it."""
    import onnxruntime

    given: dict[str, Any] = {"input_names": ["image"], "output_names": list(outputs)}
    if len(x) > 1:
        given["dynamic_shapes"] = ({0: torch.export.Dim("images")},)
    torch.onnx.export(net, (x,), path / "model.onnx", dynamo=True, external_data=False, **given)
    session = onnxruntime.InferenceSession(path / "model.onnx", providers=["CPUExecutionProvider"])

    def answers(x: torch.Tensor):
        found = [torch.from_numpy(np.asarray(part)) for part in session.run(None, {"image": x.numpy()})]
        return found[0] if len(found) == 1 else tuple(found)

    return answers


def to_torchscript(
    net: torch.nn.Module, x: torch.Tensor, path: Path, outputs: tuple[str, ...] = ("logits",)
) -> Callable:
    """Write model.ts; what runs it."""
    torch.jit.save(torch.jit.trace(net, x), str(path / "model.ts"))
    return torch.jit.load(str(path / "model.ts")).eval()


def traceable() -> None:
    """Let the parts of MVFA that no graph knows be plain: the check of its images, oneDNN's linear layers, autocast."""
    model: Any = import_module("mvfa.model")
    trunk: Any = import_module("mvfa.trunk")
    model.checked, trunk.linear = (lambda visual, images: images), F.linear
    torch.autocast = lambda *given, **named: contextlib.nullcontext()  # pyright: ignore


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("form", choices=["onnx", "torchscript"])
    for name in ("items", "data", "model", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--weights", type=Path)
    given = parser.parse_args()
    train, harness = import_module("train"), import_module("harness")
    s = replace(harness.saved_settings(given.model, train.Settings), precision="32-true")
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    anomalies = train.TASK == "anomaly_detection"
    if anomalies:
        traceable()
        net = Detecting(train.load_model(given.model, train.Settings, given.weights)[1]).eval()
    else:
        net = harness.built(s).eval()
        net.load_state_dict(safetensors.torch.load_file(given.model / "model.safetensors"))
    write = {"onnx": to_onnx, "torchscript": to_torchscript}[given.form]
    outputs = ("score", "map") if anomalies else ("logits",)
    worst = {"difference": 0.0, "largest": 0.0}
    with torch.no_grad():
        exported = write(net, torch.rand(1 if anomalies else BATCH, s.channels, *s.size), given.out, outputs)

        def both(x: torch.Tensor) -> torch.Tensor:
            x = x.contiguous()
            wanted, found = net(x), exported(x)
            for one, other in zip(wanted, found, strict=True):
                worst["difference"] = larger(worst["difference"], (one - other).abs())
                worst["largest"] = larger(worst["largest"], one.abs())
            return wanted

        items = json.loads(given.items.read_text())
        for item in items:
            if anomalies:
                both(import_module("few_shot").load({**item, "mask": None}, given.data, s).image[None])
            elif train.TASK == "segmentation":
                train.marked(both, train.load_image(item, given.data, s)[0], s, fabric, 0.25)
            else:
                both(torch.from_numpy(train.load(item, given.data, s)).float()[None])
        example = alone(train, items, given, s, net, fabric) if given.form == "onnx" else None
    print(json.dumps({"difference": worst["difference"] / max(worst["largest"], 1e-6), "example": example}))


def alone(train, items: list[dict], given, s, net: torch.nn.Module, fabric: Fabric) -> float | None:
    """How far the probabilities of example.py are from those of train.py; None: it does not know the format."""
    example = import_module("example")
    if not all(_first(item).lower().endswith(example.KNOWN) for item in items):
        return None
    images, network, worst = import_module("images"), example.network_of(given.out), 0.0
    told = json.loads((given.model / "settings.json").read_text())
    for item in items:
        one = isinstance(item["image"], str)
        path = given.data / item["image"] if one else [given.data / name for name in item["image"]]
        if train.TASK == "anomaly_detection":
            case = import_module("few_shot").load({**item, "mask": None}, given.data, s)
            score, pixels = net(case.image[None])
            pixels = import_module("mvfa").upsampled(pixels, case.shape, align_corners=s.align_corners)
            found = example.scores_of(path, told, network)
            worst = larger(worst, [abs(found[0] - float(score)), abs(found[1] - pixels[0].numpy()).max()])
            continue
        if train.TASK == "segmentation":
            found, _ = example.chances_of(path, told, network)
            x, shape, _ = train.load_image(item, given.data, s)
            chances = train.marked_mirrored(net, x, s, fabric)
            wanted = np.stack([images.resized(chance[None], shape)[0].numpy() for chance in chances])
        else:
            found = example.probabilities(path, told, network)
            logits = train.logits_of(net, [train.load(item, given.data, s)], s, fabric, mirrored=True)
            wanted = train.probabilities(logits, s)[0]
        worst = larger(worst, abs(found - wanted))
    return worst


def larger(worst: float, found) -> float:
    """The largest of all; NaN if any is, where Python's own `max` would keep the other."""
    return float(np.maximum(worst, np.max(np.asarray(found))))


def _first(item: dict) -> str:
    return item["image"] if isinstance(item["image"], str) else item["image"][0]


if __name__ == "__main__":
    sys.exit(main())
