"""Run a script that may be wrong or hostile: contained, streamed, and gone the moment it should be.

lines = execute.stream(code, "train.py", ["--data", "{data}", "--out", "{out}"], out=folder, mounts={"data": root},
                       log=log, seconds=60, trusted=False, unsafe=False)
with closing(lines):                              # leaving the block ends the script and everything it started
    for line in lines: ...
"""

import os
import selectors
import signal
import subprocess
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, BinaryIO

from m3dspy.errors import NoSandbox, RunFailed
from m3dspy.workspace import sandbox
from m3dspy.workspace.runs import disk
from m3dspy.workspace.sandbox import Containment, probe

__all__ = ["Containment", "probe", "stream"]

LONGEST_LINE = 64 * 1024
MOST_OUTPUT = 64 * 1024 * 1024


def stream(
    code: Path,
    script: str,
    arguments: Sequence[str],
    *,
    out: Path,
    mounts: Mapping[str, Path] = {},
    hide: Sequence[Path] = (),
    log: Path,
    seconds: float | None,
    trusted: bool,
    unsafe: bool,
    threads: int | None = None,
    listen: Callable[[Callable[[str], None]], None] | None = None,
) -> Generator[str, None, None]:
    """Run `code/script` and yield the lines it prints, as they come.

    Args:
        code: folder of the script and the modules beside it.
        arguments: `{name}` stands for the path of a mount; `{out}` and `{code}` too.
        out: the one folder that the script may write to, and where it runs.
        mounts: name -> file or folder that it may read.
        hide: files and folders below the mounts that it must not see. A file reads empty, a folder is empty; a folder
            of which every entry is hidden is emptied as a whole. Uncontained, nothing can be hidden.
        log: what it prints, stderr too, is appended here; must lie outside `out`.
        seconds: wall time after which it is killed; None: no limit.
        trusted: written by our own templates and rules only, so it may run uncontained where nothing can contain it.
        unsafe: let code that a language model wrote run uncontained there, too.
        threads: for OpenMP and BLAS; None: as this process.
        listen: called once, before the first line, with a function that sends the script a line on its stdin; None:
            its stdin is empty. What can no longer be sent, because the script has ended, is dropped. An empty line then
            comes in every 0.2 s of silence, so that whoever talks to the script can also give it up.

    Lines are cut at 64 kB. Linux ends the script with the *thread* that started it, by `kill -9` too: take all lines
    in the thread that takes the first.

    Raises:
        NoSandbox: untrusted, and nothing here can contain it.
        RunFailed: it ended with another status than 0, ran into its limit, or printed more than 64 MB.
    """
    box = probe()
    if box.bwrap is None:
        _uncontained(box.why, trusted, unsafe)
    code, out = code.resolve(), out.resolve()
    mounts = {name: path.resolve() for name, path in mounts.items()}
    places = {**mounts, "out": out, "code": code}
    if box.bwrap is not None:
        places = {name: sandbox.INSIDE / name for name in places}
    command = [sys.executable, str(places["code"] / script), *(_filled(text, places) for text in arguments)]
    deadline = time.monotonic() + seconds if seconds is not None else float("inf")

    with TemporaryDirectory(prefix="m3dspy-") as scratch, disk(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab", buffering=0) as record:
            if box.bwrap is not None:
                walls = sandbox.walls(code, out, mounts, hide, threads)
                process = sandbox.start_contained(box.bwrap, command, walls, talk=listen is not None)
            else:
                process = sandbox.start_plain(command, out, Path(scratch), threads, talk=listen is not None)
            try:
                if listen and process.stdin:
                    listen(partial(_send, process.stdin))
                stopped = yield from _lines(process, record, deadline, beat=listen is not None)
                status = 0 if stopped else process.wait()
            finally:
                _end(process)
    if stopped == "time":
        raise RunFailed(f"{script} was stopped after {seconds:g} s (its limit).", log, cut=True)
    if stopped == "output":
        raise RunFailed(f"{script} was stopped: it printed more than {MOST_OUTPUT >> 20} MB.", log)
    killed_by = status - 128 if box.bwrap is not None else -status  # bubblewrap tells it the way a shell does
    if killed_by > 0:
        guess = "; out of memory?" if killed_by == signal.SIGKILL else "."
        raise RunFailed(f"{script} was killed (signal {killed_by}){guess}", log, cut=True)
    if status:
        raise RunFailed(f"{script} ended with status {status}.", log)


def _send(pipe: IO[bytes], line: str) -> None:
    with suppress(BrokenPipeError, ValueError):
        pipe.write(line.encode() + b"\n")
        pipe.flush()


def _filled(text: str, places: Mapping[str, Path]) -> str:
    for name, place in places.items():
        text = text.replace(f"{{{name}}}", str(place))
    return text


def _lines(
    process: subprocess.Popen[bytes], record: BinaryIO, deadline: float, *, beat: bool = False
) -> Generator[str, None, str]:
    """The lines of stdout until the process has ended; stdout and stderr go to `record`.

    Returns: why it has to be stopped, "time" or "output"; "" if it came to its end.
    """
    total, rest = 0, b""
    with selectors.DefaultSelector() as pipes:
        for pipe in filter(None, (process.stdout, process.stderr)):
            pipes.register(pipe, selectors.EVENT_READ)
        while pipes.get_map():
            ready = pipes.select(max(0.0, min(0.2, deadline - time.monotonic())))
            if not ready and process.poll() is not None:
                break  # somebody whom it left behind holds the pipes open
            if not ready and beat:
                yield ""
            for key, _ in ready:
                chunk = os.read(key.fd, 1 << 16)
                if not chunk:
                    pipes.unregister(key.fileobj)
                total += len(chunk)
                record.write(chunk)
                if key.fileobj is process.stdout:
                    *whole, rest = (rest + chunk).split(b"\n")
                    rest = rest[:LONGEST_LINE]
                    for line in whole:
                        yield line[:LONGEST_LINE].decode(errors="replace")
            if total > MOST_OUTPUT:
                return "output"
            if time.monotonic() >= deadline:
                return "time"
    if rest:
        yield rest.decode(errors="replace")
    return ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill whatever is left: the script's group and session; with bubblewrap its PID namespace goes too."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.getsid(int(entry.name)) == process.pid:
                os.kill(int(entry.name), signal.SIGKILL)
    process.wait()
    with Path(os.devnull).open("wb") as nowhere:  # the pipes close when the last of them is dead
        deque(_lines(process, nowhere, time.monotonic() + 2), maxlen=0)
    for pipe in filter(None, (process.stdin, process.stdout, process.stderr)):
        with suppress(BrokenPipeError):
            pipe.close()


def _uncontained(why: str, trusted: bool, unsafe: bool) -> None:
    """Refuse, or say once what is not protected."""
    if trusted:
        _warn_once(f"No sandbox here ({why}): m3dspy's own scripts run with your rights.")
    elif unsafe:
        _warn_once(
            f"UNSAFE: no sandbox here ({why}). Code that a language model wrote runs with all your rights: it can "
            "read and delete your files, use the network, and look at the test labels."
        )
    else:
        raise NoSandbox(
            f"A language model wrote this script, and nothing here can contain it ({why}). "
            "Install bubblewrap, or pass --unsafe to let it run with all your rights."
        )


@cache
def _warn_once(text: str) -> None:
    warnings.warn(text, stacklevel=4)
