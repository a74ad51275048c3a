"""Run a script that may be wrong or hostile: contained, streamed, and gone the moment it should be.

lines = execute.stream(code, "train.py", ["--data", "{data}", "--out", "{out}"], out=folder, mounts={"data": root},
                       log=log, seconds=60, trusted=False, unsafe=False)
with closing(lines):                              # leaving the block ends the script and everything it started
    for line in lines: ...
"""

import os
import selectors
import signal
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import cache, partial
from math import isinf
from pathlib import Path
from subprocess import Popen
from sys import executable
from tempfile import TemporaryDirectory
from typing import IO

from m3dspy.errors import NoSandbox, RunFailed
from m3dspy.workspace import private, sandbox
from m3dspy.workspace.runs import disk
from m3dspy.workspace.sandbox import Containment, Limits, probe
from m3dspy.workspace.sandbox.walls import Gpus

__all__ = ["Containment", "Limits", "probe", "stream"]

LONGEST_LINE = 64 * 1024
LOG_HEAD, LOG_TAIL = 8 << 20, 1 << 20
GIB, SECONDS = (2**30, ",.1f", " GiB"), (1, ",.1f", " s")
UNITS = {"memory": GIB, "disk": GIB, "output": (2**20, ",.0f", " MiB"), "time": SECONDS, "idle": SECONDS}


def stream(
    code: Path,
    script: str,
    arguments: Sequence[str],
    *,
    out: Path,
    mounts: Mapping[str, Path] = {},
    log: Path,
    seconds: float | None,
    trusted: bool,
    unsafe: bool,
    threads: int | None = None,
    listen: Callable[[Callable[[str], None]], None] | None = None,
    limits: Limits | None = None,
    gpus: Gpus = None,
) -> Generator[str, None, None]:
    """Run `code/script` and yield the lines it prints, as they come.

    Args:
        code: folder of the script and the modules beside it.
        arguments: `{name}` stands for the path of a mount; `{out}` and `{code}` too.
        out: the one folder that the script may write to, and where it runs.
        mounts: name -> file or folder that it may read.
        log: what it prints, stderr too, is appended here; must lie outside `out`. Of more than 9 MiB the middle is
            left out.
        seconds: wall time after which it is stopped; None: no limit.
        trusted: written by our own templates and rules only, so it may run uncontained where nothing can contain it.
        unsafe: let code that a language model wrote run uncontained there, too.
        threads: for OpenMP and BLAS; None: as this process.
        listen: called once, before the first line, with a function that sends the script a line on its stdin; None:
            its stdin is empty. What can no longer be sent, because the script has ended, is dropped. An empty line then
            comes in every half second of silence, so that whoever talks to the script can also give it up.
        limits: None: those of this machine.
        gpus: the numbers of the NVIDIA GPUs that it may use, as in /dev; "all"; None: none.

    Lines are cut at 64 kB. The script ends with this process, by `kill -9` too.

    Raises:
        NoSandbox: untrusted, and nothing here can contain it.
        RunFailed: it ended with another status than 0 or broke a limit, which is named.
    """
    box = probe()
    if box.level == "none":
        _uncontained(box.why, trusted, unsafe)
    elif os.geteuid() == 0:
        _warn_once("m3dspy runs as root: what gets out of the sandbox would be root, too. Use an ordinary user.")
    limits = limits or Limits()
    code, out = code.resolve(), out.resolve()
    mounts = {name: path.resolve() for name, path in mounts.items()}
    paths = {**mounts, "out": out, "code": code}
    places = {name: sandbox.place_of(box, path, name) for name, path in paths.items()}
    command = [executable, str(places["code"] / script), *(_filled(text, places) for text in arguments)]
    with TemporaryDirectory(prefix="m3dspy-") as scratch, disk(log), closing(_Log(log)) as record:
        started = sandbox.start(
            box,
            command,
            code,
            out,
            mounts,
            Path(scratch).resolve(),
            limits=limits,
            seconds=seconds,
            threads=threads,
            gpus=gpus,
            talk=listen is not None,
        )
        try:
            if listen and (stdin := started.supervisor.stdin):
                listen(partial(_send, stdin))
            yield from _lines(started.supervisor, record, limits.output, beat=listen is not None)
        finally:
            ending = started.stop()
    if record.total > limits.output:
        ending = replace(ending, stopped="output", used=record.total, limit=limits.output)
    _judge(ending, script, log)


def _judge(ending: sandbox.Ending, script: str, log: Path) -> None:
    """Raise what a bad ending was."""
    if ending.left:
        raise RunFailed(f"{script} has ended, but {ending.left} processes of it cannot be killed.", log)
    if ending.stopped == "supervisor":
        raise RunFailed(f"{script} was stopped: something killed its supervisor.", log, cut=True)
    if ending.stopped:
        scale, form, unit = UNITS.get(ending.stopped, (1, ",.0f", ""))
        used, limit = (format(value / scale, form) for value in (ending.used, ending.limit))
        bill = "in a folder closed or too deep to be counted" if isinf(ending.used) else f"{used} of {limit}{unit}"
        raise RunFailed(f"{script} was stopped: {ending.stopped}, {bill}.", log, cut=True)
    status = ending.status or 0
    if status < 0:
        guess = "; out of memory?" if -status == signal.SIGKILL else "."
        raise RunFailed(f"{script} was killed (signal {-status}){guess}", log, cut=True)
    if status:
        raise RunFailed(f"{script} ended with status {status}.", log)


class _Log:
    """A log that keeps the first 8 MiB and the last 1 MiB of what a script prints, whole lines, `private` hidden."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file, self.total, self.tail = path.open("ab", buffering=0), 0, bytearray()
        self.private, self.told, self.begun = private.current(), 0, b""

    def write(self, chunk: bytes) -> None:
        self.total += len(chunk)
        whole, end, self.begun = (self.begun + chunk).rpartition(b"\n")
        self._keep(whole + end)
        if len(self.begun) > LONGEST_LINE:
            self._keep(self.begun)
            self.begun = b""

    def _keep(self, text: bytes) -> None:
        how = "surrogateescape"  # bytes that are no text stay as they are
        chunk = self.private.hide(text.decode(errors=how)).encode(errors=how) if self.private.values else text
        room = max(0, LOG_HEAD - self.told)
        self.told += len(chunk)
        if room:
            self.file.write(chunk[:room])
        self.tail += chunk[room:]
        if len(self.tail) > 2 * LOG_TAIL:
            del self.tail[:-LOG_TAIL]

    def close(self) -> None:
        with self.file:
            self._keep(self.begun)
            kept = self.tail[-LOG_TAIL:]
            if (left_out := self.told - LOG_HEAD - len(kept)) > 0:
                self.file.write(f"\n[{left_out:,} bytes left out]\n".encode())
            self.file.write(kept)


def _send(pipe: IO[bytes], line: str) -> None:
    with suppress(BrokenPipeError, ValueError):
        pipe.write(line.encode() + b"\n")
        pipe.flush()


def _filled(text: str, places: Mapping[str, Path]) -> str:
    for name, place in places.items():
        text = text.replace(f"{{{name}}}", str(place))
    return text


def _lines(process: Popen[bytes], record: _Log, most: int, *, beat: bool) -> Generator[str, None, None]:
    """The lines of stdout until everybody has closed it, or more than `most` bytes came; all goes to `record`.

    Args: beat: give an empty line for every half second of silence.
    """
    rest = b""
    with selectors.DefaultSelector() as pipes:
        for pipe in filter(None, (process.stdout, process.stderr)):
            pipes.register(pipe, selectors.EVENT_READ)
        while pipes.get_map():
            ready = pipes.select(0.5)
            if not ready and process.poll() is not None:
                break  # somebody whom it left behind holds the pipes open
            if not ready and beat:
                yield ""
            for key, _ in ready:
                chunk = os.read(key.fd, 1 << 16)
                if not chunk:
                    pipes.unregister(key.fileobj)
                record.write(chunk)
                if key.fileobj is process.stdout:
                    *whole, rest = (rest + chunk).split(b"\n")
                    rest = rest[:LONGEST_LINE]
                    for line in whole:
                        yield line[:LONGEST_LINE].decode(errors="replace")
            if record.total > most:
                return
    if rest:
        yield rest.decode(errors="replace")


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
