"""What the scripts that mark structures share: masks on the grid of their image, in and out, and made-up ones."""

import gzip
import io
from pathlib import Path

import nibabel
import numpy as np
import torch
from PIL import Image

from harness import Problem, commit
from images import read_image, upright


def read_mask(item: dict, root: Path, s, shape: tuple[int, ...], affine) -> torch.Tensor:
    """The mask of a case, upright (1, *space), in the values of the dataset.

    Args:   shape, affine: of the case's image, upright, and as in its file.
    Raises: Problem: the mask is on another grid; that of another patient, in the control, may be.
    """
    stored, mask_affine = read_image(item["label"], root, s.dims)
    y, _ = upright(stored if stored.ndim == s.dims else stored[..., 0], mask_affine, s.dims)
    if not s.shuffled and not same_grid(y, mask_affine, shape, affine):
        raise Problem(f"{item['label']}: not on the grid of {item['image']}: shapes {tuple(y.shape[1:])} and {shape}")
    return y


def same_grid(y: torch.Tensor, mask_affine, shape: tuple[int, ...], affine) -> bool:
    near = mask_affine is None or affine is None or np.allclose(mask_affine, affine, atol=1e-2)
    return tuple(y.shape[1:]) == shape and near


def exchanged(items: list[dict], seed: int) -> list[dict]:
    """The control: every patient gets the mask of the next one in a random order."""
    masks = {item["patient"]: item["label"] for item in items}
    order = [list(masks)[i] for i in np.random.default_rng(seed).permutation(len(masks))]
    other = dict(zip(order, order[1:] + order[:1], strict=True))
    return [{**item, "label": masks[other[item["patient"]]]} for item in items]


def write_mask(mask: np.ndarray, affine: np.ndarray | None, folder: Path, name: str) -> None:
    """Write `<name>.png`, or `<name>.nii.gz` of a volume. Args: mask: as stored, in the values of the dataset."""
    if mask.ndim == 2:
        buffer = io.BytesIO()
        Image.fromarray(mask).save(buffer, format="PNG")
        commit(folder / f"{name}.png", buffer.getvalue())
    else:
        volume = nibabel.Nifti1Image(np.ascontiguousarray(mask), np.eye(4) if affine is None else affine)
        commit(folder / f"{name}.nii.gz", gzip.compress(volume.to_bytes(), 4, mtime=0))


def made_up(folder: Path) -> dict:
    """Write 9 noisy volumes that hold a ball and a cube in turned axes; returns their index."""
    random, items = np.random.default_rng(0), []
    for i in range(9):
        x, y, z = np.mgrid[:32, :28, :24] - random.uniform(9, 14, 3)[:, None, None, None]
        mask = np.zeros(x.shape, np.uint8)
        mask[np.maximum(abs(x - 9), np.maximum(abs(y - 5), abs(z))) < 4] = 2
        mask[x**2 + y**2 + z**2 < random.uniform(4, 6) ** 2] = 1
        affine = np.diag([[1.0, 1, 1, 1], [-1, -1, 1, 1]][i % 2])
        image = np.array([0, 100, -100])[mask] + random.normal(0, 50, mask.shape)
        nibabel.save(nibabel.Nifti1Image(image.astype(np.int16), affine), folder / f"image{i}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(mask, affine), folder / f"mask{i}.nii.gz")
        items.append({"id": f"case{i}", "patient": f"p{i}", "image": f"image{i}.nii.gz", "label": f"mask{i}.nii.gz"})
    index = {"training": items[:5], "validation": items[5:7], "test": [{**item, "label": None} for item in items[7:]]}
    return {"labels": ["ball", "cube"], "values": [1, 2], **index}
