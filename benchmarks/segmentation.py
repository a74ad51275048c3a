"""The emitted default script against Auto3DSeg's SegResNet and plain nnU-Net v2: mean Dice at equal training time.

    pip install nnunetv2
    python benchmarks/segmentation.py [--phantom BTCV] [--seconds 180] [--seeds 0 1] [--only ours auto3dseg nnunet]

One after the other, each with all cores and `--seconds` of training by the wall clock; how many steps that makes is
measured first. What the others prepare beforehand is not counted; our script's validation after every epoch is. All
learn from the same cases and are graded by the examiner on the same test cases.

Auto3DSeg's algorithms are not on PyPI: its SegResNet is put together here from MONAI by the published recipe
(Project-MONAI/research-contributions, auto3dseg/algorithm_templates/segresnet), without the parts that need a GPU.
nnU-Net is the package itself: planner, preprocessing, trainer and predictor.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))

import nibabel
import numpy as np
import torch
from default_script import default_script

from m3dspy.m3bench import task as datasets
from m3dspy.m3bench.grade import grade
from m3dspy.signatures.values import Index, Item

CORES = str(os.cpu_count() or 1)


# ------------------------------------------------------------------------------------------------ ours
def ours(task: datasets.BenchTask, index: Index, root: Path, home: Path, seconds: float, seed: int) -> Path:
    """The default script, with as many epochs as there is time for."""
    design, code = default_script(task, index, root, home)

    def trained(out: Path, epochs: int) -> list[float]:
        words = ["--index", home / "index.json", "--data", root, "--out", out]
        words += ["--set", f"epochs={epochs}", f"seed={seed}", "patience=1000"]
        process = subprocess.Popen([sys.executable, "train.py", *map(str, words)], cwd=code, stdout=subprocess.PIPE)
        times = [time.monotonic() for _ in process.stdout or ()]
        if process.wait():
            raise SystemExit("our script failed")
        return times

    first, *_, last = trained(home / "probe", 4)
    epochs = round(seconds / ((last - first) / 3))
    times = trained(home / "out", epochs)
    print(f"ours: {design.network}, {epochs} epochs in {times[-1] - times[0]:.0f} s and one before", flush=True)
    return home / "out" / "predictions"


# ------------------------------------------------------------------------------------------------ Auto3DSeg
def auto3dseg(task: datasets.BenchTask, index: Index, root: Path, home: Path, seconds: float, seed: int) -> Path:
    """SegResNetDS by its recipe: the whole image or 224 x 224 x 144 of it, crops by class, DiceCE, AdamW, cosine."""
    from monai import transforms as mt
    from monai.data.dataset import CacheDataset
    from monai.inferers.inferer import SlidingWindowInfererAdapt
    from monai.losses.dice import DiceCELoss
    from monai.losses.ds_loss import DeepSupervisionLoss
    from monai.networks.nets.segresnet_ds import SegResNetDS
    from monai.optimizers.lr_scheduler import WarmupCosineSchedule
    from monai.utils.misc import set_determinism

    set_determinism(seed)
    classes, both = 1 + len(index.labels), ["image", "label"]
    shape = nibabel.load(root / str(index.training[0].image)).shape[:3]  # pyright: ignore
    roi = [min(most, -(-n // 16) * 16) for n, most in zip(shape, (224, 224, 144), strict=True)]
    before = [
        mt.LoadImaged("image", ensure_channel_first=True, image_only=True),
        mt.Orientationd("image", axcodes="RAS", labels=None),
        mt.ScaleIntensityRanged("image", -250, 250, -1, 1),
        mt.Lambdad("image", torch.sigmoid),
    ]
    reading = mt.Compose(
        [
            mt.LoadImaged(both, ensure_channel_first=True, image_only=True),
            mt.Orientationd(both, axcodes="RAS", labels=None),
            *before[2:],
            mt.SpatialPadd(both, roi),
            mt.ClassesToIndicesd("label", num_classes=classes),
        ]
    )
    drawing = mt.Compose(
        [
            mt.RandCropByLabelClassesd(both, "label", roi, num_classes=classes, indices_key="label_cls_indices"),
            mt.RandAffined(
                both,
                prob=0.2,
                rotate_range=[0.26] * 3,
                scale_range=[0.2] * 3,
                mode=["bilinear", "nearest"],
                padding_mode="border",
            ),
            mt.RandGaussianSmoothd("image", (0.5, 1), (0.5, 1), (0.5, 1), prob=0.2),
            mt.RandScaleIntensityd("image", prob=0.5, factors=0.3),
            mt.RandShiftIntensityd("image", prob=0.5, offsets=0.1),
            mt.RandGaussianNoised("image", prob=0.2, std=0.1),
            *(mt.RandFlipd(both, prob=0.5, spatial_axis=axis) for axis in range(3)),
        ]
    )
    cases = CacheDataset([_paths(item, root) for item in index.training], reading, progress=False)
    net = SegResNetDS(3, 32, 1, classes, norm="INSTANCE", blocks_down=(1, 2, 2, 4, 4), dsdepth=4)
    net = net.to(memory_format=torch.channels_last_3d)  # pyright: ignore[reportCallIssue]
    loss = DeepSupervisionLoss(
        DiceCELoss(to_onehot_y=True, softmax=True, squared_pred=True, smooth_nr=0, smooth_dr=1e-5)
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-4, weight_decay=1e-5)

    def step() -> None:
        found: Any = drawing(dict(cases[int(np.random.randint(len(cases)))]))  # pyright: ignore
        x = found[0]["image"].as_tensor()[None].contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast("cpu", torch.bfloat16):
            logits = net.train()(x)
        value = loss([part.float() for part in logits], found[0]["label"].as_tensor()[None])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    steps = _steps_in(seconds, step)
    schedule = WarmupCosineSchedule(optimizer, warmup_steps=max(1, steps // 100), t_total=steps)
    began = time.monotonic()
    for _ in range(steps):
        step()
        schedule.step()
    print(f"auto3dseg: patch {roi}, {steps} steps in {time.monotonic() - began:.0f} s", flush=True)
    inferer = SlidingWindowInfererAdapt(roi_size=roi, sw_batch_size=1, overlap=0.625, mode="gaussian")
    back = mt.Invertd("pred", mt.Compose(before), orig_keys="image", nearest_interp=False)
    for item in index.test:
        seen: Any = mt.Compose(before)(_paths(item, root))
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            padded = mt.DivisiblePad(16)(seen["image"])
            seen["pred"] = mt.CenterSpatialCrop(seen["image"].shape[1:])(inferer(padded[None], net.eval())[0].float())
        answer = back(seen)["pred"].argmax(0)
        _save(answer.numpy(), item, index, root, home / "predictions")
    return home / "predictions"


# ------------------------------------------------------------------------------------------------ nnU-Net
def nnunet(task: datasets.BenchTask, index: Index, root: Path, home: Path, seconds: float, seed: int) -> Path:
    """nnUNetTrainer as it is, 3d_fullres, for fewer steps; mirrored answers."""
    name, folders = "Dataset001_Phantom", {part: home / part for part in ("raw", "preprocessed", "results")}
    os.environ |= {f"nnUNet_{part}": str(folder) for part, folder in folders.items()}
    os.environ |= {"nnUNet_n_proc_DA": CORES, "nnUNet_compile": "f", "nnUNet_def_n_proc": CORES}
    for part in ("imagesTr", "labelsTr"):
        (folders["raw"] / name / part).mkdir(parents=True)
    numbers = {item.id: f"case_{number:03d}" for number, item in enumerate((*index.training, *index.validation))}
    for item in (*index.training, *index.validation):
        shutil.copy(root / str(item.image), folders["raw"] / name / "imagesTr" / f"{numbers[item.id]}_0000.nii.gz")
        _copy_mask(item, index, root, folders["raw"] / name / "labelsTr" / f"{numbers[item.id]}.nii.gz")
    about = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0} | {label: number for number, label in enumerate(index.labels, 1)},
        "numTraining": len(numbers),
        "file_ending": ".nii.gz",
    }
    (folders["raw"] / name / "dataset.json").write_text(json.dumps(about))

    api = import_module("nnunetv2.experiment_planning.plan_and_preprocess_api")
    predictor_of = import_module("nnunetv2.inference.predict_from_raw_data").nnUNetPredictor
    trainer_of = import_module("nnunetv2.training.nnUNetTrainer.nnUNetTrainer").nnUNetTrainer

    torch.manual_seed(seed)
    np.random.seed(seed)
    api.extract_fingerprints([1], num_processes=1, show_progress_bar=False)
    api.plan_experiments([1])
    api.preprocess([1], configurations=("3d_fullres",), num_processes=(1,), show_progress_bar=False)
    ready = folders["preprocessed"] / name
    splits = {"train": [numbers[i.id] for i in index.training], "val": [numbers[i.id] for i in index.validation]}
    (ready / "splits_final.json").write_text(json.dumps([splits]))
    plans = json.loads((ready / "nnUNetPlans.json").read_text()) | {"continue_training": False}
    os.environ |= {"nnUNet_n_proc_DA": "0"}  # from here on: augmentation in the process that trains
    trainer = trainer_of(plans, "3d_fullres", 0, about, torch.device("cpu"))
    trainer.on_train_start()
    steps = _steps_in(seconds, lambda: trainer.train_step(next(trainer.dataloader_train)))  # pyright: ignore
    trainer.num_epochs, began = min(20, steps), time.monotonic()
    for epoch in range(trainer.num_epochs):
        trainer.lr_scheduler.step(epoch)
        trainer.network.train()
        for _ in range(steps // trainer.num_epochs):
            trainer.train_step(next(trainer.dataloader_train))
    patch = trainer.configuration_manager.patch_size
    print(f"nnunet: patch {patch}, {steps} steps in {time.monotonic() - began:.0f} s", flush=True)
    trainer.set_deep_supervision_enabled(False)
    predictor = predictor_of(perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False)
    mirrored = trainer.inference_allowed_mirroring_axes
    predictor.manual_initialization(
        trainer.network, trainer.plans_manager, trainer.configuration_manager, None, about, "", mirrored
    )
    predictor.list_of_parameters = [trainer.network.state_dict()]
    given = [[str(root / str(item.image))] for item in index.test]
    answers = [home / "answers" / item.id for item in index.test]
    (home / "answers").mkdir()
    predictor.predict_from_files_sequential(given, [str(path) for path in answers])
    for item, path in zip(index.test, answers, strict=True):
        mask = np.asarray(nibabel.load(f"{path}.nii.gz").dataobj)  # pyright: ignore
        _save(mask.astype(int), item, index, root, home / "predictions")
    return home / "predictions"


# ------------------------------------------------------------------------------------------------ what they share
def _paths(item: Item, root: Path) -> dict[str, str]:
    return {"image": str(root / str(item.image))} | ({"label": str(root / str(item.label))} if item.label else {})


def _steps_in(seconds: float, step: Callable[[], Any]) -> int:
    """How many steps there is time for, by the last three of five."""
    for _ in range(2):
        step()
    began = time.monotonic()
    for _ in range(3):
        step()
    return max(1, round(seconds / ((time.monotonic() - began) / 3)))


def _copy_mask(item: Item, index: Index, root: Path, path: Path) -> None:
    """The mask with values 1, 2, 3, ..."""
    stored: Any = nibabel.load(root / str(item.label))
    values = np.asarray(stored.dataobj)
    mask = np.zeros(values.shape, np.uint8)
    for number, value in enumerate(index.values, 1):
        mask[values == value] = number
    nibabel.save(nibabel.Nifti1Image(mask, stored.affine), path)


def _save(mask: np.ndarray, item: Item, index: Index, root: Path, folder: Path) -> None:
    """A mask of values 1, 2, 3, ... in the image's own grid, in the values of the dataset."""
    folder.mkdir(parents=True, exist_ok=True)
    stored: Any = nibabel.load(root / str(item.image))
    values = np.array([0, *index.values], np.uint8)[mask]
    nibabel.save(nibabel.Nifti1Image(values, stored.affine), folder / f"{item.id}.nii.gz")


SYSTEMS = {"ours": ours, "auto3dseg": auto3dseg, "nnunet": nnunet}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phantom", default="BTCV")
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    given = parser.parse_args()
    task = datasets.find(given.phantom)
    with TemporaryDirectory(prefix="m3dspy-segmentation-") as scratch:
        root = Path(scratch) / "data" / task.name
        datasets.make(task.name, root)
        for seed in given.seeds:
            index = task.gold(root, seed)
            for name in given.only:
                home = Path(scratch) / f"{name}-{seed}"
                home.mkdir()
                found = grade(index, root, SYSTEMS[name](task, index, root, home, given.seconds, seed), checkpoint=None)
                score = f"{found.score.value:.3f} [{found.score.low:.3f}, {found.score.high:.3f}]"
                print(f"{name}, seed {seed}: {found.metric} {score}, missing {len(found.missing)}", flush=True)


if __name__ == "__main__":
    main()
