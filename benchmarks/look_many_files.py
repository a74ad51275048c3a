"""Time and memory of `look` on 50,000 small PNG files in 5,000 folders, as slice folders and as patients' pictures.

    python benchmarks/look_many_files.py [--folders 5000] [--files 10]

The goal is under 20 s and under 500 MB. Each layout is made in a temporary folder, and looked at in its own process.
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image


def make(root: Path, folders: int, files: int, layout: str) -> None:
    """Grey 32 x 32 pictures: `CLASS/scan/slice.png`, or `patient/view_number.png` with a table of their classes."""
    random = np.random.default_rng(0)
    rows = ["image,patient,label"]
    for folder in range(folders):
        label = ("covid", "normal", "pneumonia")[folder % 3]
        path = root / label / f"{folder:05d}" if layout == "slices" else root / "images" / f"patient{folder:05d}"
        path.mkdir(parents=True)
        pixels = random.integers(0, 256, (files, 32, 32), dtype=np.uint8)
        for number, picture in enumerate(pixels):
            name = f"{number:04d}.png" if layout == "slices" else f"{random.integers(1 << 40):x}.png"
            Image.fromarray(picture).save(path / name, compress_level=1)
            rows.append(f"{path.relative_to(root).as_posix()}/{name},patient{folder:05d},{label}")
    if layout == "pictures":
        (root / "labels.csv").write_text("\n".join(rows) + "\n")


def measure(root: Path) -> tuple[float, float, str]:
    """Seconds, peak MB of the process, and what was found."""
    from m3dspy.workspace.look import look

    start = time.perf_counter()
    found = look(root)
    seconds = time.perf_counter() - start
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    groups = ", ".join(f"{group.count} x {group.pattern}" for group in found.groups)
    return seconds, peak, groups


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--folders", type=int, default=5000)
    parser.add_argument("--files", type=int, default=10, help="in each folder")
    given = parser.parse_args()
    for layout in ("slices", "pictures"):
        with tempfile.TemporaryDirectory() as temporary:
            make(Path(temporary), given.folders, given.files, layout)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                seconds, peak, groups = pool.apply(measure, (Path(temporary),))
        print(f"{layout}: {given.folders * given.files:,} files, {seconds:.1f} s, {peak:.0f} MB; {groups}")


if __name__ == "__main__":
    main()
