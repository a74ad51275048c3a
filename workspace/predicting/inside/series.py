"""Tell which volumes the DICOM files of a folder make: called by `predicting`, inside the sandbox.

order.json: {"paths": [...]}. Writes series.json, a list of lists of paths; prints a line for every file left out.
"""

import argparse
import json
import warnings
from pathlib import Path

from m3dspy.workspace import sources
from m3dspy.workspace.sources import dicom


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("order", "data", "out"):
        parser.add_argument(f"--{name}", type=Path)
    given = parser.parse_args()
    paths = [given.data / path for path in json.loads(given.order.read_text())["paths"]]
    warnings.showwarning = told
    warnings.simplefilter("always")
    volumes = []
    for files in dicom.series(paths):
        if len(files) > 1 or len(sources.header(files[0]).shape) == 3:
            volumes.append([path.relative_to(given.data).as_posix() for path in files])
        else:
            print(f"{files[0].name}: a single picture, and the model reads volumes")
    (given.out / "series.json").write_text(json.dumps(volumes))


def told(message: Warning | str, *rest: object, **more: object) -> None:
    """Print our own warnings; pydicom's quote values, which may be a patient's."""
    text, _, end = str(message).rpartition("; ")
    if end == "left out":
        print(text)


if __name__ == "__main__":
    main()
