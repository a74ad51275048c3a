"""New images for a finished run: which cases they make, and their masks as DICOM-SEG.

DICOM is parsed in the sandbox, as everything that comes from outside.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from m3dspy import __version__
from m3dspy.errors import DataError, M3Error, UsageError
from m3dspy.signatures.values import Index, Item
from m3dspy.workspace import execute, untrusted
from m3dspy.workspace.indexes.cases import existing, ids, natural, stem
from m3dspy.workspace.indexes.gathering import from_images
from m3dspy.workspace.runs import Run, disk
from m3dspy.workspace.sources import source_of
from m3dspy.workspace.training import JOURNAL, MOST_NAMED, UNFINISHED

CODE = Path(__file__).parent / "inside"
MOST_LISTED = 64 << 20  # bytes of what is said of a folder's series
MOST_SEG = 2 << 30  # bytes of one DICOM-SEG


def check_out(out: Path, images: Path) -> None:
    """Raises: UsageError: answers cannot go there."""
    if images.is_dir() and out.resolve().is_relative_to(images.resolve()):
        raise UsageError(f"{out} lies in the folder of images, to which nothing is written. Give another with --out.")
    begun = (out / JOURNAL).is_file() or (out / UNFINISHED).is_dir()
    if out.exists() and not begun and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there, and holds other things than predictions. Give a new folder with --out.")


def cases(images: Path, dims: int, slices: bool, notice: Callable[[str], None]) -> tuple[Path, list[Item]]:
    """The folder that the cases lie in, and one case an image.

    An image is a file; where the model has learnt from them, a folder of `slices`; for a model of volumes, a DICOM
    series. Of an image given by its file, that alone.

    Args:   dims: of the model's images.  notice: called with each line on what was left out.
    Raises: UsageError, DataError: there is none.
    """
    root = existing(images if images.is_dir() else images.parent)
    found = from_images(root)
    if images.is_file():
        found = [item for item in found if item["image"] == images.name]
        if not found:
            raise DataError(f"{images} is no image in a format that is known.")
    volumes = _volumes(root, [item["image"] for item in found], notice) if dims == 3 else None
    if volumes is not None:
        rest = [item["image"] for item in found if not _is_dicom(root / item["image"])]
        images_of = [paths if len(paths) > 1 else paths[0] for paths in (*volumes, *([path] for path in rest))]
        named = sorted(((_name(image, root), image) for image in images_of), key=lambda pair: natural(pair[0]))
        names = ids([name for name, _ in named], slices=True)
        found = [{"id": id, "patient": id, "image": image} for id, (_, image) in zip(names, named, strict=True)]
    elif slices and images.is_dir():
        found = from_images(root, slices=True)
    return root, [Item.model_validate(item) for item in found]


def _name(image: str | list[str], root: Path) -> str:
    """What a case is called after: its file, or the folder of its slices."""
    if isinstance(image, str):
        return image.removesuffix(image.rpartition("/")[2]) + stem(image)
    return image[0].rpartition("/")[0] or root.name


def _is_dicom(path: Path) -> bool:
    return source_of(path) == "dicom"


def _volumes(root: Path, paths: Sequence[str], notice: Callable[[str], None]) -> list[list[str]] | None:
    """The DICOM volumes among the files, each the paths of its slices in order; None: no file is DICOM.

    Raises: DataError: all that is DICOM is single pictures.
    """
    dicom = [path for path in paths if _is_dicom(root / path)]
    if not dicom:
        return None
    with TemporaryDirectory(prefix="m3dspy-") as scratch:
        given = {"paths": dicom}
        for line in _contained("series.py", given, Path(scratch), {"data": root}, Path(scratch, "log")):
            notice(f"left out: {line}")
        said = untrusted.strict_json(untrusted.read(Path(scratch, "out"), "series.json", MOST_LISTED), "series.json")
    if not said:
        raise DataError(
            f"The DICOM files in {root} are single pictures, and the model reads volumes. Give the folder that holds a "
            "whole series."
        )
    return said


# ------------------------------------------------------------------------------------------------ DICOM-SEG
def check_dicom_seg(index: Index, dims: int, items: Sequence[Item], root: Path) -> None:
    """Raises: UsageError: masks of these cases cannot be written as DICOM-SEG."""
    if index.task != "segmentation":
        raise UsageError(f"--dicom-seg is for segmentation, this run's task is {index.task}. Leave it out.")
    if find_spec("highdicom") is None:
        raise UsageError("--dicom-seg needs highdicom: pip install 'm3dspy[export]'")
    for item in items:
        first = item.image if isinstance(item.image, str) else item.image[0]
        if dims == 2 or not _is_dicom(root / first):
            raise UsageError(
                f"--dicom-seg refers to the slices of a DICOM series, and case {item.id} is none. Leave it out; "
                "masks are written as NIfTI or PNG all the same."
            )


def write_dicom_seg(run: Run, items: Sequence[Item], root: Path, out: Path, fresh: set[str]) -> list[str]:
    """Write `<id>.dcm` beside each `<id>.nii.gz`; the names of the files.

    Each refers to the slices that it was made from, holds one segment a label, and was read back and compared with the
    mask before it is kept.

    Args:   fresh: ids of cases whose mask is new; of the others, a file that is there is left as it is.
    Raises: M3Error: of some case none could be written; the others are there.
    """
    index = run.load("index", Index)
    masked = [item for item in items if (out / f"{item.id}.nii.gz").is_file()]
    wanted = [item for item in masked if item.id in fresh or not (out / f"{item.id}.dcm").is_file()]
    if not wanted:
        return []
    given = {
        "cases": [item.model_dump(mode="json", include={"id", "image"}) for item in wanted],
        "labels": list(index.labels),
        "values": list(index.values),
        "multilabel": index.multilabel,
        "version": __version__,
        "run": run.id,
    }
    written, failed = [], {}
    with TemporaryDirectory(prefix=UNFINISHED, dir=out) as scratch:
        mounts = {"data": root, "masks": out}
        for line in _contained("dicom_seg.py", given, Path(scratch), mounts, run.log("dicom-seg")):
            said = untrusted.strict_json(line.encode(), "the line")
            if said.get("failed"):
                failed[said["case"]] = said["failed"]
        with disk(out):
            for item in wanted:
                if item.id not in failed:
                    name = f"{item.id}.dcm"
                    untrusted.checked(Path(scratch, "out"), name, MOST_SEG).replace(out / name)
                    written.append(name)
    if failed:
        some = [f"{id} ({str(why).rstrip('.')})" for id, why in list(failed.items())[:MOST_NAMED]]
        more = f" and {len(failed) - len(some)} more" if len(failed) > len(some) else ""
        raise M3Error(f"No DICOM-SEG could be written of {', '.join(some)}{more}; the masks are in {out}.")
    return written


def _contained(
    script: str, given: Mapping[str, Any], scratch: Path, mounts: Mapping[str, Path], log: Path
) -> Sequence[str]:
    """Run a script of ours on files from outside; the lines that it printed, without their ends."""
    out, order = scratch / "out", scratch / "order.json"
    out.mkdir()
    order.write_text(json.dumps(given))
    words = [word for name in ("order", *mounts) for word in (f"--{name}", f"{{{name}}}")]
    return list(
        execute.stream(
            CODE,
            script,
            [*words, "--out", "{out}"],
            out=out,
            mounts={"order": order, **mounts},
            log=log,
            seconds=None,
            trusted=True,
            unsafe=False,
        )
    )
