"""Maps of anomaly scores: laid over their images, and the scores of the images as curves."""

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path

import numpy as np

from m3dspy.workspace.reporting.figures import (
    BLUE,
    GREY,
    INK,
    MARKS,
    PURPLE,
    VERMILION,
    WIDTH,
    Tile,
    canvas,
    short,
    write_on,
)

THRESHOLD = 0.5
TRUTH, CONTOUR = "#56B4E9", "#00C48F"
OPAQUE = 0.75  # of the hottest pixels
LINES = ((BLUE, "-"), (VERMILION, "--"), (PURPLE, ":"))


def sheet(tiles: Sequence[Tile], path: Path) -> None:
    """Cases three in a row: the image, and below it the image with its map and outlines.

    All maps share one scale, from their median, where they are transparent, to their hottest pixels.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    maps = [tile.heat.ravel() for tile in tiles if tile.heat is not None]
    low, high = np.percentile(np.concatenate(maps), (50, 99.8)) if maps else (0, 1)
    scale = Normalize(low, max(high, low + 1e-4), clip=True)
    rows = ceil(len(tiles) / 3)
    tallest = min(max(tile.picture.shape[0] / tile.picture.shape[1] * tile.aspect for tile in tiles), 1.5)
    with canvas(path, rows * (2 * tallest * WIDTH / 3 + 0.5) + (0.6 if maps else 0)) as figure:
        grid = figure.subplots(2 * rows, 3, squeeze=False)
        for axes in grid.ravel():
            axes.set_axis_off()
        for number, tile in enumerate(tiles):
            row, column = divmod(number, 3)
            above, below = grid[2 * row : 2 * row + 2, column]
            mark, colour = MARKS[tile.good]
            above.set_title(f"{short(tile.title, 34)}\n{mark}{short(tile.caption, 38)}", color=colour, fontsize=9)
            for axes in (above, below):
                axes.imshow(tile.picture, cmap="gray", vmin=0, vmax=1, aspect=tile.aspect, interpolation="nearest")
                if tile.left:
                    write_on(axes, 0.03, 0.5, tile.left, transform=axes.transAxes)
            if tile.heat is not None:
                coloured = colormaps["inferno"](scale(tile.heat))
                coloured[..., 3] = OPAQUE * scale(tile.heat)
                below.imshow(coloured, aspect=tile.aspect, interpolation="nearest")
                _contour(below, tile.heat, THRESHOLD, CONTOUR, "dashed")
            if tile.truth is not None:
                _contour(below, tile.truth.astype(float), 0.5, TRUTH, "solid")
        if maps:
            bar = figure.colorbar(ScalarMappable(scale, "inferno"), ax=grid, location="bottom", aspect=60, pad=0.02)
            bar.set_label("pixel score (0.5: the threshold)")
            if low < THRESHOLD < high:
                bar.ax.axvline(THRESHOLD, color=CONTOUR, linestyle="dashed", linewidth=1.3)


def legend(tiles: Sequence[Tile]) -> str:
    """What the sheet shows, in words."""
    said = "Above: the image, its true class → the model's answer and the image's score."
    if not any(tile.heat is not None for tile in tiles):
        return said + " There are no maps to show."
    said += " Below: the map of scores, transparent where it is low; green, dashed: above the pixel threshold."
    return said + (" Blue, solid: what the expert marked." if any(tile.truth is not None for tile in tiles) else "")


def curves(truth: np.ndarray, answers: Mapping[str, np.ndarray], path: Path) -> None:
    """ROC curves of all answers, and how the first one's scores are spread over normal and abnormal images.

    Args: truth: (cases,) bool.  answers: name -> (cases,) in [0, 1]; each is labelled abnormal above THRESHOLD.
    """
    with canvas(path, 3.6) as figure:
        left, right = figure.subplots(1, 2)
        left.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (1, 2)), label="chance")
        for number, (name, scores) in enumerate(answers.items()):
            colour, style = LINES[number % len(LINES)]
            left.plot(*roc(truth, scores), color=colour, linestyle=style, label=name)
            if number == 0:
                said = scores > THRESHOLD
                point = (said[~truth].mean(), said[truth].mean())
                left.plot(*point, "o", color=INK, markersize=7, fillstyle="none", label="at the threshold")
        left.set(title="ROC curve", xlabel="normal images called abnormal", ylabel="abnormal images found", aspect=1)
        left.legend(loc="lower right")
        scores = next(iter(answers.values()))
        edges = np.linspace(0, 1, 21)
        for holds, name, colour in ((~truth, "normal", BLUE), (truth, "abnormal", VERMILION)):
            label = f"{name} ({holds.sum()})"
            right.hist(scores[holds], edges, color=colour, alpha=0.35)
            right.hist(scores[holds], edges, color=colour, histtype="step", linewidth=1.8, label=label)
        right.axvline(THRESHOLD, color=INK, linestyle="--", linewidth=1.2, label="threshold")
        right.set(title="Scores of the test images", xlabel="score", ylabel="images")
        right.set_ylim(top=1.35 * right.get_ylim()[1])  # room for the legend
        right.legend(loc="upper right")


def roc(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False- and true-positive rate at every threshold, from (0, 0) to (1, 1).

    >>> [rate.tolist() for rate in roc(np.array([True, False]), np.array([0.9, 0.2]))]
    [[0.0, 0.0, 1.0], [0.0, 1.0, 1.0]]
    """
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.r_[np.diff(scores[order]) < 0, True]
    rates = [np.cumsum(side[order])[last_of_tie] / side.sum() for side in (~truth, truth)]
    return np.r_[0.0, rates[0]], np.r_[0.0, rates[1]]


def _contour(axes, values: np.ndarray, level: float, colour: str, style: str) -> None:
    if values.min() < level < values.max():
        axes.contour(values, levels=[level], colors=[colour], linestyles=style, linewidths=1.3)
