"""Items of an anomaly detection, and what its index must hold beside what is asked of every index."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from posixpath import dirname

from m3dspy.errors import DataError
from m3dspy.signatures.values import ABNORMAL, ANOMALY_LABELS, NORMAL, SPLITS, Index, Item, Split
from m3dspy.workspace import sources
from m3dspy.workspace.indexes.cases import find, fixed_folder, items, left_out, natural, patients, stem
from m3dspy.workspace.indexes.pairing import pairs

THREADS = 8
OPENED_MASKS = 400  # at most so many are read to see whether they mark anything


def from_anomalies(
    root: Path,
    *,
    normal: str | Sequence[str],
    abnormal: str | Sequence[str],
    masks: str | Sequence[str] | None = None,
    patient: str | None = None,
    test: str | Sequence[str] | None = None,
    about: str | None = None,
) -> list[dict]:
    """Items labelled "normal" and "abnormal", with masks of what is abnormal where there are any.

    A file that `masks` matches is no image; it belongs to the abnormal image of its own stem in the same class folder
    (`Ungood/img/6_1.png`, `Ungood/label/6_1.png`), else as in from_pairs; abnormal images without one are left out.
    `patient`: as in from_folders. `test`: the official test cases. `about`: what the images show, where it is not what
    write_index says.

    Example: ix.from_anomalies(root, normal="**/good/**/*.png", abnormal="**/Ungood/**/*.png",
                               masks="**/anomaly_mask/*.png", patient=r"^(\\d+)_", test="test/**/*.png")
    """
    marks = _found(root, masks)
    sides = {NORMAL: _found(root, normal, set(marks)), ABNORMAL: _found(root, abnormal, set(marks))}
    if both := set(sides[NORMAL]).intersection(sides[ABNORMAL]):
        raise DataError(f"`normal` and `abnormal` both match {min(both, key=natural)!r}. Narrow one of them.")
    mask_of = _masks_of(sides[ABNORMAL], marks, _several(abnormal), _several(masks)) if masks else {}
    if masks:
        left_out([repr(image) for image in sides[ABNORMAL] if image not in mask_of], "abnormal images without a mask")
        unused = set(marks).difference(mask_of.values())
        left_out([repr(mask) for mask in marks if mask in unused], "masks without an abnormal image")
    tests = set(_found(root, test))

    label_of, person_of = {}, {}
    for label, found in sides.items():
        kept = {image: base for image, base in found.items() if label == NORMAL or not masks or image in mask_of}
        label_of |= dict.fromkeys(kept, label)
        for base in dict.fromkeys(kept.values()):
            here = [image for image in kept if kept[image] == base]
            person_of |= dict(zip(here, patients(here, base, patient, slices=False), strict=True))
    order = sorted(label_of, key=natural)
    made = items([(i, i) for i in order], [label_of[i] for i in order], [person_of[i] for i in order], slices=False)
    return [
        item
        | ({"mask": mask_of[image]} if image in mask_of else {})
        | ({"about": about} if about else {})
        | ({"split": "test"} if image in tests else {})
        for item in made
        for image in [item["image"]]
    ]


def _several(patterns: str | Sequence[str] | None) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else tuple(patterns or ())


def _found(root: Path, patterns: str | Sequence[str] | None, without: Iterable[str] = ()) -> dict[str, str]:
    """The files that any of the patterns matches -> the fixed folder of the first that does."""
    base_of: dict[str, str] = {}
    for pattern in _several(patterns):
        for path in find(root, pattern):
            if path not in without:
                base_of.setdefault(path, fixed_folder(pattern))
    return base_of


def _masks_of(
    images: Iterable[str], masks: Iterable[str], image_patterns: Iterable[str], mask_patterns: Iterable[str]
) -> dict[str, str]:
    """Image -> its mask: the one of its own stem in its class folder; or as the words of the paths pair them."""
    named: dict[tuple[str, str], list[str]] = defaultdict(list)
    for mask in masks:
        named[dirname(dirname(mask)), stem(mask)].append(mask)
    beside = []
    for image in images:
        folder = dirname(image)
        near = {*named[dirname(folder), stem(image)], *named[folder, stem(image)]}
        beside += [(image, *near)] if len(near) == 1 else []
    by_words = [pairs(images, masks, one, other) for one in image_patterns for other in mask_patterns]
    matched = max((beside, *by_words), key=len)
    if not matched:
        raise DataError(
            f"No abnormal image has a mask; an image is {next(iter(images), None)!r}, a mask "
            f"{next(iter(masks), None)!r}. Leave `masks` out, or correct it."
        )
    return dict(matched)


# ------------------------------------------------------------------------------------------------ the check
def lists(index: Index) -> Iterator[str]:
    """Labels, subject and masks, as far as the lists say."""
    if index.labels != ANOMALY_LABELS:
        yield f"labels are {', '.join(index.labels)}; those of an anomaly detection are {', '.join(ANOMALY_LABELS)}."
    if not index.about.strip():
        yield "about is empty: tell write_index what the images show, such as about='liver CT'."
    for name in SPLITS:
        held = {item.label for item in index.items(name)}
        for label in ANOMALY_LABELS if held else ():
            if label not in held:
                yield f"{name} holds no {label} image, each list needs both kinds: correct the patterns, or split()."
        for item in index.items(name):
            if item.mask and item.label == NORMAL:
                yield f"{item.id} is normal and has the mask {item.mask!r}: masks are for abnormal images only."


def wrong_headers(item: Item, root: Path) -> str:
    """What keeps an image, or its mask, from being used; "" where nothing does."""
    image = sources.header([root / path for path in item.image] if isinstance(item.image, tuple) else root / item.image)
    if len(image.shape) != 2:
        return f"{item.id} is {len(image.shape)}D; anomalies are found in 2D images only: give its slices as images."
    if item.mask is None:
        return ""
    mask = sources.header(root / item.mask)
    if mask.shape != image.shape:
        one, other = (" x ".join(map(str, found.shape)) for found in (image, mask))
        return f"{item.id}: the image has {one} pixels, its mask {other}. Pair it with its own mask or leave it out."
    return ""


def empty_masks(root: Path, good: Sequence[tuple[Split, Item]]) -> Iterator[str]:
    """Masks of abnormal images that mark nothing, or cannot be read.

    Args: good: cases whose files are there and fit.
    """
    masked = [item for _, item in good if item.mask and item.label == ABNORMAL]
    opened = masked[:: -(-len(masked) // OPENED_MASKS) or 1]

    def wrong(item: Item) -> str:
        try:
            marked = bool((sources.read(root / str(item.mask))[0] > 0).any())
        except (ValueError, OSError) as error:
            return f"{item.id}: its mask cannot be read: {error}. Leave it out."
        return (
            "" if marked else f"{item.id} is abnormal and its mask marks nothing: leave it out, or leave out the mask."
        )

    with ThreadPoolExecutor(THREADS) as pool:
        yield from filter(None, pool.map(wrong, opened))
