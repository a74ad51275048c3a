"""DICOM, with or without suffix: one picture, one multi-frame volume, or a list of files that are one series.

Numbers are what the modality means: rescaled (Hounsfield units in CT), and MONOCHROME1 turned so that more is
brighter. Positions are DICOM's own, with left and posterior turned to nibabel's right and anterior.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ._common import Header, Unreadable, axis_codes, check_size, native, reading, spacing_of

SUFFIXES = (".dcm", ".dicom", ".ima")
MAGIC = (128, b"DICM")
SLICES = True
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # SOP classes, that of label maps last
_COLOURS = ("Red", "Green", "Blue")
_PLACE = [
    "SeriesInstanceUID", "InstanceNumber", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "ImagerPixelSpacing", "SpacingBetweenSlices", "SliceThickness", "GridFrameOffsetVector",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
_PIXELS = [
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "RescaleSlope", "RescaleIntercept", "DoseGridScaling",
    *(f"{colour}PaletteColorLookupTable{part}" for colour in _COLOURS for part in ("Descriptor", "Data")),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in _COLOURS),
]  # fmt: skip
_DATA = ["PixelData", "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"]


@dataclass(frozen=True)
class _Plane:
    """Where a slice lies: mm, in DICOM's world that grows to the left, posterior and superior."""

    position: np.ndarray  # (3,) of the first voxel's centre
    axes: np.ndarray  # (2, 3) where the column index and the row index grow to; unit vectors
    spacing: tuple[float, float]  # between rows, between columns


def header(path: Path | list[Path]) -> Header:
    """Axes (rows, columns) of one picture, (x, y, z) of a series or a multi-frame file."""
    if isinstance(path, Path):
        dataset = _open(path)
        if _frames(dataset) == 1:
            return _header(dataset, _size(dataset)[::-1], _pixel_spacing(dataset), "")
        datasets, files = [dataset], [path]
    else:
        datasets, files = _volume(path)
    depth = sum(_frames(dataset) for dataset in datasets)
    _, affine = _geometry(datasets, files)
    spacing, orientation = (None, "") if affine is None else (spacing_of(affine), axis_codes(affine))
    return _header(datasets[0], (*_size(datasets[0]), depth), spacing, orientation)


def read(path: Path | list[Path]) -> tuple[np.ndarray, np.ndarray | None]:
    """(rows, columns) of one picture; else (x, y, z) and the affine; colours as a last axis."""
    if isinstance(path, Path):
        dataset = _open(path)
        if _frames(dataset) == 1:
            return _pixels(path)[0], None
        datasets, files = [dataset], [path]
    else:
        datasets, files = _volume(path)
    order, affine = _geometry(datasets, files)
    frames = np.concatenate([_pixels(file) for file in files])[order]
    return np.ascontiguousarray(frames.swapaxes(0, 2)), affine


def series(paths: list[Path]) -> list[list[Path]]:
    """The volumes among the files of a folder: each a list of files in the order of their slices.

    Files belong together when series, orientation and size are the same, so that a localizer stands apart from the
    scan that it is filed with. A volume of one file is a picture: `read` it by its path. Files without an image
    (reports, plans, segmentations, DICOMDIR) are left out; so is, with a warning that names it, a file that cannot be
    read.
    """
    groups: dict[Any, list[tuple[float, int, Path]]] = {}
    for path in sorted(paths):
        try:
            dataset = _open(path)
            with reading(path):
                kind, rank = _kind(dataset, path), _rank(dataset, path)
        except _NoImage:
            continue
        except Unreadable as error:
            warnings.warn(f"{error}; left out", stacklevel=2)
            continue
        groups.setdefault(kind, []).append(rank)
    return [[path for _, _, path in sorted(ranks)] for ranks in groups.values()]


def patient(path: Path) -> str:
    """Whose image a file is, by its PatientID; "" where it says nothing. Who asks numbers patients, and keeps no id."""
    from pydicom import dcmread

    with reading(path):
        tags: Any = ["PatientID"]
        return str(dcmread(path, stop_before_pixels=True, specific_tags=tags).get("PatientID") or "").strip()


def slices(paths: list[Path]) -> list[tuple[Path, int]]:
    """Where each slice of the volume that `read` gives comes from: its file, and its frame in it from 0 on."""
    datasets, files = _volume(paths)
    order, _ = _geometry(datasets, files)
    frames = [(path, frame) for dataset, path in zip(datasets, files, strict=True) for frame in range(_frames(dataset))]
    return [frames[k] for k in order]


# ------------------------------------------------------------------------------------------------ one file
class _NoImage(Unreadable):
    """A sound DICOM file of another kind."""


def _open(path: Path, data: bool = False) -> Any:
    """The tags that pixels and places need, and no others: none that names a patient."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    with reading(path):
        try:
            tags: Any = _PLACE + _PIXELS + (_DATA if data else [])
            dataset = dcmread(path, stop_before_pixels=not data, specific_tags=tags)
        except InvalidDicomError as error:
            raise ValueError("is no DICOM file: DICM is not at byte 128") from error
        is_mask = dataset.file_meta.get("MediaStorageSOPClassUID") in SEGMENTATIONS
        if is_mask or "Rows" not in dataset or "Columns" not in dataset:
            raise _NoImage(path, "is DICOM, but holds no image")
        check_size((*_size(dataset), _frames(dataset), _channels(dataset)), _stored_dtype(dataset))
        return dataset


def _pixels(path: Path) -> np.ndarray:
    """(frames, rows, columns), with colours as a fourth axis."""
    from pydicom.pixels import apply_color_lut

    dataset = _open(path, data=True)
    with reading(path):
        if not any(tag in dataset for tag in _DATA[:3]):
            raise ValueError("is DICOM, but its pixels are missing")
        try:
            array = native(dataset.pixel_array)
        except (RuntimeError, NotImplementedError) as error:
            syntax = dataset.file_meta.TransferSyntaxUID.name
            raise ValueError(f"cannot be unpacked: no decoder for {syntax} is installed, or its data is damaged; "
                             "try pip install 'pylibjpeg[all]'") from error  # fmt: skip
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            array = apply_color_lut(array, dataset)
        columns, rows = _size(dataset)
        colours = [3] if _channels(dataset) == 3 else []
        array = array.reshape(_frames(dataset), rows, columns, *colours)
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            array = ~array if array.dtype.kind == "i" else array.dtype.type(2**dataset.BitsStored - 1) - array
        slope, intercept = _rescale(dataset)
        if _is_rescaled(dataset):
            array = (array * slope + intercept).astype(np.float32)
        return array.astype(_dtype(dataset), copy=False)


def _size(dataset: Any) -> tuple[int, int]:
    """Columns, rows."""
    return int(dataset.Columns), int(dataset.Rows)


def _frames(dataset: Any) -> int:
    return int(dataset.get("NumberOfFrames") or 1)


def _channels(dataset: Any) -> int:
    palette = dataset.get("PhotometricInterpretation") == "PALETTE COLOR"
    return 3 if palette or dataset.get("SamplesPerPixel", 1) >= 3 else 1


def _stored_dtype(dataset: Any) -> np.dtype:
    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        return np.dtype(np.uint8 if dataset.RedPaletteColorLookupTableDescriptor[2] <= 8 else np.uint16)
    kind = "i" if dataset.get("PixelRepresentation", 0) else "u"
    return np.dtype(f"{kind}{max(1, int(dataset.BitsAllocated) // 8)}")


def _dtype(dataset: Any) -> np.dtype:
    return np.dtype(np.float32) if _is_rescaled(dataset) else _stored_dtype(dataset)


def _is_rescaled(dataset: Any) -> bool:
    slope, intercept = _rescale(dataset)
    return bool((slope != 1).any() or (intercept != 0).any())


def _rescale(dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """Slope and intercept of each frame, each (frames, 1, 1)."""
    values = [_group(dataset, k, "PixelValueTransformationSequence") for k in range(_frames(dataset))]
    slope = [value.get("RescaleSlope") or dataset.get("DoseGridScaling") or 1 for value in values]
    intercept = [value.get("RescaleIntercept") or 0 for value in values]
    shape = (-1, 1, 1) if _channels(dataset) == 1 else (-1, 1, 1, 1)
    return np.array(slope, float).reshape(shape), np.array(intercept, float).reshape(shape)


def _group(dataset: Any, frame: int, name: str) -> Any:
    """A functional group of an enhanced image, the frame's own or the shared one; else the dataset itself."""
    own = dataset.get("PerFrameFunctionalGroupsSequence") or []
    for holder in (*own[frame : frame + 1], *(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]):
        if holder.get(name):
            return holder[name][0]
    return dataset


def _header(dataset: Any, shape: tuple[int, ...], spacing: tuple[float, ...] | None, orientation: str) -> Header:
    return Header(shape, _channels(dataset), spacing, orientation, _dtype(dataset).name)


# ------------------------------------------------------------------------------------------------ places
def _pixel_spacing(dataset: Any) -> tuple[float, float] | None:
    """mm between rows, between columns; at the detector where a projection says no more."""
    measures = _group(dataset, 0, "PixelMeasuresSequence")
    spacing = measures.get("PixelSpacing") or dataset.get("ImagerPixelSpacing")
    return (round(float(spacing[0]), 4), round(float(spacing[1]), 4)) if spacing else None


def _planes(dataset: Any) -> list[_Plane] | None:
    """Where every frame lies, or None if the file does not say."""
    planes, count = [], _frames(dataset)
    offsets = dataset.get("GridFrameOffsetVector")
    for frame in range(count):
        position = _group(dataset, frame, "PlanePositionSequence").get("ImagePositionPatient")
        axes = _group(dataset, frame, "PlaneOrientationSequence").get("ImageOrientationPatient")
        spacing = _group(dataset, frame, "PixelMeasuresSequence").get("PixelSpacing")
        if not position or not axes or not spacing:
            return None
        down, across = float(spacing[0]), float(spacing[1])
        place = _Plane(np.array(position, float), np.array(axes, float).reshape(2, 3), (down, across))
        if "PerFrameFunctionalGroupsSequence" not in dataset and count > 1:
            away = float(offsets[frame] - offsets[0]) if offsets else frame * _thickness(dataset)
            place = _Plane(place.position + away * np.cross(*place.axes), place.axes, place.spacing)
        planes.append(place)
    return planes


def _thickness(dataset: Any) -> float:
    measures = _group(dataset, 0, "PixelMeasuresSequence")
    return abs(float(measures.get("SpacingBetweenSlices") or measures.get("SliceThickness") or 1))


def _kind(dataset: Any, path: Path) -> Any:
    """What the slices of one volume have in common; a multi-frame file is a volume of its own."""
    planes = _planes(dataset)
    axes = tuple(planes[0].axes.round(3).ravel() + 0.0) if planes else ()
    alone = path if _frames(dataset) > 1 or "SeriesInstanceUID" not in dataset else None
    return str(dataset.get("SeriesInstanceUID", "")), axes, _size(dataset), _channels(dataset), alone


def _rank(dataset: Any, path: Path) -> tuple[float, int, Path]:
    """Along the normal; by number where no place is given."""
    planes = _planes(dataset)
    height = float(planes[0].position @ np.cross(*planes[0].axes)) if planes else 0.0
    return height, int(dataset.get("InstanceNumber") or 0), path


def _volume(paths: list[Path]) -> tuple[list[Any], list[Path]]:
    """The files of one series, opened and in the order of their slices."""
    opened = sorted(((_open(path), path) for path in paths), key=lambda pair: _rank(*pair))
    kinds = {}
    for dataset, path in opened:
        kinds.setdefault(_kind(dataset, path), path)
    if len(kinds) > 1:
        odd = list(kinds.values())[1]
        raise Unreadable(odd, f"belongs to another series, orientation or size: the list mixes {len(kinds)} volumes")
    return [dataset for dataset, _ in opened], [path for _, path in opened]


def _geometry(datasets: list[Any], paths: list[Path]) -> tuple[np.ndarray, np.ndarray | None]:
    """The order of all frames along the normal, and the affine from (x, y, z) to RAS+ mm if places are known.

    Slices at uneven distances get the median one, with a warning: their volume is distorted.
    """
    places = [_planes(dataset) for dataset in datasets]
    planes = [plane for place in places for plane in place or []]
    if not all(places):
        return np.arange(sum(_frames(dataset) for dataset in datasets)), None
    first = planes[0]
    normal = np.cross(*first.axes)
    heights = np.array([plane.position @ normal for plane in planes])
    order = np.argsort(heights, kind="stable")
    step = normal * _thickness(datasets[0])
    if len(planes) > 1:
        gaps = np.diff(heights[order])
        usual = float(np.median(gaps))
        if gaps.min() < 1e-3:
            raise Unreadable(paths[0], "is in a series with two slices at one place: more than one volume")
        if np.abs(gaps - usual).max() > 0.02 * usual + 0.01:
            warnings.warn(
                f"{paths[0].name}: its series has slices {gaps.min():.4g} to {gaps.max():.4g} mm apart; "
                f"the median, {usual:.4g} mm, is used",
                stacklevel=4,
            )
        step = np.median(np.diff([planes[k].position for k in order], axis=0), axis=0)
    rows, columns = first.spacing
    affine = np.eye(4)
    affine[:3] = np.column_stack([first.axes[0] * columns, first.axes[1] * rows, step, planes[order[0]].position])
    return order, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
