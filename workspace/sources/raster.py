"""Pictures: PNG, JPEG, BMP, GIF, WebP, PGM, PPM and TIFF, with all 16 bits where there are 16.

Palettes become RGB (grey palettes one channel), transparency is dropped, 1-bit images hold 0 and 255, and a JPEG is
turned the way its EXIF tag says. A TIFF of several pages, or a list of files, is a stack (rows, columns, slices).
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ._common import Claim, Header, Unreadable, check_size, native, reading

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".pgm", ".ppm", ".tif", ".tiff")
SLICES = True
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM", "TIFF")  # and none that starts another program, as EPS does
_DTYPES = {"I": "int32", "F": "float32", "I;16": "uint16", "I;16L": "uint16", "I;16B": "uint16"}  # others: uint8
_UNPACKED = {1: 1, 8: 1100, 32773: 64, 32946: 1100}  # TIFF compressions that tifffile undoes -> most they can gain


def header(path: Path | list[Path]) -> Header:
    """Axes (rows, columns), with slices as the third."""
    if isinstance(path, list):
        first = _same([header(file) for file in path], path)
        return Header(shape=(*first.shape, len(path)), dtype=first.dtype)
    with reading(path):
        if (tiff := _tiff_layout(path)) is not None:
            found = tiff[0]
        else:
            with _open(path) as image:
                mode, frames = _mode(image), _frames(image)
                size = image.size if _upright(image) else image.size[::-1]
                shape = (size[1], size[0], frames) if frames > 1 else (size[1], size[0])
                found = Header(shape=shape, channels=3 if mode == "RGB" else 1, dtype=_DTYPES.get(mode, "uint8"))
        check_size((*found.shape, found.channels), np.dtype(found.dtype))
        return found


def read(path: Path | list[Path]) -> tuple[np.ndarray, None]:
    """(rows, columns), (rows, columns, 3), or a stack (rows, columns, slices); slices in colour become grey."""
    if isinstance(path, list):
        _same([header(file) for file in path], path)
        return np.stack([_grey(read(file)[0]) for file in path], axis=-1), None
    found = header(path)
    with reading(path):
        if (tiff := _tiff_layout(path)) is not None:
            return _read_tiff(path, *tiff), None
        with _open(path) as image:
            pages = []
            for frame in range(_frames(image)):
                image.seek(frame)
                pages.append(native(np.asarray(_turned(image).convert(_mode(image)))))
        array = np.stack(pages, axis=2) if len(pages) > 1 else pages[0]
        return array.reshape(*found.shape, *([3] if found.channels == 3 else [])), None


def _same(headers: list[Header], paths: list[Path]) -> Header:
    """The header that every slice has, colours aside."""
    looks = [(found.shape, found.dtype) for found in headers]
    usual = Counter(looks).most_common(1)[0][0]
    most = headers[looks.index(usual)]
    for found, path in zip(headers, paths, strict=True):
        if len(found.shape) != 2:
            raise Unreadable(path, f"holds {found.shape[2]} slices itself; a list of files has one slice a file")
        if (found.shape, found.dtype) != usual:
            raise Unreadable(path, f"is {_look(found)}, but most slices of this volume are {_look(most)}")
    return most


def _look(found: Header) -> str:
    return f"{' x '.join(map(str, found.shape))} {found.dtype}"


def _grey(array: np.ndarray) -> np.ndarray:
    """Luminance by ITU-R 601, which leaves grey that was saved as RGB as it was."""
    if array.ndim == 2:
        return array
    return np.round(array @ np.array([0.299, 0.587, 0.114])).astype(array.dtype)


# ------------------------------------------------------------------------------------------------ Pillow
def _open(path: Path) -> Any:
    """A Pillow image whose pixels are still on disk; one of more than 89 million pixels is refused."""
    import warnings

    from PIL import Image, UnidentifiedImageError

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return Image.open(path, formats=_FORMATS)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise Claim(f"claims too many pixels: {error}") from error
        except UnidentifiedImageError as error:
            raise ValueError("is no PNG, JPEG, BMP, GIF, WebP, PNM or TIFF inside, or its header is damaged") from error


def _mode(image: Any) -> str:
    """What the pixels are converted to: "L" and "RGB" are 8-bit, `_DTYPES` the rest."""
    if image.mode in _DTYPES:
        return image.mode
    if image.mode == "P":
        colours = image.getpalette("RGB")
        return "L" if colours[::3] == colours[1::3] == colours[2::3] else "RGB"
    return "L" if image.mode in ("1", "L", "LA", "La") else "RGB"


def _frames(image: Any) -> int:
    if image.format == "TIFF":
        return image.n_frames
    if getattr(image, "is_animated", False) and image.format != "MPO":  # MPO: a JPEG with a preview behind it
        raise ValueError("is animated; a picture or a TIFF stack is needed")
    return 1


def _upright(image: Any) -> bool:
    """False where rows and columns change places. Only JPEG files are turned: cameras write them."""
    return image.format not in ("JPEG", "MPO") or image.getexif().get(0x0112, 1) < 5


def _turned(image: Any) -> Any:
    from PIL import ImageOps

    return ImageOps.exif_transpose(image) if image.format in ("JPEG", "MPO") else image


# ------------------------------------------------------------------------------------------------ tifffile
def _tiff_layout(path: Path) -> tuple[Header, str, str] | None:
    """Header, axes as stored and axes as wanted; None where Pillow is the one to read it."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        series = tiff.series[0]
        page: Any = series.keyframe
        if page.compression not in _UNPACKED or page.photometric in (0, 3) or page.bitspersample not in (8, 16, 32, 64):
            return None  # 0: white is zero, 3: palette; and LZW, JPEG ...
        if series.nbytes > _UNPACKED[page.compression] * path.stat().st_size:
            raise ValueError(f"is cut short, or its header claims too much: {series.nbytes} bytes of pixels")
        sizes = {axis: n for axis, n in zip(series.axes, series.shape, strict=True) if n > 1 or axis in "YX"}
    more = [axis for axis in sizes if axis not in "YXS"]
    if len(more) > 1 or not {"Y", "X"} <= sizes.keys():
        raise ValueError(f"has axes {''.join(sizes)}; a picture or one stack of slices is needed")
    channels = 3 if sizes.get("S", 1) >= 3 else 1
    shape = tuple(sizes[axis] for axis in ("Y", "X", *more))
    wanted = "".join(["Y", "X", *more, *(["S"] if "S" in sizes else [])])
    return Header(shape=shape, channels=channels, dtype=np.dtype(series.dtype).name), "".join(sizes), wanted


def _read_tiff(path: Path, found: Header, axes: str, wanted: str) -> np.ndarray:
    import tifffile

    array = tifffile.imread(path, series=0).squeeze()
    array = array.reshape([n for n in array.shape if n > 1] if len(axes) != array.ndim else array.shape)
    array = array.transpose([axes.index(axis) for axis in wanted])
    if "S" in wanted:  # drop the transparency
        array = array[..., : found.channels] if found.channels == 3 else array[..., 0]
    return native(np.ascontiguousarray(array))
