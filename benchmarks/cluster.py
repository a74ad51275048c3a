"""What a Dask cluster costs: seconds to connect, and for each piece of work that does nothing.

python benchmarks/cluster.py [WORKERS] [PIECES]       starts a scheduler and workers on loopback, and ends them
"""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from dask_here import Dask, process

from m3dspy import cluster


def main(workers: int = 3, pieces: int = 500) -> None:
    with TemporaryDirectory() as scratch, Dask(Path(scratch), workers) as dask:
        begun = time.perf_counter()
        with cluster.executor(dask.address, None, Path(scratch)) as pool:
            assert pool
            print(f"connect                 {time.perf_counter() - begun:8.3f} s")
            pool.submit(process).result()
            begun = time.perf_counter()
            for _ in range(pieces):
                pool.submit(process).result()
            print(f"one after another       {(time.perf_counter() - begun) / pieces * 1000:8.1f} ms each")
            begun = time.perf_counter()
            for future in [pool.submit(process) for _ in range(pieces)]:
                future.result()
            print(f"{workers} at a time             {(time.perf_counter() - begun) / pieces * 1000:8.1f} ms each")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
