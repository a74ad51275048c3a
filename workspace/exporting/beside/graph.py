"""Write the network of a finished training as one file, and compare the two on images. Runs beside its train.py.

    python graph.py onnx|torchscript --items ITEMS.json --data ROOT --model DIR --out DIR

Prints {"difference": 3e-06, "example": 2e-07} last of all. `difference`: the largest of all differences between logits,
as a share of the largest logit. Both compute in float32 on the CPU, on what train.py makes of each image: the whole of
it for a classification, each patch of a sliding window for a segmentation. `example`, of ONNX: the largest difference
between probabilities of example.py, which reads the images by itself, and of train.py; null where the images are of a
format that it does not know.
"""

import argparse
import json
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from lightning.fabric import Fabric

BATCH = 2  # of the example: 1 would be taken for a constant


def to_onnx(net: torch.nn.Module, x: torch.Tensor, path: Path):
    """Write model.onnx, any number of images at a time; what runs it."""
    import onnxruntime

    any_number = ({0: torch.export.Dim("images")},)
    given = {"input_names": ["image"], "output_names": ["logits"], "dynamic_shapes": any_number}
    torch.onnx.export(net, (x,), path / "model.onnx", dynamo=True, external_data=False, **given)
    session = onnxruntime.InferenceSession(path / "model.onnx", providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(np.asarray(session.run(None, {"image": x.numpy()})[0]))


def to_torchscript(net: torch.nn.Module, x: torch.Tensor, path: Path):
    """Write model.ts; what runs it."""
    torch.jit.save(torch.jit.trace(net, x), str(path / "model.ts"))
    return torch.jit.load(str(path / "model.ts")).eval()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("form", choices=["onnx", "torchscript"])
    for name in ("items", "data", "model", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    train, harness = import_module("train"), import_module("harness")
    s = replace(harness.saved_settings(given.model, train.Settings), precision="32-true")
    net = harness.built(s)
    net.load_state_dict(safetensors.torch.load_file(given.model / "model.safetensors"))
    fabric, net = Fabric(accelerator="cpu", devices=1, precision="32-true"), net.eval()
    write = {"onnx": to_onnx, "torchscript": to_torchscript}[given.form]
    worst = {"difference": 0.0, "largest": 0.0}
    with torch.no_grad():
        exported = write(net, torch.rand(BATCH, s.channels, *s.size), given.out)

        def both(x: torch.Tensor) -> torch.Tensor:
            x = x.contiguous()
            wanted, found = net(x), exported(x)
            worst["difference"] = max(worst["difference"], float((wanted - found).abs().max()))
            worst["largest"] = max(worst["largest"], float(wanted.abs().max()))
            return wanted

        items = json.loads(given.items.read_text())
        for item in items:
            if train.TASK == "segmentation":
                train.marked(both, train.load_image(item, given.data, s)[0], s, fabric, 0.25)
            else:
                both(torch.from_numpy(train.load(item, given.data, s)).float()[None])
        example = alone(train, items, given, s, net, fabric) if given.form == "onnx" else None
    print(json.dumps({"difference": worst["difference"] / max(worst["largest"], 1e-6), "example": example}))


def alone(train, items: list[dict], given, s, net: torch.nn.Module, fabric: Fabric) -> float | None:
    """How far the probabilities of example.py are from those of train.py; None: it does not know the format."""
    example, images = import_module("example"), import_module("images")
    told, network, worst = json.loads((given.model / "settings.json").read_text()), example.network_of(given.out), 0.0
    for item in items:
        one = isinstance(item["image"], str)
        paths = [given.data / path for path in ([item["image"]] if one else item["image"])]
        if not paths[0].name.lower().endswith(example.KNOWN):
            return None
        if train.TASK == "segmentation":
            found, _ = example.chances_of(paths[0] if one else paths, told, network)
            x, shape, _ = train.load_image(item, given.data, s)
            chances = train.marked_mirrored(net, x, s, fabric)
            wanted = np.stack([images.resized(chance[None], shape)[0].numpy() for chance in chances])
        else:
            found = example.probabilities(paths[0] if one else paths, told, network)
            logits = train.logits_of(net, [train.load(item, given.data, s)], s, fabric, mirrored=True)
            wanted = train.probabilities(logits, s)[0]
        worst = max(worst, float(abs(found - wanted).max()))
    return worst


if __name__ == "__main__":
    sys.exit(main())
