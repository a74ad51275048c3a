"""Train nnU-Net v2 itself, which plans patch, batch, spacing and network from the images; for requests that name it.

    python nnunet.py                                                         on made-up images, in a minute
    python train.py --index index.json --data ROOT --out DIR [--set lr=3e-3 ...] [--preset small] [--smoke] [--resume]
    python train.py --predict ITEMS.json --data ROOT --model DIR --out DIR   ITEMS: [{"id": ..., "image": ...}, ...]
    python train.py --space                                                  what Optuna may try, and defaults, as JSON

Needs `pip install nnunetv2`. The package does the work: its fingerprint, plan, preprocessing, trainer and predictor, on
the split of the index. It works in DIR/nnunet, which is gone when all is done.

Prints one JSON line an epoch, {"epoch": 3, "loss": -0.41, "score": 0.83, "dice": {"liver": 0.9, ...}}: the score is
nnU-Net's, a running mean of the Dice on validation patches; "dice" is this epoch's. The rest is log and goes to stderr.
DIR receives model.safetensors and settings.json (the last epoch, and what was planned), one mask a test case in
predictions/ (<id>.nii.gz, in 2D <id>.png, in the image's own grid) and, last of all, result.json: its presence means
done. --smoke plans for four cases, takes one step on them and writes nothing.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lean  # noqa: F401

import nibabel
import numpy as np
import safetensors.torch
import torch
from lightning_fabric import Fabric
from optuna.distributions import FloatDistribution

from harness import Problem, answered, command_line, commit, log, saved_settings, say
from images import as_stored, read_image, resized, upright, with_channels
from masks import exchanged, made_up, read_mask, write_mask
from network import network

TASK = "segmentation"
NEEDS = "nnunetv2"
HELPERS = ("masks.py", "nnunet_trainer.py")
LOSSES = ("dice_ce",)  # nnU-Net's own
PRESETS = {
    "small": {"gigabytes": 0.25, "steps": 25},  # for a CPU
    "2d": {"configuration": "2d"},  # slice by slice
    "resenc_m": {"planner": "nnUNetPlannerResEncM"},
    "resenc_l": {"planner": "nnUNetPlannerResEncL", "gigabytes": 24.0},
}


@dataclass(frozen=True)
class Settings:
    """Every choice of this run that is not nnU-Net's."""

    labels: tuple[str, ...] = ("ball", "cube")
    values: tuple[int, ...] = (1, 2)  # of the labels, in the masks
    multilabel: bool = False  # labels overlap: values are bits, and a voxel holds the sum of those that cover it
    network: str = "nnunet"
    dims: int = 3
    channels: int = 1
    intensity: str = "percentile"  # "window": CT, clipped to what the labels show; else mean 0, deviation 1 an image
    flips: tuple[int, ...] = (0, 1, 2)  # axes that may be mirrored; never left-right for sided labels
    planner: str = "ExperimentPlanner"  # a class of nnU-Net's
    configuration: str = "3d_fullres"  # or "3d_lowres", "2d"; pictures are always 2d
    gigabytes: float = 8.0  # of a GPU, which the plan is to fill
    loss: str = "dice_ce"
    lr: float = 1e-2
    epochs: int = 1000
    steps: int = 250  # an epoch; for validation a fifth of them
    seed: int = 0
    shuffled: bool = False  # the control: every image gets the mask of another patient
    workers: int = 8  # processes that read and, for a GPU, augment; no more than there are cores
    plans: dict | None = None  # nnU-Net's, once it has planned
    dataset: dict | None = None  # its dataset.json


SETTINGS = Settings(gigabytes=0.25, epochs=2, steps=5)

SPACE = {"lr": FloatDistribution(1e-3, 3e-2, log=True)}

WORK = "nnunet"  # in --out: what nnU-Net writes
NAME = "Dataset001_index"
CONFIGURATIONS = ("2d", "3d_lowres", "3d_fullres")  # the cascade needs two trainings
TRAINED = "trained.json"  # in WORK: the lines of all epochs; the training is over
MOST_BITS = 15  # labels that overlap: nnU-Net keeps masks in 16 bits


# ---------------------------------------------------------------------------------------------------- cases
def load_image(item: dict, root: Path, s: Settings) -> tuple[torch.Tensor, list[float] | None, np.ndarray | None]:
    """The upright image (C, *space), its voxel size in mm, and the file's affine."""
    array, affine = read_image(item["image"], root, s.dims)
    x, mm = upright(array, affine, s.dims)
    return with_channels(x, s.channels, item["id"]), mm, affine


def turned(x: torch.Tensor, mm: list[float] | None) -> tuple[np.ndarray, list[float]]:
    """As nnU-Net has images: (C, z, y, x) and their spacing; a picture is one slice, as thick as nnU-Net reads them."""
    if x.ndim == 3:
        return x.numpy()[:, None], [999.0, *(mm or (1.0, 1.0))]
    return x.numpy().transpose(0, 3, 2, 1), [*(mm or (1.0, 1.0, 1.0))][::-1]


def turned_back(mask: np.ndarray, dims: int) -> np.ndarray:
    return mask[0] if dims == 2 else mask.transpose(2, 1, 0)


def write_nifti(array: np.ndarray, spacing: list[float], path: Path) -> None:
    """Write (z, y, x), as whole numbers if it holds nothing else."""
    whole = abs(array).max() < 2**15 and (array == array.round()).all()
    values = array.astype(np.int16 if whole else np.float32).transpose(2, 1, 0)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([*spacing[::-1], 1.0])), path)


def write_case(item: dict, name: str, root: Path, raw: Path, s: Settings) -> set[int]:
    """Write image and mask where nnU-Net looks for them; the values in the mask."""
    x, mm, affine = load_image(item, root, s)
    y = read_mask(item, root, s, tuple(x.shape[1:]), affine)
    y = resized(y, x.shape[1:], mode="nearest-exact")  # in the control it is another patient's
    if s.multilabel:
        mask = (y.long() & sum(s.values)).float()
    else:
        mask = torch.zeros_like(y)
        for number, value in enumerate(s.values, 1):
            mask[y == value] = number
    channels, spacing = turned(x, mm)
    for channel, array in enumerate(channels):
        write_nifti(array, spacing, raw / "imagesTr" / f"{name}_{channel:04d}.nii.gz")
    write_nifti(turned(mask, mm)[0][0], spacing, raw / "labelsTr" / f"{name}.nii.gz")
    return {int(value) for value in mask.unique() if value}


def described(cases: int, shown: set[int], s: Settings) -> dict[str, Any]:
    """dataset.json. Labels that overlap are regions: all the values that hold their bit. Args: shown: in the masks."""
    labels: dict[str, Any] = {name: number for number, name in enumerate(s.labels, 1)}
    order = {}
    if s.multilabel:
        labels = {name: sorted(v for v in shown if v & bit) for name, bit in zip(s.labels, s.values, strict=True)}
        if missing := [name for name, values in labels.items() if not values]:
            raise Problem(f"no mask for training or validation shows {', '.join(missing)}")
        labels = {name: values * 2 for name, values in labels.items()}  # a list of one value is no region
        order = {"regions_class_order": list(range(1, 1 + len(labels)))}
    channel = "CT" if s.intensity == "window" else "grey"
    return {
        "channel_names": {str(number): channel for number in range(s.channels)},
        "labels": {"background": 0} | labels,
        "numTraining": cases,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "NibabelIO",
        **order,
    }


# ---------------------------------------------------------------------------------------------------- nnU-Net
def check(s: Settings) -> None:
    if find_spec(NEEDS) is None:
        raise Problem("nnU-Net is not installed: pip install nnunetv2")
    if s.configuration not in CONFIGURATIONS:
        raise Problem(f"configuration {s.configuration} is none of {', '.join(CONFIGURATIONS)}")
    if s.multilabel and len(s.labels) > MOST_BITS:
        raise Problem(
            f"{len(s.labels)} labels that overlap are more than the {MOST_BITS} that nnU-Net's masks can hold"
        )


def processes(s: Settings) -> int:
    return max(1, min(s.workers, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1))


def at(work: Path, s: Settings) -> None:
    """Tell nnU-Net where to work; before it is first imported."""
    os.environ |= {f"nnUNet_{part}": str(work / part) for part in ("raw", "preprocessed", "results")}
    os.environ |= {"nnUNet_def_n_proc": str(processes(s)), "nnUNet_n_proc_DA": str(processes(s))}
    os.environ |= {"nnUNet_compile": "f"}  # it needs a compiler, which a sandbox may not have


@contextmanager
def unseen() -> Iterator[None]:
    """Processes that nnU-Net starts do without this script, whose imports would take them longer than their work."""
    main = sys.modules["__main__"].__dict__
    hidden = {name: main.pop(name) for name in ("__file__",) if name in main}
    try:
        yield
    finally:
        main |= hidden


def prepared(lists: dict[str, list[dict]], root: Path, work: Path, s: Settings) -> Settings:
    """Write the cases for nnU-Net, let it plan and preprocess; the settings with its plans."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api  # pyright: ignore[reportMissingImports]

    raw, ready = work / "raw" / NAME, work / "preprocessed" / NAME
    for folder in (raw / "imagesTr", raw / "labelsTr", ready):
        folder.mkdir(parents=True)
    items = [*lists["training"], *lists["validation"]]
    names = [f"case_{number:06d}" for number in range(len(items))]
    with ThreadPoolExecutor(processes(s)) as pool:
        shown = list(pool.map(lambda item, name: write_case(item, name, root, raw, s), items, names))
    log(f"{len(lists['training'])} training and {len(lists['validation'])} validation images read")
    learnt = len(lists["training"])
    for name, part in (("training", shown[:learnt]), ("validation", shown[learnt:])):
        if not set().union(*part):
            raise Problem(f"no {name} mask holds any of the labels")
    dataset = described(len(items), set().union(*shown), s)
    commit(raw / "dataset.json", json.dumps(dataset).encode())
    commit(ready / "splits_final.json", json.dumps([{"train": names[:learnt], "val": names[learnt:]}]).encode())
    many = max(1, min(processes(s), len(items) // 8))  # each takes seconds to start
    with redirect_stdout(sys.stderr), unseen():
        api.extract_fingerprints([1], num_processes=many, show_progress_bar=False)
        try:
            api.plan_experiments([1], s.planner, s.gigabytes, overwrite_plans_name="plans")
        except TypeError:
            raise Problem(f"nnU-Net has no planner {s.planner}") from None
        plans = json.loads((ready / "plans.json").read_text())
        if s.configuration not in plans["configurations"]:
            known = ", ".join(name for name in CONFIGURATIONS if name in plans["configurations"])
            raise Problem(f"nnU-Net plans no {s.configuration} for these images; set configuration to one of: {known}")
        api.preprocess([1], "plans", (s.configuration,), (many,), show_progress_bar=False)
    shutil.rmtree(work / "raw")
    return replace(s, plans=plans, dataset=dataset)


def trainer_of(s: Settings, resume: bool):
    """nnU-Net's trainer on what was prepared. Args: resume: from its checkpoint, if it has written one."""
    from nnunet_trainer import Trainer

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":  # its cores have enough to do, and a resumed training ends with the very same weights
        os.environ |= {"nnUNet_n_proc_DA": "0"}
    with redirect_stdout(sys.stderr):
        trainer = Trainer({**(s.plans or {}), "continue_training": resume}, s.configuration, 0, s.dataset, device)
    trainer.begin(s)
    kept = [Path(trainer.output_folder, f"checkpoint_{name}.pth") for name in ("final", "latest")]
    if resume and (found := [path for path in kept if path.is_file()]):
        trainer.load_checkpoint(str(found[0]))
    return trainer


def trained(lists: dict[str, list[dict]], root: Path, out: Path, s: Settings, resume: bool) -> Settings:
    """Plan, preprocess and train in --out, as far as it is not done yet; leaves the model and TRAINED."""
    work = out / WORK
    if resume and (out / "settings.json").is_file():
        planned = saved_settings(out, Settings)
        if replace(planned, plans=None, dataset=None) != s:
            raise Problem(f"{out} holds a training with other settings: repeat its --set, or give another --out")
    else:
        resume = False
        (out / "settings.json").unlink(missing_ok=True)
        shutil.rmtree(work, ignore_errors=True)
        planned = prepared(lists, root, work, s)
        commit(out / "settings.json", json.dumps(asdict(planned), indent=1).encode())
    if resume and (work / TRAINED).is_file():
        for line in json.loads((work / TRAINED).read_text()):
            say(**line)
        return planned
    trainer = trainer_of(planned, resume)
    for line in trainer.told():
        say(**line)
    if trainer.current_epoch < s.epochs:
        trainer.run_training()
    safetensors.torch.save_model(trainer.network, str(work / "weights"))
    commit(out / "model.safetensors", (work / "weights").read_bytes())
    commit(work / TRAINED, json.dumps(trainer.told()).encode())
    return planned


def train(index: dict, root: Path, out: Path, s: Settings, smoke: bool, resume: bool) -> None:
    """Data, model, epochs, result."""
    started = time.perf_counter()
    s = replace(s, configuration="2d") if s.dims == 2 else s
    check(s)
    if tuple(index["labels"]) != s.labels:
        raise Problem(f"the index has the labels {', '.join(index['labels'])}, the settings {', '.join(s.labels)}")
    most = {"training": 3 if smoke else None, "validation": 1 if smoke else None}
    lists = {name: index[name][:count] for name, count in most.items()}
    for name, items in lists.items():
        if not items:
            raise Problem(f"the index has no {name} cases")
        if s.shuffled:
            lists[name] = exchanged(items, s.seed)
    if smoke:
        with TemporaryDirectory(prefix="smoke-") as folder:
            at(Path(folder), s)
            loss = first_loss(prepared(lists, root, Path(folder), s))
        say(smoke=True, loss=loss, seconds=time.perf_counter() - started)
        return
    at(out / WORK, s)
    s = trained(lists, root, out, s, resume)
    history = json.loads((out / WORK / TRAINED).read_text())
    for part in ("preprocessed", "results"):
        shutil.rmtree(out / WORK / part, ignore_errors=True)
    failed = predict(index["test"], root, out / "predictions", *saved_network(out, Settings))
    result = {key: history[-1][key] for key in ("score", "epoch")} | {"epochs": len(history), "history": history}
    result |= {"failed": failed, "seconds": time.perf_counter() - started}
    commit(out / "result.json", json.dumps(result, indent=1).encode())
    shutil.rmtree(out / WORK)


def first_loss(s: Settings) -> float:
    """Of one step of the training."""
    trainer = trainer_of(s, resume=False)
    os.environ |= {"nnUNet_n_proc_DA": "0"}
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    return float(trainer.train_step(next(trainer.dataloader_train))["loss"])


# ---------------------------------------------------------------------------------------------------- answers
def saved_network(folder: Path, kind: type) -> tuple[Settings, torch.nn.Module, Fabric]:
    """Settings, network and device of a finished training."""
    s = saved_settings(folder, kind)
    check(s)
    fabric, net = Fabric(accelerator="auto", devices=1, precision="32-true"), network(s)
    safetensors.torch.load_model(net, str(folder / "model.safetensors"))
    return s, net.to(fabric.device).eval(), fabric


def predict(items: list[dict], root: Path, folder: Path, s: Settings, net, fabric: Fabric) -> list[str]:
    """Write one mask a case; returns the ids of the cases that could not be answered, each with a line in the log."""
    at(folder, s)
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # pyright: ignore[reportMissingImports]
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager  # pyright: ignore[reportMissingImports]

    from nnunet_trainer import mirrored

    plans = PlansManager(s.plans)
    with redirect_stdout(sys.stderr):
        predictor = nnUNetPredictor(device=fabric.device, allow_tqdm=False)
    how = (plans, plans.get_configuration(s.configuration), [net.state_dict()], s.dataset, "nnUNetTrainer", mirrored(s))
    predictor.manual_initialization(net, *how)
    values = np.array([0, *s.values], np.uint8 if sum(s.values) < 256 else np.uint16)

    def answer(item: dict) -> None:
        x, mm, affine = load_image(item, root, s)
        image, spacing = turned(x, mm)
        with redirect_stdout(sys.stderr):
            found = predictor.predict_single_npy_array(image, {"spacing": spacing}, None, None, s.multilabel)
        if s.multilabel:
            mask = np.tensordot(values[1:], (found[1] > 0.5).astype(values.dtype), 1)
        else:
            mask = values[found]
        write_mask(as_stored(turned_back(mask, s.dims), affine), affine, folder, item["id"])

    return answered(items, root, folder, answer).failed


if __name__ == "__main__":
    sys.exit(command_line(SETTINGS, SPACE, LOSSES, train, predict, made_up, saved_network, PRESETS))
