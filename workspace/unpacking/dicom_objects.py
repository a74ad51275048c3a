"""DICOM series with DICOM-SEG or RTSTRUCT objects that mark them: the series stay as they are, masks become NIfTI.

A segmentation is laid on the images that it refers to, by highdicom. Contours are filled on the grid of their series:
a voxel belongs to a structure if its centre lies inside, and a contour inside another is a hole. Patients are numbered;
the names of segments and regions of interest are the labels.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from m3dspy.errors import DataError
from m3dspy.workspace import sources
from m3dspy.workspace.patterns import clean
from m3dspy.workspace.sources import dicom
from m3dspy.workspace.unpacking._plain import Plain, filled, mark, values_of, walk

HOLDS_IMAGES = False
_SUFFIXES = (".dcm", ".dicom", ".ima")
_STRUCTURES = "1.2.840.10008.5.1.4.1.1.481.3"
_TAGS = ["SeriesInstanceUID", "SOPInstanceUID", "PatientID", "Rows"]
OFF_PLANE = 0.3  # of a slice's thickness that a contour may lie off its slice
_Marked = Iterator[tuple[str, np.ndarray]]  # label, where it is


@dataclass
class _Series:
    """Files of one series. `patient`: "" where none is named. `uids`: file -> its SOP instance."""

    patient: str
    uids: dict[Path, str] = field(default_factory=dict)


def found(root: Path) -> bool:
    return any(path.lower().endswith(_SUFFIXES) or "." not in path.rpartition("/")[2] for path in walk(root))


def unpack(root: Path, plain: Plain) -> bool:
    series, objects = _sorted_out(root)
    if not objects:
        return False
    marked: dict[str, list[Any]] = defaultdict(list)
    for path in objects:
        for uid, marking in _opened(path):
            if uid in series:
                marked[uid].append((path, marking))
    if not marked:
        raise DataError("The segmentations and structures refer to series that are not here. Put their images beside.")
    labels = {label for found in marked.values() for path, one in found for label in _labels(one)}
    spelled = {label.casefold(): label for label in sorted(labels)}  # Liver and liver are one
    values = values_of(set(spelled.values()))
    plain.labels(values)
    of_name = {name: values[label] for name, label in spelled.items()}
    named = sorted({one.patient for one in series.values()} - {""})
    people = {name: f"patient-{number:04d}" for number, name in enumerate(named)}
    for number, uid in enumerate(sorted(marked), start=1):
        _case(root, f"case-{number:04d}", series[uid], marked[uid], of_name, people.get(series[uid].patient, ""), plain)
    plain.how.append("DICOM segmentations and structure sets were laid on the grid of the series that they mark.")
    if unmarked := len(series) - len(marked):
        plain.how.append(f"{unmarked} series without a mark are left out.")
    return True


def _sorted_out(root: Path) -> tuple[dict[str, _Series], list[Path]]:
    """The image series by UID, and the objects that mark them."""
    from pydicom import dcmread
    from pydicom.filereader import read_file_meta_info

    series: dict[str, _Series] = {}
    objects = []
    for name in walk(root):
        path = root / name
        try:
            with sources.reading(path):
                kind = read_file_meta_info(path).get("MediaStorageSOPClassUID", "")
                if kind in (*dicom.SEGMENTATIONS, _STRUCTURES):
                    objects.append(path)
                    continue
                tags: Any = _TAGS
                header = dcmread(path, stop_before_pixels=True, specific_tags=tags)
        except ValueError:
            continue  # no DICOM, or damaged
        if "Rows" in header and "SeriesInstanceUID" in header:
            found = series.setdefault(
                str(header.SeriesInstanceUID), _Series(str(header.get("PatientID") or "").strip())
            )
            found.uids[path] = str(header.get("SOPInstanceUID", ""))
    return series, objects


def _opened(path: Path) -> Iterator[tuple[str, Any]]:
    """The series that an object marks, by UID, and the object."""
    from pydicom import dcmread

    with sources.at_work(path):
        try:
            if (dataset := dcmread(path)).SOPClassUID in dicom.SEGMENTATIONS:
                from highdicom.seg import segread

                segments = segread(path)
                for series in segments.ReferencedSeriesSequence:
                    yield str(series.SeriesInstanceUID), segments
                return
            for frame in dataset.ReferencedFrameOfReferenceSequence:
                for study in frame.RTReferencedStudySequence:
                    for series in study.RTReferencedSeriesSequence:
                        yield str(series.SeriesInstanceUID), dataset
        except (AttributeError, KeyError, ValueError, TypeError, OSError, EOFError) as error:
            raise DataError(f"{path.name} is damaged, or does not say which series it marks: {clean(error)}.") from None


def _labels(marking: Any) -> list[str]:
    if marking.SOPClassUID in dicom.SEGMENTATIONS:
        return [clean(marking.get_segment_description(k).SegmentLabel, 60) for k in marking.segment_numbers]
    return [clean(region.ROIName, 60) for region in marking.StructureSetROISequence]


def _case(
    root: Path,
    name: str,
    series: _Series,
    marked: Sequence[tuple[Path, Any]],
    values: dict[str, int],
    patient: str,
    plain: Plain,
) -> None:
    """Link the images of a series, and write its mask. Args: values: by label, folded."""
    files = max(dicom.series(list(series.uids)), key=len, default=[])
    if not files:
        raise DataError(f"The series of {next(iter(series.uids)).name} cannot be read. Remove or replace it.")
    image = files[0] if len(files) == 1 else files
    header = sources.header(image)
    if len(files) == 1 and len(header.shape) == 3:
        raise DataError(f"{files[0].name} holds a volume in one file; marks on series of single slices are read.")
    affine = sources.read(image)[1] if len(files) > 1 else None
    mask = np.zeros(header.shape, np.uint16)
    for path, marking in marked:
        with sources.at_work(path):
            try:
                if marking.SOPClassUID in dicom.SEGMENTATIONS:
                    found = _segments(marking, [series.uids[file] for file in files], mask.shape)
                else:
                    found = _regions(marking, affine, mask.shape)
                for label, where in found:
                    mark(mask, where, values[label.casefold()], len(values))
            except (AttributeError, KeyError, ValueError, TypeError, RuntimeError, IndexError) as error:
                raise DataError(f"{path.name} cannot be laid on its series: {clean(error)}.") from None
    if len(files) == 1:
        place = plain.keep(_relative(files[0], root), name=name)
        plain.pair(place, plain.array(name, mask, "masks"), patient=patient)
        return
    for number, file in enumerate(files, start=1):
        plain.keep(_relative(file, root), name=f"{name}/{number:04d}")
    plain.pair(f"images/{name}", plain.volume(name, mask, np.asarray(affine), "masks"), patient=patient)


def _relative(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix()


def _segments(marking: Any, uids: Sequence[str], shape: tuple[int, ...]) -> _Marked:
    """Each segment on the slices with these instances, in their order; (x, y, z), or (rows, columns) of one picture."""
    across, down = (shape[1], shape[0]) if len(shape) == 2 else shape[:2]
    if (marking.Columns, marking.Rows) != (across, down):
        raise ValueError(f"it has {marking.Columns} x {marking.Rows} pixels, its images {across} x {down}")
    for number in marking.segment_numbers:
        frames = marking.get_pixels_by_source_instance(
            list(uids),
            segment_numbers=[number],
            ignore_spatial_locations=True,
            assert_missing_frames_are_empty=True,
        )[..., 0]
        label = clean(marking.get_segment_description(number).SegmentLabel, 60)
        yield (
            label,
            (frames > 0.5 if frames.dtype.kind == "f" else frames > 0).swapaxes(0, 2)
            if len(shape) == 3
            else (frames[0] > 0),
        )


def _regions(marking: Any, affine: np.ndarray | None, shape: tuple[int, ...]) -> _Marked:
    """Each region of interest, its contours filled: (x, y, z)."""
    if affine is None:
        raise ValueError("its contours lie in space, and its image is a single picture")
    names = {region.ROINumber: clean(region.ROIName, 60) for region in marking.StructureSetROISequence}
    to_voxels = np.linalg.inv(affine) @ np.diag([-1.0, -1.0, 1.0, 1.0])  # from DICOM's left and posterior
    for region in marking.ROIContourSequence:
        where = np.zeros(shape, bool)
        for contour in region.get("ContourSequence") or []:
            if contour.ContourGeometricType != "CLOSED_PLANAR":
                continue
            points = np.asarray(contour.ContourData, float).reshape(-1, 3)
            i, j, k = to_voxels[:3, :3] @ points.T + to_voxels[:3, 3:]
            place = round(float(k.mean()))
            if np.abs(k - place).max() > OFF_PLANE or not 0 <= place < shape[2]:
                raise ValueError("a contour lies between the slices of its series, or outside of them")
            where[:, :, place] ^= filled(i, j, shape[:2])
        yield names[region.ReferencedROINumber], where
