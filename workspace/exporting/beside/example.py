"""Answer new images by model.onnx alone: no PyTorch, no MONAI, nothing of m3dspy.

    pip install onnxruntime numpy nibabel pillow
    python example.py ANSWERS IMAGE [IMAGE ...]          NIfTI, PNG, JPEG, TIFF, .npy; or a folder of slices

Writes what the model's own script writes: ANSWERS/predictions.csv with the probability of each class, one mask an
image in the image's own grid, or (anomalies) that table and a 16-bit map an image. Every choice stands in settings.json
beside this file.
"""

import csv
import gzip
import itertools
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.orientations import apply_orientation, io_orientation, ornt_transform
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
RAS = np.array([[0, 1], [1, 1], [2, 1]])
MILLIMETRES = {"meter": 1000.0, "micron": 0.001}
KNOWN = (".nii", ".nii.gz", ".npy", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp")


# ---------------------------------------------------------------------------------------------------- reading
def read(paths: Path | list[Path], dims: int) -> tuple[np.ndarray, np.ndarray | None]:
    """The array, (*space) or (*space, channels) float32, and its affine if the format has one.

    Args: paths: one file, or the slices of a volume in their order.
    """
    path, affine = paths if isinstance(paths, Path) else paths[0], None
    if not path.name.lower().endswith(KNOWN):
        raise SystemExit(f"{path}: give one of {', '.join(KNOWN)}; DICOM becomes NIfTI by dcm2niix")
    if isinstance(paths, list):
        array = np.stack([grey(picture(file)) for file in paths], -1)
    elif path.name.lower().endswith((".nii", ".nii.gz")):
        image: Any = nibabel.load(path)
        array, scale = np.asarray(image.dataobj), MILLIMETRES.get(image.header.get_xyzt_units()[0], 1.0)
        array = array.reshape([*array.shape[:3], *(n for n in array.shape[3:] if n > 1)])
        affine = np.diag([scale, scale, scale, 1.0]) @ image.affine
    elif path.suffix.lower() == ".npy":
        array = np.load(path, allow_pickle=False)
        while array.ndim > 2 and len(array) == 1:
            array = array[0]
    else:
        array = picture(path)
    if array.ndim not in (dims, dims + 1):
        raise SystemExit(f"{path}: expected a {dims}D image, found an array of shape {array.shape}")
    array = array.astype(np.float32)
    finite = np.isfinite(array)
    array[~finite] = array[finite].min()
    return array, affine


def picture(path: Path) -> np.ndarray:
    """(rows, columns) or (rows, columns, 3), with all 16 bits where there are 16."""
    image = Image.open(path)
    if image.format in ("JPEG", "MPO"):
        image = ImageOps.exif_transpose(image)
    if image.mode == "P":
        colours: Any = image.getpalette("RGB")
        image = image.convert("L" if colours[::3] == colours[1::3] == colours[2::3] else "RGB")
    elif image.mode in ("1", "LA", "La"):
        image = image.convert("L")
    elif image.mode not in ("L", "I", "F", "I;16", "I;16L", "I;16B"):
        image = image.convert("RGB")
    return np.asarray(image)


def grey(array: np.ndarray) -> np.ndarray:
    """Slices in colour by their luminance."""
    return array if array.ndim == 2 else np.round(array @ np.array([0.299, 0.587, 0.114])).astype(array.dtype)


# ---------------------------------------------------------------------------------------------------- preparing
def upright(array: np.ndarray, affine, dims: int) -> tuple[np.ndarray, list[float] | None]:
    """Channels first, a volume's axes to right, anterior, superior; and the size of a voxel in mm."""
    x = array[None] if array.ndim == dims else np.moveaxis(array, -1, 0)
    if affine is None:
        return x, None
    mm = np.linalg.norm(affine[:3, :3], axis=0)
    if dims == 3:
        axes = io_orientation(affine)
        x = np.stack([apply_orientation(channel, axes) for channel in x])
        mm = mm[np.argsort(axes[:, 0])]
    return x, [float(n) for n in mm[:dims]]


def with_channels(x: np.ndarray, channels: int) -> np.ndarray:
    """Grey to colours by repeating, colours to grey by their mean, transparency left out."""
    if len(x) == channels:
        return x
    if len(x) not in (1, 3, 4) or channels not in (1, 3):
        raise SystemExit(f"The image has {len(x)} channels, the model reads {channels}.")
    return np.repeat(x[:3].mean(0, keepdims=True), channels, 0)


def size_at(shape, mm, spacing) -> list[int]:
    """Voxels an axis after resampling from `mm` to `spacing`."""
    if spacing is None:
        return list(shape)
    if mm is None:
        raise SystemExit("The file does not say its voxel size; give NIfTI.")
    return [max(1, round(n * old / new)) for n, old, new in zip(shape, mm, spacing, strict=True)]


def resized(x: np.ndarray, size) -> np.ndarray:
    """(C, *space) to (C, *size), as PyTorch does: means where every axis shrinks, else linear; axis after axis."""
    shrinks = all(new <= old for new, old in zip(size, x.shape[1:], strict=True))
    for axis, new in enumerate(size, start=1):
        old = x.shape[axis]
        if new != old:
            weights = averaging(old, new) if shrinks else linear(old, new)
            x = np.moveaxis(np.tensordot(weights, x, (1, axis)), 0, axis)
    return x.astype(np.float32)


def averaging(old: int, new: int) -> np.ndarray:
    """(new, old): each new voxel is the mean of those that it covers, in whole or in part."""
    weights = np.zeros((new, old))
    for place in range(new):
        first, last = place * old // new, -(-(place + 1) * old // new)
        weights[place, first:last] = 1 / (last - first)
    return weights


def linear(old: int, new: int, corners: bool = False) -> np.ndarray:
    """(new, old): each new voxel from its two neighbours. Args: corners: the centres at the edges fall together."""
    if corners:
        at = np.arange(new) * (old - 1) / max(new - 1, 1)
    else:
        at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    low = np.floor(at).astype(int)
    weights = np.zeros((new, old))
    weights[np.arange(new), low] = 1 - (at - low)
    weights[np.arange(new), np.minimum(low + 1, old - 1)] += at - low
    return weights


def fitted(x: np.ndarray, size) -> np.ndarray:
    """(C, *space) to (C, *size), cropped or padded with the least value, evenly."""
    least = x.min()
    for axis, new in enumerate(size, start=1):
        old = x.shape[axis]
        if new < old:
            start = max(old // 2 - new // 2, 0)
            x = np.take(x, range(start, start + new), axis)
        else:
            before = (new - old) // 2
            edges = [(before, new - old - before) if k == axis else (0, 0) for k in range(x.ndim)]
            x = np.pad(x, edges, constant_values=least)
    return x


def normalised(x: np.ndarray, s: dict) -> np.ndarray:
    """Intensities to -1 .. 1 over a fixed window or the image's percentiles, or to mean 0 and deviation 1.

    Each channel of a volume by itself, the colours of a picture together.
    """
    if x.ndim == 4 and len(x) > 1:
        return np.concatenate([normalised(channel[None], s) for channel in x])
    if s["intensity"] == "window":
        low, high = s["window"]
        return np.clip((x - low) / (high - low) * 2 - 1, -1, 1).astype(np.float32)
    x = np.clip(x, np.percentile(x, 0.5), np.percentile(x, 99.5))
    if s["intensity"] == "percentile":
        low, high = float(x.min()), float(x.max())
        return ((x - low) / (high - low) * 2 - 1 if high > low else x - low - 1).astype(np.float32)
    return ((x - x.mean(dtype=np.float64)) / (x.std(dtype=np.float64) or 1)).astype(np.float32)


# ---------------------------------------------------------------------------------------------------- classes
def probabilities(paths: Path | list[Path], s: dict, network) -> np.ndarray:
    """The probability of each label: the mean over the image and its allowed mirror images."""
    x, mm = upright(*read(paths, s["dims"]), s["dims"])
    x = with_channels(x, s["channels"])
    if s["spacing"] is None:
        x = resized(x, s["size"])
    else:
        x = fitted(resized(x, size_at(x.shape[1:], mm, s["spacing"])), s["size"])
    x = normalised(x, s).astype(np.float16).astype(np.float32)
    views = [x, *(np.flip(x, axis + 1) for axis in s["flips"])]
    logits = np.concatenate([network(view[None])[0] for view in views]) / s["temperature"]
    if s["multilabel"]:
        return sigmoid(logits).mean(0)
    return softmax(logits + (np.log(s["priors"]) if s["priors"] else 0), 1).mean(0)


def labels_of(chances: np.ndarray, s: dict) -> str:
    """The label of an image, or its labels with `;` between them."""
    above = chances / np.array(s["cuts"] or [0.5] * len(s["labels"]))
    return ";".join(itertools.compress(s["labels"], above >= 1)) if s["multilabel"] else s["labels"][above.argmax()]


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    powers = np.exp(x - x.max(axis, keepdims=True))
    return powers / powers.sum(axis, keepdims=True)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


# ---------------------------------------------------------------------------------------------------- masks
def chances_of(paths: Path | list[Path], s: dict, network) -> tuple[np.ndarray, np.ndarray | None]:
    """Probabilities (1 + labels, *space) on the upright image's grid, and the image's affine."""
    array, affine = read(paths, s["dims"])
    x, mm = upright(array, affine, s["dims"])
    shape = x.shape[1:]
    size = [max(1, round(n / s.get("coarser", 1))) for n in size_at(shape, mm, s["spacing"])]
    x = normalised(resized(with_channels(x, s["channels"]), size), s)
    axes = [axis + 1 for axis in s["flips"]]
    ways = [way for count in range(len(axes) + 1) for way in itertools.combinations(axes, count)]
    chances: Any = sum(np.flip(marked(np.flip(x, way), s, network), way) for way in ways) / len(ways)
    return resized(chances, shape), affine


def mask_of(chances: np.ndarray, affine: np.ndarray | None, s: dict) -> np.ndarray:
    """The mask in the image's own grid, in the mask values of the dataset."""
    kind = np.uint8 if (sum(s["values"]) if s["multilabel"] else max(s["values"])) < 256 else np.uint16
    if s["multilabel"]:
        answer = np.tensordot(np.array(s["values"]), chances[1:] > 0.5, 1).astype(kind)
    else:
        answer = np.array([0, *s["values"]], kind)[chances.argmax(0)]
    if affine is not None and s["dims"] == 3:
        answer = apply_orientation(answer, ornt_transform(RAS, io_orientation(affine)))
    return np.ascontiguousarray(answer)


def marked(x: np.ndarray, s: dict, network) -> np.ndarray:
    """Probabilities (1 + labels, *space), patch by patch, half overlapping, centres counting most."""
    size, space = s["size"], x.shape[1:]
    before = [max(patch - n, 0) // 2 for patch, n in zip(size, space, strict=True)]
    after = [max(patch - n, 0) - first for patch, n, first in zip(size, space, before, strict=True)]
    x = np.pad(x, [(0, 0), *zip(before, after, strict=True)], constant_values=x.min())
    weight, sums = centred(size), np.zeros(x.shape[1:], np.float32)
    total: Any = None
    for starts in itertools.product(*(starts_of(n, patch) for n, patch in zip(x.shape[1:], size, strict=True))):
        place = tuple(slice(start, start + patch) for start, patch in zip(starts, size, strict=True))
        logits = network(x[(slice(None), *place)][None])[0][0]
        if total is None:
            total = np.zeros((len(logits), *x.shape[1:]), np.float32)
        total[(slice(None), *place)] += logits * weight
        sums[place] += weight
    inside = tuple(slice(first, first + n) for first, n in zip(before, space, strict=True))
    logits = (total / sums)[(slice(None), *inside)]
    if not s["multilabel"]:
        return softmax(logits, 0)
    chances = sigmoid(logits)
    chances[0] = 0
    return chances


def starts_of(whole: int, patch: int) -> list[int]:
    """Where the patches of an axis begin: half a patch apart, the last one at the edge."""
    step = patch if patch == whole else max(1, patch // 2)
    return [min(k * step, whole - patch) for k in range(math.ceil((whole - patch) / step) + 1)]


def centred(size) -> np.ndarray:
    """The weight of each voxel of a patch: a Gaussian of an eighth of its size, as in MONAI."""
    weight = np.ones(())
    for patch in size:
        at = np.arange(patch) - (patch - 1) / 2
        weight = weight[..., None] * np.exp(-(at**2) / (2 * (0.125 * patch) ** 2))
    return np.maximum(weight, max(weight.min(), 1e-3)).astype(np.float32)


# ---------------------------------------------------------------------------------------------------- anomalies
def scores_of(path: Path, s: dict, network) -> tuple[float, np.ndarray]:
    """How abnormal an image is, and each of its pixels; 0.5 is the threshold."""
    x, _ = upright(read(path, 2)[0], None, 2)
    if s["intensity"] != "unit":
        x = (normalised(x, s) + 1) / 2
    elif x.min() >= 0 and x.max() <= 255:
        x = x / 255
    else:
        raise SystemExit(f"{path}: values from {x.min():g} to {x.max():g} are not those of an 8-bit picture")
    x, shape = with_channels(x, 3), x.shape[1:]
    score, pixels = network(
        weighted(x, [cubic(*sizes) for sizes in zip(shape, s["size"], strict=True)]).clip(0, 1)[None]
    )
    sizes = zip(s["size"], shape, strict=True)
    return float(score[0]), weighted(pixels, [linear(old, new, s["align_corners"]) for old, new in sizes])[0]


def weighted(x: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    """(C, rows, columns), each axis multiplied by weights (new, old)."""
    return np.einsum("ij,lk,cjk->cil", *weights, x)


def cubic(old: int, new: int) -> np.ndarray:
    """(new, old): bicubic weights, as wide as the voxels of the smaller image; as in Pillow and PyTorch."""
    wide = max(old / new, 1.0)
    centre = (np.arange(new)[:, None] + 0.5) * old / new
    x = abs(np.arange(old) + 0.5 - centre) / wide
    near, far = (1.5 * x - 2.5) * x**2 + 1, ((x - 5) * x + 8) * x * -0.5 + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    return weights / weights.sum(1, keepdims=True)


# ---------------------------------------------------------------------------------------------------- answers
def network_of(folder: Path):
    """The network as a function of (images, channels, *size) float32; a list of what it answers."""
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"image": np.ascontiguousarray(x, np.float32)})


def slices_of(folder: Path) -> list[Path]:
    """The files of a folder, slice 2 before slice 10."""
    files = [file for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")]
    return sorted(files, key=lambda file: [int(n) if n.isdigit() else n for n in re.split(r"(\d+)", file.name)])


def main() -> None:
    out, *images = map(Path, sys.argv[1:])
    s, network = json.loads((HERE / "settings.json").read_text()), network_of(HERE)
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for path in images:
        name, image = re.sub(r"\.nii$", "", path.stem), slices_of(path) if path.is_dir() else path
        if "values" in s:
            chances, affine = chances_of(image, s, network)
            mask = mask_of(chances, affine, s)
            if s["dims"] == 2:
                Image.fromarray(mask).save(out / f"{name}.png")
            else:
                volume = nibabel.Nifti1Image(mask, np.eye(4) if affine is None else affine)
                (out / f"{name}.nii.gz").write_bytes(gzip.compress(volume.to_bytes(), 4, mtime=0))
        elif "shots" in s:
            score, pixels = scores_of(path, s, network)
            rows.append([name, s["labels"][score > 0.5], f"{1 - score:.9f}", f"{score:.9f}"])
            Image.fromarray((pixels * 65535).round().astype(np.uint16)).save(out / f"{name}.png")
        else:
            chances = probabilities(image, s, network)
            rows.append([name, labels_of(chances, s), *(f"{p:.6f}" for p in chances)])
    if rows:
        with (out / "predictions.csv").open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([["id", "label", *s["labels"]], *rows])


if __name__ == "__main__":
    main()
