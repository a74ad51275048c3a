"""A sheet of example images for each phantom, for a person to look at: `python benchmarks/sheets.py [OUT] [NAME ...]`.

The middle slice of volumes, or the one with most of the mask; contours of masks; labels or reports as captions.
"""

import sys
import textwrap
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from m3dspy.m3bench.masks import along_patient
from m3dspy.m3bench.task import BenchTask, find, make, tasks
from m3dspy.signatures.values import Index, Item
from m3dspy.workspace import sources

CASES, COLUMNS = 9, 3
COLOURS = ("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6")


def main() -> None:
    out, *names = sys.argv[1:] or ["runs/sheets"]
    Path(out).mkdir(parents=True, exist_ok=True)
    for task in map(find, names) if names else tasks():
        with TemporaryDirectory() as folder:
            root = Path(folder) / task.name
            make(task.name, root, size=task.demo)
            sheet(task, root, Path(out) / f"{task.name}.png")
        print(Path(out) / f"{task.name}.png")


def sheet(task: BenchTask, root: Path, path: Path) -> None:
    """Draw some cases of a phantom, of every label if there are classes."""
    index = task.gold(root, 0)
    figure = Figure(figsize=(13, 14), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{task.name} (phantom): {task.requests[0]}", fontsize=12)
    places = figure.subplots(-(-CASES // COLUMNS), COLUMNS)
    for axes, item in zip(places.flat, chosen(index), strict=False):
        draw(axes, index, item, root)
    for axes in places.flat:
        axes.set_axis_off()
    figure.savefig(path, dpi=75)


def chosen(index: Index) -> list[Item]:
    """Cases in turn of every label, and of different patients."""
    groups: dict[object, dict[str, Item]] = {}
    for item in index.training:
        kind = item.label if index.task in ("classification", "anomaly_detection") else ""
        groups.setdefault(kind, {}).setdefault(item.patient, item)
    turns = [list(group.values()) for group in groups.values()]
    return [group[turn] for turn in range(CASES) for group in turns if turn < len(group)][:CASES]


def draw(axes, index: Index, item: Item, root: Path) -> None:
    image, affine = sources.read(_paths(root, item.image))
    file = item.label if index.task == "segmentation" else item.mask
    mask, mask_affine = sources.read(root / str(file)) if file else (None, None)
    aspect = 1.0
    if affine is not None:
        image, mask = along_patient(image, affine), None if mask is None else along_patient(mask, mask_affine)
        steps = np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)
        aspect = float(steps.max() / steps.min()) if steps[2] < steps[:2].min() else 1.0
    image, mask = slice_of(np.squeeze(image), None if mask is None else np.squeeze(mask))
    if affine is not None:  # seen from the feet, the patient's right on the left
        image, mask = np.flip(image.T), None if mask is None else np.flip(mask.T)
    axes.imshow(image if image.ndim == 3 else window(image), cmap="gray", aspect=aspect)
    values = index.values or (() if mask is None else tuple(np.unique(mask[mask > 0])))
    for place, value in enumerate(values):
        if mask is not None and (mask == value).any():
            axes.contour(mask == value, [0.5], colors=COLOURS[place % len(COLOURS)], linewidths=1)
    caption = f"{item.findings} {item.impression or ''}" if item.findings else "" if file == item.label else item.label
    axes.set_title("\n".join(textwrap.wrap(str(caption or item.id), 60)[:5]), fontsize=8)


def slice_of(image: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Of a volume the slice along its shortest axis with most of the mask, or the middle one."""
    if image.ndim == 2 or (image.ndim == 3 and image.shape[-1] == 3):
        return image, mask
    image = image if image.ndim == 3 else image[..., 0]
    axis = int(np.argmin(image.shape)) if mask is None else 2
    marked = None if mask is None else (mask > 0).sum((0, 1))
    at = int(marked.argmax()) if marked is not None and marked.any() else image.shape[axis] // 2
    return image.take(at, axis), None if mask is None else mask.take(at, axis)


def window(image: np.ndarray) -> np.ndarray:
    """Grey from 0 to 1: of a CT from -1000 or -160 HU, else between the 1st and the 99.5th percentile."""
    low, high = np.percentile(image, [1, 99.5])
    if low < -900:  # air around the patient: soft tissue, unless half of what is inside is lung
        inside = image[image > -950]
        low, high = (-1000, 300) if (inside < -500).mean() > 0.3 else (-160, 240)
    return np.clip((image - low) / max(high - low, 1e-6), 0, 1)


def _paths(root: Path, image: str | tuple[str, ...]) -> Path | list[Path]:
    return root / image if isinstance(image, str) else [root / path for path in image]


if __name__ == "__main__":
    main()
