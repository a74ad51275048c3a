"""Which mask belongs to which image, told from their paths."""

import re
from collections.abc import Callable, Iterable

from m3dspy.workspace.indexes.cases import regex_of


def pairs(images: Iterable[str], masks: Iterable[str], image_pattern: str, mask_pattern: str) -> list[tuple[str, str]]:
    """The (image, mask) paths that share a key, by the first of these keys that matches most of them.

    1. what the wildcards of the two patterns stand for: `img/img*.nii` and `label/label*.nii` leave `0001`;
    2. the words of the path without those that every image has and no mask, or the other way round;
    3. the same with the words of the file name only.

    A key that two images or two masks share names neither.
    """
    images, masks = list(images), list(masks)
    tries = []
    for keys in (_by_wildcards(image_pattern, mask_pattern), _by_words, _by_last_words):
        image_of, mask_of = (_unique(side) for side in keys(images, masks))
        tries.append([(image, mask_of[key]) for key, image in image_of.items() if key in mask_of])
    return max(tries, key=len)


Keyed = dict[str, tuple[str, ...]]


def _unique(keyed: Keyed) -> dict[tuple[str, ...], str]:
    paths: dict[tuple[str, ...], list[str]] = {}
    for path, key in keyed.items():
        paths.setdefault(key, []).append(path)
    return {key: named[0] for key, named in paths.items() if len(named) == 1}


def _by_wildcards(image_pattern: str, mask_pattern: str) -> Callable[[list[str], list[str]], tuple[Keyed, Keyed]]:
    def keys(pattern: str, paths: list[str]) -> Keyed:
        hits = [(path, regex_of(pattern).fullmatch(path)) for path in paths]
        return {path: hit.groups() for path, hit in hits if hit}

    return lambda images, masks: (keys(image_pattern, images), keys(mask_pattern, masks))


def _by_words(images: list[str], masks: list[str]) -> tuple[Keyed, Keyed]:
    """A path's words, lower case and numbers without leading zeros, less those that only one side has throughout."""

    def words(path: str) -> list[str]:
        return [word.lstrip("0") or "0" for word in re.findall(r"[^\W\d_]+|\d+", path.lower())]

    sides = [{path: words(path) for path in paths} for paths in (images, masks)]
    always = [set.intersection(*map(set, side.values())) if side else set() for side in sides]
    ever = [set().union(*side.values()) for side in sides]
    drop = (always[0] - ever[1]) | (always[1] - ever[0])
    first, second = (
        {path: tuple(word for word in found if word not in drop) for path, found in side.items()} for side in sides
    )
    return first, second


def _by_last_words(images: list[str], masks: list[str]) -> tuple[Keyed, Keyed]:
    def last(path: str) -> str:
        return path.rpartition("/")[2]

    first, second = _by_words([last(path) for path in images], [last(path) for path in masks])
    return {path: first[last(path)] for path in images}, {path: second[last(path)] for path in masks}
