"""How long a report page takes and how large it is: a segmentation with 200 test cases, and with volumes of a clinic.

python benchmarks/page.py            on made-up runs; about a minute on one core, most of it to make them
"""

import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parent
CASES = {"200 volumes of 64 x 64 x 36": ((64, 64, 36), 200), "20 volumes of 256 x 256 x 80": ((256, 256, 80), 20)}
BUILD = "import pathlib, sys; from m3dspy.workspace.report import report; print(report(pathlib.Path(sys.argv[1])))"


def main() -> None:
    sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests")]
    from finished_runs import segmented

    print("| test cases | seconds, with Python's start | MB |\n|---|---|---|")
    for name, (shape, test) in CASES.items():
        with TemporaryDirectory(prefix="m3dspy-") as home:
            folder = segmented(Path(home), shape=shape, test=test)
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, "-c", BUILD, folder], check=True, cwd=HERE.parent, stdout=subprocess.DEVNULL
            )
            spent = time.perf_counter() - start
            print(f"| {name} | {spent:.1f} | {(folder / 'report.html').stat().st_size / 1e6:.2f} |")


if __name__ == "__main__":
    main()
