"""Cases as pictures that a page carries in itself: every slice small, marks as layers of their own, sizes bounded."""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from m3dspy.workspace.reporting.blocks import Layer, View

VOLUME_SIDE, PICTURE_SIDE, OUTLINED_SIDE = 176, 384, 320  # pixels of the longer side
MOST_SLICES = 24
THICK = 2  # pixels of an outline
FILLED, OPAQUE, HOTTEST = 105, 255, 190  # alpha, of 255
THRESHOLD = 0.5  # of a map of anomaly scores
COLOURS = (
    "#F0E442", "#56B4E9", "#FF8A4C", "#E58BC0", "#00D19A", "#C3A6FF", "#FFC857", "#7FDBFF", "#B8E986", "#FF9AA2",
)  # fmt: skip
TRUTH, CONTOUR = COLOURS[1], COLOURS[4]
INFERNO = ("#000004", "#280b54", "#65156e", "#9f2a63", "#d44842", "#f57d15", "#fac127", "#fcffa4")  # matplotlib's
LEVELS = 48  # of a map
ATTEMPTS = ((1.0, 70), (1.0, 40), (0.7, 40), (0.5, 30), (0.35, 20), (0.2, 20))  # (share of the side, quality)


@dataclass(frozen=True)
class Stack:
    """A case laid out as on a light box: `voxels[:, :, k]` is the k-th picture, rows downwards, columns to the right.

    voxels: (rows, columns, slices) or (rows, columns, slices, channels).   aspect: height of a pixel over its width.
    left:   what lies to the left: "R" (the patient's right, radiological convention), "A", or "" where unknown.
    plane:  "axial", "coronal", "sagittal", or "" where unknown.
    """

    voxels: np.ndarray
    aspect: float = 1.0
    left: str = ""
    plane: str = ""


@dataclass(frozen=True)
class Case:
    """A test case with its truth and the model's answer.

    place: the slice to begin with.   good: the answer is right, wrong, or None where that is not a yes or no.
    window: the range of values shown; None: of each slice's own.
    truth, answer: (rows, columns, slices) values of the masks.   heat: the same in [0, 1].
    """

    title: str
    caption: str
    image: Stack
    place: int
    window: tuple[float, float] | None
    good: bool | None = None
    truth: np.ndarray | None = None
    answer: np.ndarray | None = None
    heat: np.ndarray | None = None


def picture(plane: np.ndarray, window: tuple[float, float] | None) -> np.ndarray:
    """One slice in [0, 1]: colours as they are, greys over `window` or else the 0.5th to 99.5th percentile.

    Args: plane: (H, W) or (H, W, channels); three channels of 8 bits are colours, of others the first is shown.
    """
    if plane.ndim == 3 and plane.shape[2] == 3 and plane.dtype == np.uint8:
        return plane / 255
    grey = (plane[..., 0] if plane.ndim == 3 else plane).astype(np.float32)
    grey = np.nan_to_num(grey, nan=0, posinf=0, neginf=0)
    low, high = window or np.percentile(grey, (0.5, 99.5))
    return np.clip((grey - low) / max(high - low, 1e-6), 0, 1)


def heat_scale(cases: Sequence[Case]) -> tuple[float, float]:
    """The scores at which maps are transparent and hottest: their median and their 99.8th percentile, of all maps."""
    maps = [case.heat.ravel() for case in cases if case.heat is not None]
    low, high = np.percentile(np.concatenate(maps), (50, 99.8)) if maps else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-4))


def view(
    case: Case, most: int, values: Sequence[int] = (), overlapping: bool = False, scale: tuple[float, float] = (0, 1)
) -> View:
    """A case as a page shows it.

    Args: most: characters that its pictures may take.  values: of the structures in its masks; bits where they are
        `overlapping`.  scale: of the maps.
    """
    stack = case.image
    count = stack.voxels.shape[2]
    shown = np.linspace(0, count - 1, min(count, MOST_SLICES)).round().astype(int)
    shown[np.abs(shown - case.place).argmin()] = case.place
    rows, columns = stack.voxels.shape[0] * stack.aspect, stack.voxels.shape[1]
    longest = VOLUME_SIDE if count > 1 else PICTURE_SIDE
    layers: list[Layer] = []
    width = height = 1
    for share, quality in ATTEMPTS:
        zoom = longest * share / max(rows, columns)
        width, height = max(1, round(columns * zoom)), max(1, round(rows * zoom))
        frames = np.concatenate([_frame(stack.voxels[:, :, place], case.window, width, height) for place in shown])
        layers = [Layer("", "the image", _encoded(Image.fromarray(frames), "webp", quality=quality, method=2))]
        layers += _marks(case, shown, width, height, values, overlapping, scale)
        if sum(len(layer.picture) for layer in layers) <= most:
            break
    start = int(np.abs(shown - case.place).argmin())
    return View(
        case.title, case.caption, case.good, width, height, [int(place) + 1 for place in shown], start, count,
        stack.plane, stack.left, layers,
    )  # fmt: skip


def _frame(plane: np.ndarray, window: tuple[float, float] | None, width: int, height: int) -> np.ndarray:
    shown = Image.fromarray((picture(plane, window) * 255).round().astype(np.uint8))
    how = Image.Resampling.BOX if shown.width > width else Image.Resampling.BILINEAR
    return np.asarray(shown.resize((width, height), how))


def _encoded(image: Image.Image, form: str, **how: object) -> str:
    """A picture as a data URI."""
    packed = BytesIO()
    image.save(packed, form, **how)
    return f"data:image/{form};base64,{b64encode(packed.getvalue()).decode()}"


def _marks(
    case: Case,
    shown: np.ndarray,
    width: int,
    height: int,
    values: Sequence[int],
    overlapping: bool,
    scale: tuple[float, float],
) -> Iterator[Layer]:
    zoom = max(1, round(OUTLINED_SIDE / max(width, height)))
    size = (height * zoom, width * zoom)
    if case.heat is not None:
        heat = _sampled(case.heat, shown, size)
        low, high = scale
        levels = (np.clip((heat - low) / (high - low), 0, 1) * (LEVELS - 1)).astype(np.uint8)
        levels[_outlines(heat > THRESHOLD)] = LEVELS
        ramp = [(*colour, round(HOTTEST * place / (LEVELS - 1))) for place, colour in enumerate(_inferno())]
        yield Layer("map", "the map of scores", _palette(levels, [*ramp, (*_rgb(CONTOUR), OPAQUE)]))
    colours = [_rgb(COLOURS[number % len(COLOURS)]) for number in range(len(values))] or [_rgb(TRUTH)]
    for name, about, mask in (("answer", "the model", case.answer), ("truth", "the expert", case.truth)):
        if mask is None:
            continue
        given = _sampled(mask, shown, size)
        drawn = np.zeros(given.shape, np.uint8)
        for number, value in enumerate(values or (1,)):
            inside = (given & given.dtype.type(value)) != 0 if overlapping else given == value
            drawn[_outlines(inside) if name == "truth" else inside] = number + 1
        alpha = OPAQUE if name == "truth" else FILLED
        yield Layer(name, about, _palette(drawn, [(0, 0, 0, 0), *((*colour, alpha) for colour in colours)]))


def _sampled(voxels: np.ndarray, shown: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(slices, height, width) of a mask or map, each pixel that of the nearest voxel."""
    rows, columns = (((np.arange(n) + 0.5) * of / n).astype(int) for n, of in zip(size, voxels.shape[:2], strict=True))
    return np.moveaxis(voxels[np.ix_(rows, columns, shown)], 2, 0)


def _outlines(inside: np.ndarray) -> np.ndarray:
    """The rim of what is inside, slice by slice; the edge of the picture is none."""
    core = inside
    for _ in range(THICK):
        wide = np.pad(core, ((0, 0), (1, 1), (1, 1)), mode="edge")
        core = core & wide[:, :-2, 1:-1] & wide[:, 2:, 1:-1] & wide[:, 1:-1, :-2] & wide[:, 1:-1, 2:]
    return inside & ~core


def _palette(numbers: np.ndarray, colours: Sequence[tuple[int, int, int, int]]) -> str:
    image = Image.fromarray(numbers.reshape(-1, numbers.shape[2]), "P")
    image.putpalette([part for colour in colours for part in colour[:3]])
    return _encoded(image, "png", transparency=bytes(colour[3] for colour in colours))


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _inferno() -> list[tuple[int, int, int]]:
    known = np.array([_rgb(colour) for colour in INFERNO])
    places = np.linspace(0, len(known) - 1, LEVELS)
    mixed = [np.interp(places, range(len(known)), known[:, part]).round().astype(int) for part in range(3)]
    return [(int(r), int(g), int(b)) for r, g, b in zip(*mixed, strict=True)]
