"""Write masks as DICOM-SEG objects of the series they were made from: called by `predicting`, inside the sandbox.

order.json: {"cases": [{"id", "image": [paths]}], "labels", "values", "multilabel", "version", "run"}. Writes <id>.dcm
for each <id>.nii.gz in --masks, and prints {"case": id}, with "failed": "why" where it cannot be.
"""

import argparse
import json
import logging
from hashlib import sha256
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel
import numpy as np
from pydicom import dcmread
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from m3dspy.workspace.sources import dicom

LIMITS = "Research use only; not for diagnosis"
SCHEME = "99M3DSPY"  # our own codes: what a label means is known to whoever drew the masks


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("order", "data", "masks", "out"):
        parser.add_argument(f"--{name}", type=Path)
    given = parser.parse_args()
    logging.disable(logging.WARNING)  # an empty mask is none that needs one
    order = json.loads(given.order.read_text())
    for case in order["cases"]:
        try:
            mask = np.asarray(nibabel.load(given.masks / f"{case['id']}.nii.gz").dataobj)  # pyright: ignore
            paths = [case["image"]] if isinstance(case["image"], str) else case["image"]
            files = [given.data / path for path in paths]
            written(files, mask, given.out / f"{case['id']}.dcm", order)
            said = {"case": case["id"]}
        except (ValueError, TypeError, AttributeError, KeyError) as error:  # a tag that the standard asks for
            said = {"case": case["id"], "failed": " ".join(str(error).split())[:300]}
        print(json.dumps(said), flush=True)


def written(files: list[Path], mask: np.ndarray, path: Path, order: dict[str, Any]) -> None:
    """Args: mask: (x, y, z) as `sources.read` gives the series.  order: labels, values and whose they are.

    Raises: ValueError, AttributeError, KeyError: the series lacks what the standard asks for.
    """
    slices = dicom.slices(files)
    if mask.shape[2] != len(slices):
        raise ValueError(f"the mask has {mask.shape[2]} slices, the series {len(slices)}")
    images = [dcmread(file) for file in dict.fromkeys(file for file, _ in slices)]
    frames = np.moveaxis(mask, (2, 1, 0), (0, 1, 2))  # slices, rows, columns
    if len(images) == 1:
        frames = frames[np.argsort([frame for _, frame in slices])]
    shown = np.stack([covered(frames, value, order) for value in order["values"]], -1)
    made = segmentation(images, shown.astype(np.uint8), sha256(mask.tobytes()).hexdigest(), order)
    made.save_as(path)
    if not np.array_equal(read_back(path, images), shown):
        path.unlink()
        raise ValueError("what was read back is not the mask")


def covered(frames: np.ndarray, value: int, order: dict[str, Any]) -> np.ndarray:
    return frames & value != 0 if order["multilabel"] else frames == value


def segmentation(images: list[Any], shown: np.ndarray, content: str, order: dict[str, Any]) -> hd.seg.Segmentation:
    """Args: shown: (frames, rows, columns, labels).  content: a hash of it: the same mask has the same UIDs."""
    source = [images[0].SeriesInstanceUID, order["run"], content]
    name = f"m3dspy {order['version']} {order['run']}"[:64]
    algorithm = hd.AlgorithmIdentificationSequence(name, codes.cid7162.ArtificialIntelligence, order["version"])
    segments = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=label[:64],
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=hd.sr.CodedConcept(f"LABEL{number}", SCHEME, label[:64]),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for number, label in enumerate(order["labels"], start=1)
    ]
    return hd.seg.Segmentation(
        source_images=images,
        pixel_array=shown,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=generate_uid(entropy_srcs=[*source, "series"]),
        series_number=1,
        sop_instance_uid=generate_uid(entropy_srcs=[*source, "instance"]),
        instance_number=1,
        manufacturer="m3dspy",
        manufacturer_model_name="m3dspy",
        software_versions=order["version"],
        device_serial_number=order["run"][:64],
        content_label="SEGMENTATION",
        content_description=LIMITS,
        series_description=f"m3dspy: {LIMITS}"[:64],
    )


def read_back(path: Path, images: list[Any]) -> np.ndarray:
    """The file's segments on the frames of its source: (frames, rows, columns, labels)."""
    made = hd.seg.segread(path)
    if len(images) > 1:
        names = [image.SOPInstanceUID for image in images]
        found = made.get_pixels_by_source_instance(names, assert_missing_frames_are_empty=True)
    else:
        numbers = list(range(1, int(images[0].NumberOfFrames) + 1))
        name = images[0].SOPInstanceUID
        found = made.get_pixels_by_source_frame(name, numbers, assert_missing_frames_are_empty=True)
    return found.astype(bool)


if __name__ == "__main__":
    main()
