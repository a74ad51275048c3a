"""A candidate in the sandbox: the released folder to read, its own folder to write to, no network, a limit of time."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from m3dspy.m3bench.candidate import Assignment, Submission
from m3dspy.workspace import execute

INSIDE = Path(__file__).parent / "_inside"


def carried_out(
    given: Assignment, script: str, words: Sequence[str], mounts: Mapping[str, Path], *, unsafe: bool
) -> Submission:
    """Run a script of `_inside` with these words; `{request}`, `{data}`, `{out}` and mounts in them are its to fill in.

    What it prints is kept in `OUT.log`. A checkpoint is what it leaves as `OUT/model.safetensors`.
    Raises: NoSandbox: nothing here can contain it, and `unsafe` is not set.  RunFailed: it ended badly.
    """
    order = given.out.with_name(f"{given.out.name}.order.json")
    given.out.mkdir(parents=True, exist_ok=True)
    order.write_text(json.dumps({"request": given.request, "words": list(words)}))
    mounts = {**mounts, "data": given.data}
    begun = time.monotonic()
    lines = execute.stream(
        INSIDE,
        script,
        ["{order}", *(f"{name}={{{name}}}" for name in (*mounts, "out"))],
        out=given.out,
        mounts={**mounts, "order": order},
        log=given.out.with_name(f"{given.out.name}.log"),
        seconds=given.limits.minutes and 60 * given.limits.minutes,
        trusted=False,
        unsafe=unsafe,
        gpus="all",
    )
    with closing(lines):
        for _ in lines:
            pass
    weights = given.out / "model.safetensors"
    return Submission(checkpoint=weights if weights.is_file() else None, seconds=time.monotonic() - begun)
