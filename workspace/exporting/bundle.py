"""The files of a MONAI Bundle for a run's model: configs, weights, the run's own code as `scripts`, and the docs.

    configs/metadata.json, inference.json  models/model.pt, model.safetensors, settings.json ...  scripts/
    docs/README.md  LICENSE

MONAI 1.6, https://docs.monai.io/en/stable/mb_specification.html. Preprocessing, network and answers are the training
script's, not the same once more in MONAI's transforms: two readings of an image are never quite one.
"""

import hashlib
import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from m3dspy import __version__
from m3dspy.signatures.values import SPLITS, Design, Grade, Index, Outcome, Plan, Request
from m3dspy.workspace.emit import constants, templates
from m3dspy.workspace.runs import Run

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
NEEDED = ("fire", "lightning-fabric", "monai", "nibabel", "optuna", "pillow", "pydicom", "safetensors", "scikit-learn")
LIMITS = "For research use only. Not a medical device; not for diagnosis."
PHANTOM = "Trained on PHANTOM data, which is made up: scores say nothing about patients."
LICENSE = """Copyright: whoever trained this model and holds the rights in its images.

The code in scripts/ was written by m3dspy under the Apache License 2.0, https://www.apache.org/licenses/LICENSE-2.0.
The licence of the weights depends on the images that they learnt from.
"""


DETECTOR = ("adapters.pth", "backbone.txt", "detector.json", "detector.safetensors")  # of an anomaly detection
CLIP = "clip"  # the file of its frozen backbone


def write(run: Run, folder: Path, code: Path, door: Path, clip: Path | None) -> None:
    """Write the bundle.

    Args: code: of the run.  door: the script that inference.json goes through.  clip: the file of a frozen backbone.
    """
    import safetensors.torch
    import torch

    for part in ("configs", "models", "docs"):
        (folder / part).mkdir()
    shutil.copytree(code, folder / "scripts")
    shutil.copy(door, folder / "scripts" / door.name)
    (folder / "scripts" / "__init__.py").write_text("")
    anomalies = run.load("index", Index).task == "anomaly_detection"
    for name in ("model.safetensors", "settings.json", *(DETECTOR if anomalies else ())):
        shutil.copy(run.folder / "model" / name, folder / "models")
    if clip:
        shutil.copyfile(clip, folder / "models" / CLIP)
    torch.save(safetensors.torch.load_file(run.folder / "model" / "model.safetensors"), folder / "models" / "model.pt")
    slices = isinstance(run.load("index", Index).training[0].image, tuple)
    for name, value in (("metadata", metadata(run)), ("inference", inference(slices))):
        (folder / "configs" / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n")
    (folder / "docs" / "README.md").write_text(readme(run))
    (folder / "LICENSE").write_text(LICENSE)


def inference(slices: bool) -> dict[str, Any]:
    """configs/inference.json."""
    return {
        "imports": ["$import scripts.infer as infer"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_dir": "$@bundle_root + '/eval'",
        "model_dir": "$@bundle_root + '/models'",
        "datalist": f"$infer.items(@dataset_dir, {slices})",
        "network_def": "$infer.network_def(@model_dir)",
        "evaluator": {
            "_target_": "scripts.infer.Evaluator",
            "model": "@model_dir",
            "data": "@dataset_dir",
            "cases": "@datalist",
            "out": "@output_dir",
        },
        "initialize": [],
        "run": ["$@evaluator.run()"],
    }


def metadata(run: Run) -> dict[str, Any]:
    """configs/metadata.json, by MONAI's schema of 2024-07-25."""
    plan, index, outcome = run.load("plan", Plan), run.load("index", Index), run.load("outcome", Outcome)
    grade = outcome.grade
    return {
        "schema": SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": f"exported by m3dspy {__version__}"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch"),
        "numpy_version": version("numpy"),
        "required_packages_version": {name: version(name) for name in needed(run)},
        "supported_apps": {},
        "name": run.id,
        "task": f"{plan.task}, {plan.modality}",
        "description": plan.goal,
        "authors": "made by m3dspy from a request",
        "copyright": "see LICENSE",
        "data_source": "phantom, made up" if outcome.phantom else "the dataset of whoever made the run",
        "data_type": plan.images,
        "intended_use": " ".join(filter(None, (LIMITS, PHANTOM if outcome.phantom else ""))),
        "phantom": outcome.phantom,
        "eval_metrics": _metrics(grade) if grade else {},
        "split_sha256": split_hash(index),
        "seed": run.load("request", Request).seed,
        "network_data_format": {"inputs": {"image": _input(run)}, "outputs": {"pred": _output(run)}},
    }


def needed(run: Run) -> list[str]:
    """The packages that the bundle imports beside PyTorch and NumPy."""
    design = run.load("design", Design)
    network, needs = constants(design.network), templates()[design.template].needs
    reports = network["TASK"] == "report_generation"
    wanted = {"tokenizers": reports, "transformers": reports, "timm": network.get("WEIGHTS") == "timm"}
    wanted |= {"open_clip_torch": "OPEN_CLIP" in network}
    return [*NEEDED, *(package for package, needed in wanted.items() if needed), *([needs] if needs else [])]


def _metrics(grade: Grade) -> dict[str, Any]:
    score = grade.score
    return {grade.metric: score.value, f"{grade.metric}, 95 % interval": [score.low, score.high], "cases": grade.cases}


def _input(run: Run) -> dict[str, Any]:
    plan, design = run.load("plan", Plan), run.load("design", Design)
    unbounded = design.intensity == "zscore" or templates()[design.template].needs is not None
    return {
        "type": "image",
        "format": "hounsfield" if design.intensity == "window" else "magnitude",
        "modality": plan.modality,
        "num_channels": design.channels,
        "spatial_shape": list(design.size),
        "dtype": "float32",
        "value_range": [] if unbounded else [0 if plan.task == "anomaly_detection" else -1, 1],
        "is_patch_data": plan.task == "segmentation",
        "channel_def": {str(channel): f"image {channel}" for channel in range(design.channels)},
    }


def _output(run: Run) -> dict[str, Any]:
    plan, design, index = run.load("plan", Plan), run.load("design", Design), run.load("index", Index)
    names = ["background", *index.labels] if plan.task == "segmentation" else list(index.labels)
    one_hot = plan.task == "segmentation" and not index.multilabel
    return {
        "type": {"segmentation": "image", "report_generation": "series"}.get(plan.task, "probabilities"),
        "format": "sequence" if plan.task == "report_generation" else "labels" if one_hot else "classes",
        "modality": "n/a",
        "num_channels": len(names) or 1,
        "spatial_shape": list(design.size) if plan.task == "segmentation" else [1] * design.dims,
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": plan.task == "segmentation",
        "channel_def": {str(number): name for number, name in enumerate(names)} or {"0": "report"},
    }


def split_hash(index: Index) -> str:
    """SHA-256 of which case is in which split."""
    text = json.dumps({split: [item.id for item in index.items(split)] for split in SPLITS})
    return hashlib.sha256(text.encode()).hexdigest()


def readme(run: Run) -> str:
    """docs/README.md."""
    return "\n".join(
        [
            *_about(run),
            "## Use",
            "",
            "From this folder, on a folder of images:",
            "",
            "```",
            f"pip install {' '.join(needed(run))}",
            "python -m monai.bundle run --config_file configs/inference.json --meta_file configs/metadata.json \\",
            "    --bundle_root . --dataset_dir IMAGES --output_dir ANSWERS",
            "```",
            "",
            "Masks and maps are written in each image's own grid; classes, with probabilities, in predictions.csv;",
            "reports in reports.json. `scripts/` is the code that trained the model, word for word. A language model",
            "may have mended its train.py: read it before you run it where nothing contains it. It reads",
            "model.safetensors; model.pt holds the same weights, for other software that reads bundles.",
            "",
        ]
    )


def about_graph(run: Run, form: str, example: bool) -> str:
    """README.md beside one graph. Args: example: whether example.py lies there, too."""
    design, index = run.load("design", Design), run.load("index", Index)
    size = " x ".join(map(str, design.size))
    seen = {
        "classification": [
            f"`image`: (images, {design.channels}, {size}) float32, the whole image fitted to this size.",
            f"`logits`: (images, {len(index.labels)}), one a label in this order: {', '.join(index.labels)}.",
            "Probabilities: divide by `temperature` of settings.json, add the logarithm of `priors`, softmax (with",
            "several labels an image: sigmoid, without priors). A label is answered from its entry of `cuts` on.",
        ],
        "segmentation": [
            f"`image`: (patches, {design.channels}, {size}) float32, patches of the resampled image.",
            f"`logits`: (patches, {1 + len(index.labels)}, {size}): background, {', '.join(index.labels)}.",
            "A whole image is answered patch by patch, half overlapping, weighted by a Gaussian (MONAI's",
            "sliding_window_inference), on the image and its mirror images along `flips`; the mean of the softmax is",
            "resampled to the image's own grid. None of that is in the graph.",
        ],
        "anomaly_detection": [
            f"`image`: (1, 3, {size}) float32, one image fitted to this size (bicubic, antialiased), from 0 to 1.",
            "`score`: how abnormal it is; `map`: the same of each pixel, to be enlarged to the image's own grid. Both",
            "are 0 to 1, and 0.5 is the threshold. CLIP, adapters, memory and thresholds are in the graph.",
        ],
    }[index.task]
    if index.task == "anomaly_detection":
        before = ["Before the network: intensities by `intensity` and `window` of settings.json, to 0 .. 1."]
    else:
        before = [
            "Before the network: axes to right, anterior, superior; resampling to `spacing` mm; intensities by",
            "`intensity` and `window` of settings.json, to -1 .. 1 (zscore: to mean 0 and deviation 1). The code of",
            "each step is in images.py of the run's `code/`.",
        ]
    return "\n".join(
        [
            *_about(run),
            f"## The {'ONNX' if form == 'onnx' else 'TorchScript'} file",
            "",
            *seen,
            "",
            *before,
            "",
            *(_alone(example) if form == "onnx" else []),
        ]
    )


def _alone(example: bool) -> list[str]:
    if not example:
        return ["There is no script for ONNX Runtime alone: the images are of a format that needs more packages.", ""]
    return [
        "example.py does all of that with NumPy, and writes the answers to new images without PyTorch:",
        "",
        "```",
        "pip install onnxruntime numpy nibabel pillow",
        "python example.py ANSWERS IMAGE [IMAGE ...]",
        "```",
        "",
    ]


def _about(run: Run) -> list[str]:
    plan, outcome = run.load("plan", Plan), run.load("outcome", Outcome)
    lines = [f"# {plan.goal}", "", f"**{LIMITS}**", ""]
    lines += [f"**{PHANTOM}**", ""] if outcome.phantom else []
    if grade := outcome.grade:
        score = f"{grade.score.value:.3f} [{grade.score.low:.3f}, {grade.score.high:.3f}]"
        lines += [
            f"On {grade.cases} held-out cases of {grade.patients} patients: {grade.metric} {score}, 95 % interval.",
            "",
        ]
    return lines
