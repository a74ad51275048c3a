"""The figures of a report: PNGs readable at 100 %, in colours that colour-blind readers tell apart (Okabe & Ito)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from m3dspy.signatures.values import Grade, Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GREY = "#222222", "#8A8A8A"
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ON_DARK = ("#F0E442", "#56B4E9", "#E69F00", "#CC79A7", "#00C48F", "#FF7A33")
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.parse_math": False,  # a class may be called "a$b"
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}
WIDTH = 8.0  # inches, at 100 dots an inch
MOST_BYTES = 300_000


def _whole_numbers(axes: "Axes") -> None:
    """Ticks of the x axis at whole numbers only."""
    from matplotlib.ticker import AutoLocator

    locator = AutoLocator()
    locator.set_params(integer=True)
    axes.xaxis.set_major_locator(locator)


@contextmanager
def canvas(path: Path, height: float) -> "Iterator[Figure]":
    """A figure in the common style, saved when the block ends. No pyplot: no global state, no display."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):  # pyright: ignore[reportArgumentType]
        figure = Figure(figsize=(WIDTH, height))
        figure.set_layout_engine("constrained", h_pad=0.1)  # inches; less cuts off a title of two lines
        yield figure
        drawn = BytesIO()
        figure.savefig(drawn, dpi=100)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_small(drawn))


def _small(drawn: BytesIO) -> bytes:
    """The same PNG in below MOST_BYTES: with a palette, of fewer colours the noisier the pictures are."""
    from PIL import Image

    data = drawn.getvalue()
    with Image.open(drawn) as image:
        for colours in (256, 128, 64, 32):
            if len(data) < MOST_BYTES:
                break
            packed = BytesIO()
            image.convert("RGB").quantize(colours, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
                packed, "png", optimize=True
            )
            data = packed.getvalue()
    return data


def short(text: str, most: int = 24) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def learning_curve(epochs: Sequence[Mapping[str, float]], path: Path) -> None:
    """Training loss and validation score by epoch, the best epoch marked. Each epoch has `epoch`, `loss`, `score`."""
    with canvas(path, 2.9) as figure:
        for axes, key, colour, title in zip(
            figure.subplots(1, 2),
            ("loss", "score"),
            (VERMILION, BLUE),
            ("Training loss", "Score on the validation cases"),
            strict=True,
        ):
            points = [(epoch["epoch"], epoch[key]) for epoch in epochs]
            axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=3)
            axes.set(title=title, xlabel="epoch")
            _whole_numbers(axes)
            if key == "score":
                best = max(points, key=lambda point: point[1])
                axes.plot(*best, "o", color=INK, markersize=8, fillstyle="none")
                axes.annotate(
                    f"best: {best[1]:.3f}, epoch {best[0]:g}",
                    best,
                    xytext=(0.98, 0.05),
                    textcoords="axes fraction",
                    ha="right",
                    arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.8},
                )


def trials(tried: Sequence[Trial], path: Path) -> None:
    """Validation score by trial, the best so far as a line, pruned and failed trials marked by shape and colour."""
    marks = {"complete": ("o", BLUE, BLUE), "pruned": ("v", "white", VERMILION), "failed": ("X", PURPLE, PURPLE)}
    with canvas(path, 3.1) as figure:
        axes = figure.subplots()
        for state, (marker, face, edge) in marks.items():
            chosen = [trial for trial in tried if trial.state == state]
            scored = {trial.number: trial.score for trial in chosen if trial.score is not None}
            unscored = [trial.number for trial in chosen if trial.score is None]
            look = {
                "marker": marker,
                "markerfacecolor": face,
                "markeredgecolor": edge,
                "linestyle": "",
                "markersize": 7,
            }
            label = f"{state} ({len(chosen)})" if chosen else None
            axes.plot([*scored], [*scored.values()], label=label, zorder=3, **look)
            axes.plot(unscored, [0.02] * len(unscored), transform=axes.get_xaxis_transform(), clip_on=False, **look)
        done = {t.number: t.score for t in tried if t.state == "complete" and t.score is not None}
        if done:
            best = np.maximum.accumulate([*done.values()])
            axes.step([*done], best, where="post", color=GREY, label="best so far", zorder=1)
        axes.set(title="Score on the validation cases", xlabel="trial")
        _whole_numbers(axes)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def confusion(matrix: Sequence[Sequence[int]], labels: Sequence[str], path: Path) -> None:
    """Test cases by true class (rows) and the model's answer (columns), shaded by the share of the row."""
    counts = np.asarray(matrix, dtype=float)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [short(label, 22) for label in labels]
    with canvas(path, min(1.6 + 0.55 * len(names), WIDTH)) as figure:
        axes = figure.subplots()
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(counts.shape):
            axes.text(
                column,
                row,
                f"{counts[row, column]:.0f}",
                ha="center",
                va="center",
                color="white" if share[row, column] > 0.5 else INK,
            )
        axes.set_xticks(
            range(len(names)), names, rotation=0 if len(names) < 5 else 40, ha="center" if len(names) < 5 else "right"
        )
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="the model's answer", ylabel="true class")
        axes.grid(False)


def structures(grade: Grade, path: Path) -> None:
    """Score of each structure with its interval, against the mean of the trivial answer and of the control."""
    names = list(grade.per_label)
    with canvas(path, 1.5 + 0.32 * len(names)) as figure:
        axes = figure.subplots()
        for row, score in enumerate(grade.per_label.values()):
            axes.plot([score.low, score.high], [row, row], color=BLUE, linewidth=2.5, solid_capstyle="butt")
            axes.plot(
                score.value, row, "o", color=BLUE, markersize=7, label="model, 95 % interval" if row == 0 else None
            )
        axes.axvline(grade.score.value, color=BLUE, linewidth=1.2, label=f"model, mean {grade.score.value:.2f}")
        axes.axvline(
            grade.floor.value, color=VERMILION, linestyle="--", label=f"atlas floor, mean {grade.floor.value:.2f}"
        )
        if grade.control:
            value = grade.control.value
            axes.axvline(value, color=PURPLE, linestyle=":", label=f"shuffled control, mean {value:.2f}")
        axes.set_yticks(range(len(names)), [short(name) for name in names])
        axes.set(xlim=(-0.02, 1.02), ylim=(len(names) - 0.5, -0.5), xlabel="Dice (0: no overlap, 1: perfect)")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


# ------------------------------------------------------------------------------------------------ example cases
MARKS = {True: ("✓ ", GREEN), False: ("✗ ", VERMILION), None: ("", INK)}  # by `good`


@dataclass(frozen=True)
class Tile:
    """One example on the sheet.

    picture: (H, W) or (H, W, 3) in [0, 1].   truth, answer: (H, W) voxel values of the masks, or None.
    good: the answer is right, wrong, or None where that is not a yes or no.   heat: (H, W) in [0, 1], or None.
    """

    picture: np.ndarray
    title: str
    caption: str
    aspect: float = 1.0
    left: str = ""
    truth: np.ndarray | None = None
    answer: np.ndarray | None = None
    good: bool | None = None
    heat: np.ndarray | None = None


def outline(axes: "Axes", mask: np.ndarray, values: Sequence[int], style: str, overlapping: bool = False) -> None:
    for number, value in enumerate(values):
        inside = _shown(mask, value, overlapping)
        if inside.any() and not inside.all():
            axes.contour(
                inside, levels=[0.5], colors=[ON_DARK[number % len(ON_DARK)]], linestyles=style, linewidths=1.3
            )


def write_on(axes: "Axes", x: float, y: float, word: str, **place) -> None:
    """A word that can be read on light and dark."""
    box = {"facecolor": "black", "edgecolor": "none", "pad": 1, "alpha": 0.6}
    axes.text(x, y, word, color="white", ha="center", va="center", fontsize=8, bbox=box, **place)


def _shown(mask: np.ndarray, value: int, overlapping: bool) -> np.ndarray:
    """Where a mask shows a structure: its value, or its bit where structures overlap."""
    return (mask & mask.dtype.type(value)) != 0 if overlapping else mask == value


def _numbers(axes: "Axes", truth: np.ndarray, values: Sequence[int], overlapping: bool) -> None:
    """The number of each structure of the legend, written inside it."""
    for number, value in enumerate(values):
        rows, columns = np.nonzero(_shown(truth, value, overlapping))
        if rows.size:
            middle = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
            write_on(axes, columns[middle], rows[middle], str(number + 1))


def sheet(
    tiles: Sequence[Tile],
    path: Path,
    labels: Sequence[str] = (),
    values: Sequence[int] = (),
    overlapping: bool = False,
) -> None:
    """Example cases, three in a row.

    `labels`, `values`: the structures and their voxel values in the masks, if any; bits where they are `overlapping`.
    """
    from matplotlib.lines import Line2D

    rows = ceil(len(tiles) / 3)
    tallest = max(tile.picture.shape[0] / tile.picture.shape[1] * tile.aspect for tile in tiles)
    legend = 0.25 * ceil((len(labels) + 2) / 4) + 0.15 if labels else 0
    with canvas(path, rows * (min(tallest, 1.5) * WIDTH / 3 + 0.5) + legend) as figure:
        grid = figure.subplots(rows, 3, squeeze=False).ravel()
        for axes in grid:
            axes.set_axis_off()
        for axes, tile in zip(grid, tiles, strict=False):
            mark, colour = MARKS[tile.good]
            axes.imshow(tile.picture, cmap="gray", vmin=0, vmax=1, aspect=tile.aspect, interpolation="nearest")
            axes.set_title(f"{short(tile.title, 34)}\n{mark}{short(tile.caption, 38)}", color=colour, fontsize=9)
            if tile.left:
                write_on(axes, 0.03, 0.5, tile.left, transform=axes.transAxes)
            if tile.truth is not None:
                outline(axes, tile.truth, values, "solid", overlapping)
                _numbers(axes, tile.truth, values, overlapping) if len(values) > 1 else None
            if tile.answer is not None:
                outline(axes, tile.answer, values, "dashed", overlapping)
        if labels:
            lines = [Line2D([], [], color=INK, label="truth"), Line2D([], [], color=INK, linestyle="--", label="model")]
            for number, label in enumerate(labels):
                colour = ON_DARK[number % len(ON_DARK)]
                lines.append(Line2D([], [], color=colour, linewidth=4, label=f"{number + 1} {short(label)}"))
            figure.legend(handles=lines, loc="outside lower left", ncols=4)
