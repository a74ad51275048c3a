"""The trivial answer of an anomaly detection: how far an image looks from normal ones, to filters that learnt nothing.

Small grey pictures through fixed random filters; the score of an image is the distance of its oddest patch to the
nearest patch of a few normal training images, as many as the benchmark's requests let a model learn from. A model that
does no better found nothing beyond what is odd at first sight.
The idea of a bank of normal patches: Roth et al. 2022, arXiv:2106.08265; of random filters: Jarrett et al. 2009,
doi:10.1109/ICCV.2009.5459469.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m3dspy.errors import DataError
from m3dspy.signatures.values import NORMAL, Index, Item
from m3dspy.workspace import sources

SIDE, PATCH = 64, 8  # pixels of the small picture, and of a patch
FILTERS, WIDTH = 32, 7
NORMALS, DRAWS = 4, 5  # training images in a bank; how many banks: with so few, luck counts


def oddness(index: Index, root: Path) -> NDArray[np.float64]:
    """(DRAWS, cases) scores of the test cases by each bank, in no particular unit.

    Raises: DataError: there is no normal training image, or an image cannot be read.
    """
    normals = [item for item in index.training if item.label == NORMAL]
    if not normals:
        raise DataError("The index has no normal training case, so there is nothing to tell an odd image by.")
    order = np.random.default_rng(0)
    draws = [order.permutation(len(normals))[:NORMALS] for _ in range(DRAWS)]
    known = {place: small_picture(normals[place], root) for draw in draws for place in draw}
    tested = [small_picture(item, root) for item in index.test]
    return np.array([_distances([known[place] for place in draw], tested) for draw in draws])


def _distances(normals: Sequence[NDArray], pictures: Sequence[NDArray]) -> list[float]:
    mean, deviation = np.mean(normals), max(float(np.std(normals)), 1e-6)
    bank = np.concatenate([_patches((picture - mean) / deviation) for picture in normals])
    lengths = (bank**2).sum(1)
    scores = []
    for picture in pictures:
        patches = _patches((picture - mean) / deviation)
        nearest = (lengths - 2 * patches @ bank.T).min(1) + (patches**2).sum(1)
        scores.append(float(nearest.max()))
    return scores


def small_picture(item: Item, root: Path) -> NDArray[np.float32]:
    """A case in grey on SIDE x SIDE pixels, each the mean of what it covers. Raises: DataError: it cannot be read."""
    try:
        voxels, _ = sources.read(root / (item.image if isinstance(item.image, str) else item.image[0]))
    except ValueError as error:
        raise DataError(f"The image of case {item.id} cannot be read: {error}.") from None
    grey = np.nan_to_num(voxels.reshape(*voxels.shape[:2], -1).mean(-1), posinf=0, neginf=0)
    return (_covered(grey.shape[0]) @ grey @ _covered(grey.shape[1]).T).astype(np.float32)


def _covered(length: int) -> NDArray[np.float64]:
    """(SIDE, length): the share that each pixel of a line has in each pixel of the small line."""
    edges, pixels = np.arange(SIDE + 1) * length / SIDE, np.arange(length)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return overlap.clip(0) * SIDE / length


def _patches(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """(patches, FILTERS): mean response of every filter in every patch, where it is positive."""
    filters = np.random.default_rng(0).normal(size=(WIDTH * WIDTH, FILTERS)).astype(np.float32) / WIDTH
    views = np.lib.stride_tricks.sliding_window_view(np.pad(picture, WIDTH // 2, mode="reflect"), (WIDTH, WIDTH))
    response = np.maximum(views.reshape(SIDE, SIDE, -1) @ filters, 0)
    side = SIDE // PATCH
    return response.reshape(side, PATCH, side, PATCH, FILTERS).mean((1, 3)).reshape(side * side, FILTERS)
