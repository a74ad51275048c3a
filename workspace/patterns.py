"""Names as patterns, which say how they are built and not whose they are; and text from files, made safe to show.

In a pattern `#` stands for a number and `*` for words that vary, so that it can be used to find the files again
(`workspace.cases.regex_of`). Where all numbers have the same width there is one `#` a digit: `img####.nii.gz`.
"""

import re
import unicodedata
from collections.abc import Sequence

from m3dspy.errors import break_fields

_TOKEN = re.compile(r"\d+|[^\W\d_]+|[\W_]")
_CHANNEL = re.compile(r"0{0,3}\d")  # a number that may be shown where all names share it: _0000, _1
_LONG_NUMBER = re.compile(r"\d(?:[\d./-]*\d)?")
_MAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+")


def word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


IMAGE_WORDS = word_set("image images img imgs scan scans vol vols volume volumes")
MASK_WORDS = word_set(
    "mask masks label labels seg segs segmentation segmentations annotation annotations anno gt msk "
    "groundtruth contour contours roi rois"
)
SPLIT_WORDS = word_set("train training tr val valid validation dev test testing ts")
_SEQUENCES = word_set("t1 t1w t1c t1ce t1n t1gd t2 t2w t2f flair dwi adc swi pd pdw ct mr mri pet anat func")


def clean(text: object, most: int = 200) -> str:
    r"""Text from outside on one line: no control or format characters, no field marks of a prompt, at most `most` long.

    >>> clean("a\nb\u202e [[ ## completed ## ]]")
    'a b [ [ ## completed ## ]]'
    """
    seen = "".join(" " if unicodedata.category(sign)[0] == "C" else sign for sign in str(text)[: 8 * most])
    line = break_fields(" ".join(seen.split()))
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def masked(text: str) -> str:
    """Text in which numbers of 5 digits or more, dates and mail addresses are masked; counts, years and values stay.

    >>> masked("1000 scans of 2007; MRN 00412345, born 1970-01-01, j.doe@site.org")
    '1000 scans of 2007; MRN ########, born ####-##-##, *@*'
    """

    def hidden(number: re.Match[str]) -> str:
        return re.sub(r"\d", "#", number[0]) if sum(map(str.isdigit, number[0])) >= 5 else number[0]

    return _LONG_NUMBER.sub(hidden, _MAIL.sub("*@*", text))


def words(name: str) -> list[str]:
    """The words of a name in lower case, camel case taken apart: `imagesTr_v2` -> images, tr, v."""
    return [word.lower() for word in re.findall(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![a-z])", name)]


def is_role(name: str) -> bool:
    """Whether a folder's name says what part its files play (images, masks, training, T1), and no class or id."""
    found = words(name)
    return bool(
        MASK_WORDS.intersection(found)
        or (found and found[0] in SPLIT_WORDS)
        or (found and (IMAGE_WORDS | SPLIT_WORDS).issuperset(found))
        or is_sequence(name)
    )


def is_sequence(name: str) -> bool:
    """Whether a name is that of an MR sequence or a modality."""
    return name.lower() in _SEQUENCES


def is_mask_name(name: str) -> bool:
    """Whether a word of the name says mask."""
    return bool(MASK_WORDS.intersection(words(name)))


def is_id(name: str) -> bool:
    """Whether a name that stands alone could be a patient's: a long number, mostly digits, or a name as in DICOM."""
    digits = sum(map(str.isdigit, name))
    return bool(re.search(r"\d{4}|[\^,]", name)) or 2 * digits > sum(map(str.isalnum, name))


def sequence_of(stem: str) -> str:
    """The ending of a file's stem that names an MR sequence or a channel of nnU-Net: `_t1ce`, `_0001`; or ""."""
    _, mark, last = stem.rpartition("_")
    return mark + last if mark and (last.lower() in _SEQUENCES or re.fullmatch(r"000\d", last)) else ""


def could_be_class(name: str) -> bool:
    """Whether a folder's name could be a class: no number of two digits or more, no person's name as DICOM writes it.

    >>> could_be_class("Lung_Opacity"), could_be_class("grade3"), could_be_class("sub-01"), could_be_class("DOE^JANE")
    (True, True, False, False)
    """
    return not re.search(r"\d{2}|[\^,]", name)


def tokens(name: str) -> list[str]:
    return _TOKEN.findall(name)


def shape(name: str) -> tuple[str, ...]:
    """A name's tokens with its numbers as `#`."""
    return tuple("#" if token[0].isdigit() else token for token in tokens(name))


def numbers(name: str) -> list[str]:
    return re.findall(r"\d+", name)


def pattern_of(names: Sequence[str], suffix: str = "") -> str:
    """The narrowest pattern that all names match; a single name shows no more than its suffix.

    Args: names: without `suffix`.

    >>> pattern_of(["img0001", "img0002"], ".nii"), pattern_of(["Cyst- (1)", "Normal- (12)"], ".jpg")
    ('img####.nii', '*- (#).jpg')
    """
    if len(names) < 2:
        return f"*{suffix}"
    lists = [tokens(name) for name in set(names)]
    shortest = min(map(len, lists))
    if len({len(found) for found in lists}) == 1:
        parts = [_common(place) for place in zip(*lists, strict=True)]
    else:
        head = _fixed_run([found[:shortest] for found in lists])
        tail = _fixed_run([found[: len(head) - len(found) - 1 : -1][: shortest - len(head)] for found in lists])
        parts = [*head, "*", *tail[::-1]]
    return re.sub(r"\*[\W_]?(?:\*[\W_]?)*\*", "*", "".join(parts)) + suffix


def _common(place: Sequence[str]) -> str:
    """What stands for the tokens at one place of all names."""
    first = place[0]
    if all(token[0].isdigit() for token in place):
        if _CHANNEL.fullmatch(first) and len(set(place)) == 1:
            return first
        widths = set(map(len, place))
        return "#" * (widths.pop() if len(widths) == 1 else 1)
    return re.sub(r"[*?\[{]", "?", first) if len(set(place)) == 1 else "*"


def _fixed_run(lists: Sequence[Sequence[str]]) -> list[str]:
    """The parts that all lists have in common from their start on."""
    run = []
    for place in zip(*lists, strict=False):
        part = _common(place)
        if part == "*":
            break
        run.append(part)
    return run
