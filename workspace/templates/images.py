"""Images of any format as tensors: read, turned upright, resampled, normalised, augmented. Part of every script."""

from pathlib import Path
from typing import cast

import nibabel
import numpy as np
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.transforms import (
    AdjustContrast,
    ClipIntensityPercentiles,
    GaussianSmooth,
    NormalizeIntensity,
    Orientation,
    Resize,
    ResizeWithPadOrCrop,
    ScaleIntensityFixedMean,
    ScaleIntensityRange,
)
from monai.utils import convert_to_tensor

from harness import Problem, log
from sources import read


def read_image(paths, root: Path, dims: int) -> tuple[np.ndarray, np.ndarray | None]:
    """The array, (*space) or (*space, channels) float32 without NaN, and its affine if the format has one.

    Args: paths: one file or the slices of one volume, relative to `root`.
    Raises: Problem: unreadable, or not an image of `dims` dimensions.
    """
    files = [paths] if isinstance(paths, str) else list(paths)
    name = files[0]
    try:
        array, affine = read(root / name if len(files) == 1 else [root / file for file in files])
    except (OSError, ValueError) as error:
        why = str(error).removeprefix(Path(name).name + ": ")
        raise Problem(f"{name}: cannot be read: {why}; mend or remove the file") from None
    if array.ndim not in (dims, dims + 1) or 0 in array.shape:
        raise Problem(f"{name}: expected a {dims}D image, found an array of shape {array.shape}")
    array = array.astype(np.float32)
    finite = np.isfinite(array)
    if not finite.any():
        raise Problem(f"{name}: holds no finite voxel")
    if not finite.all():
        log(f"{name}: {(~finite).sum()} voxels are not finite, set to the image's minimum")
        array[~finite] = array[finite].min()
    return array, affine


def upright(array: np.ndarray, affine: np.ndarray | None, dims: int) -> tuple[torch.Tensor, list[float] | None]:
    """Channels first, a volume's axes to right, anterior, superior if its affine tells them; and the voxel size in mm.

    Args:    array: (*space) or (*space, channels).
    Returns: (channels, *space), and None where there is no affine.
    """
    x = torch.from_numpy(np.ascontiguousarray(array[None] if array.ndim == dims else np.moveaxis(array, -1, 0)))
    if affine is None:
        return x, None
    image = MetaTensor(x, affine=torch.as_tensor(affine))
    if dims == 3:
        image = cast(MetaTensor, Orientation("RAS", labels=None)(image))
    return image.as_tensor().contiguous(), [float(mm) for mm in image.pixdim[:dims]]


def as_stored(mask: np.ndarray, affine: np.ndarray | None) -> np.ndarray:
    """Undo `upright` for a mask: (x, y, z) in R, A, S back to the axes that the affine describes."""
    if affine is None or mask.ndim == 2:
        return mask
    back = Orientation("".join(nibabel.aff2axcodes(affine)), labels=None)
    return back(MetaTensor(torch.from_numpy(mask[None]), affine=torch.eye(4)))[0].numpy()


def with_channels(x: torch.Tensor, channels: int, name: str) -> torch.Tensor:
    """Grey to colours by repeating, colours to grey by their mean, transparency left out.

    Raises: Problem: other channels than the model reads.
    """
    if len(x) == channels:
        return x
    if len(x) not in (1, 3, 4) or channels not in (1, 3):
        raise Problem(f"{name}: has {len(x)} channels, the model reads {channels}")
    return x[:3].mean(0, keepdim=True).expand(channels, *x.shape[1:])


def size_at(shape, mm: list[float] | None, spacing, name: str) -> list[int]:
    """Voxels an axis after resampling from `mm` to `spacing`; as they are where spacing is None."""
    if spacing is None:
        return list(shape)
    if mm is None:
        raise Problem(f"{name}: the file does not say its voxel size, so spacing {list(spacing)} cannot be applied")
    return [max(1, round(n * old / new)) for n, old, new in zip(shape, mm, spacing, strict=True)]


def resized(x: torch.Tensor, size, mode: str = "linear") -> torch.Tensor:
    """(C, *space) to (C, *size), corner to corner of the field of view: means where every axis shrinks, else linear."""
    if list(x.shape[1:]) == list(size):
        return x
    if mode == "linear":
        shrinks = all(new <= old for new, old in zip(size, x.shape[1:], strict=True))
        mode = "area" if shrinks else {2: "bilinear", 3: "trilinear"}[x.ndim - 1]
    return convert_to_tensor(Resize(tuple(size), mode=mode)(x), track_meta=False)


def fitted(x: torch.Tensor, size, value: float | None = None) -> torch.Tensor:
    """(C, *space) to (C, *size), cropped or padded evenly. Args: value: to pad with; None: the least of the image."""
    value = float(x.min()) if value is None else value
    return convert_to_tensor(ResizeWithPadOrCrop(tuple(size), value=value)(x), track_meta=False)


def normalised(x: torch.Tensor, s) -> torch.Tensor:
    """Intensities to -1 .. 1 over a fixed window or the image's percentiles, or to mean 0 and deviation 1.

    Each channel of a volume by itself, as its sequences have scales of their own; the colours of a picture together.
    """
    if x.ndim == 4 and len(x) > 1:
        return torch.cat([normalised(channel[None], s) for channel in x])
    if s.intensity == "window":
        low, high = s.window
        scaled = ScaleIntensityRange(low, high, -1, 1, clip=True)(x)
    else:
        clipped = ClipIntensityPercentiles(0.5, 99.5)(x)
        least, most = float(clipped.min()), float(clipped.max())
        to_scale = ScaleIntensityRange(least, most, -1, 1) if s.intensity == "percentile" else NormalizeIntensity()
        scaled = to_scale(clipped)
    return convert_to_tensor(scaled, track_meta=False)


def augmented(x: torch.Tensor, s, mask: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Mirror the images of a batch, turn, scale and shift half of them, brighten and roughen all, each in its own way.

    On whole batches, where MONAI's random transforms take one image at a time.
    Args: x: (B, C, *space).  mask: (B, 1, *space), follows the same geometry.  Strength is s.augment, 0 to 1.
    """
    count, dims, a, device = len(x), s.dims, s.augment, x.device
    one = (count, *[1] * (dims + 1))
    both = x if mask is None else torch.cat([x, mask], 1)
    for axis in s.flips:
        both = torch.where(torch.rand(one, device=device) < 0.5, both.flip(axis + 2), both)
    x, mask = both[:, : x.shape[1]].clone(), None if mask is None else both[:, x.shape[1] :].clone()
    half = torch.randperm(count, device=device)[: (count + 1) // 2]  # interpolation is slow, and softens
    theta = torch.eye(dims, device=device) + 0.12 * a * torch.randn(len(half), dims, dims, device=device)
    shift = 0.1 * a * torch.randn(len(half), dims, 1, device=device)
    grid = F.affine_grid(torch.cat([theta, shift], 2), [len(half), 1, *x.shape[2:]], align_corners=False)
    x[half] = F.grid_sample(x[half], grid, padding_mode="border", align_corners=False)
    if mask is not None:
        mask[half] = F.grid_sample(mask[half], grid, mode="nearest", padding_mode="border", align_corners=False)
    x = x * (1 + 0.2 * a * torch.randn(one, device=device)) + 0.2 * a * torch.randn(one, device=device)
    return x + 0.1 * a * torch.rand(one, device=device) * torch.randn_like(x), mask


def weathered(x: torch.Tensor, augment: float) -> torch.Tensor:
    """Blur, fade, coarsen and darken a few images of a batch, in place: the rest of nnU-Net's augmentation.

    None of it up to an `augment` of .5, as it costs short trainings on coarse voxels; at 1 as many as nnU-Net's.
    Isensee et al. 2021, doi:10.1038/s41592-020-01008-z. Args: x: (B, C, *space).
    """
    strength = 2 * augment - 1
    ways = (
        (0.2, lambda image: GaussianSmooth(_between(0.5, 1))(image)),
        (0.15, lambda image: ScaleIntensityFixedMean(_between(-0.25, 0.25))(image)),
        (0.25, lambda image: _coarse(image, _between(0.5, 1))),
        (0.3, lambda image: AdjustContrast(_between(0.7, 1.5), retain_stats=True)(image)),
    )
    for chance, way in ways:
        for place in torch.nonzero(torch.rand(len(x)) < chance * strength).flatten().tolist():
            x[place] = convert_to_tensor(way(x[place]), track_meta=False)
    return x


def _between(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _coarse(image: torch.Tensor, zoom: float) -> torch.Tensor:
    """(C, *space) as a scanner with larger voxels sees it."""
    return resized(resized(image, [max(1, round(n * zoom)) for n in image.shape[1:]]), image.shape[1:])


class Room:
    """Memory for prepared images: once `gigabytes` are used up, further arrays are mapped from files in `folder`."""

    def __init__(self, gigabytes: float, folder: Path):
        self.left, self.folder = gigabytes * 1e9, folder

    def keep(self, array: np.ndarray, name: str) -> np.ndarray:
        self.left -= array.nbytes
        if self.left >= 0:
            return array
        self.folder.mkdir(parents=True, exist_ok=True)
        np.save(self.folder / f"{name}.npy", array)
        return np.load(self.folder / f"{name}.npy", mmap_mode="r")


def on_device(arrays: list[np.ndarray], device) -> torch.Tensor:
    """A float32 batch, channels last in memory."""
    memory = torch.channels_last if arrays[0].ndim == 3 else torch.channels_last_3d
    return torch.from_numpy(np.stack(arrays)).to(device, torch.float32).contiguous(memory_format=memory)
