"""What can contain a script on this machine, how it is started there, and what it may use.

`bwrap`: bubblewrap and a filter of system calls. The script has the interpreter, its code, the mounts (read-only), one
folder to write to, and no network; it sees neither the home folder nor the environment nor other processes.
`landlock`: where namespaces are forbidden, the kernel's Landlock and a filter without IPv4 and IPv6. It can still see
the command lines of other processes, change modes and times of files that are its user's, reach Unix sockets by path.
`none`: its user's rights.

At every level a supervisor, a process of its own, holds the limits, and a flaw of the kernel would let a script out.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any, Literal

from m3dspy.workspace.sandbox import walls
from m3dspy.workspace.sandbox.supervisor import usage
from m3dspy.workspace.sandbox.walls import INSIDE, LAUNCHER, Gpus

SUPERVISOR = Path(__file__).with_name("supervisor.py")
MARGIN = 1.25  # the kernel's own bounds, a process each, lie above the watched ones, so that these can be named
PROBE = """
import socket, sys
def tried(call, *given):
    try: call(*given)
    except OSError: return
    sys.exit(f"it let {call.__name__}{given} pass")
tried(open, sys.argv[1])
tried(socket.create_connection, ("127.0.0.1", int(sys.argv[2])))
"""


@dataclass(frozen=True)
class Containment:
    """What can contain a script here. `why`: where it is not bubblewrap, the reason."""

    level: Literal["bwrap", "landlock", "none"]
    bwrap: Path | None = None
    why: str = ""


def _memory() -> int:
    """90 % of what this machine, or the control group of this process, has."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    own = Path("/proc/self/cgroup")
    groups = [line.split(":", 2)[2] for line in own.read_text().splitlines() if "::" in line] if own.is_file() else []
    for group in groups:
        place = Path("/sys/fs/cgroup", group.lstrip("/"))
        for path in (folder / "memory.max" for folder in (place, *place.parents)):
            if path.is_file() and (text := path.read_text().strip()).isdigit():
                found.append(int(text))
    return int(0.9 * min(found))


@dataclass(frozen=True)
class Limits:
    """What a script and all that it starts may use together; beyond it they are stopped, and told by which.

    memory: bytes of RAM, `tmp` and `shm` included.  processes: threads count.  disk: bytes in the folder it writes to;
    None: what is there and 90 % of what is free.  files: entries there.  largest: bytes of one file; None: as `disk`.
    output: bytes printed.  idle: seconds of no work.  tmp, shm: bytes of /tmp and /dev/shm behind bubblewrap; None: a
    quarter and a half of `memory`.
    """

    memory: int = field(default_factory=_memory)
    processes: int = field(default_factory=lambda: max(1024, 32 * (os.cpu_count() or 1)))
    disk: int | None = None
    files: int = 200_000
    largest: int | None = None
    output: int = 256 << 20
    idle: float = 1800.0
    tmp: int | None = None
    shm: int | None = None

    def at(self, out: Path) -> dict[str, Any]:
        """Every limit as a number, for a script that writes to `out`."""
        disk = self.disk
        if disk is None:
            disk = int(0.9 * shutil.disk_usage(out).free) + usage([str(out)], self.files)[0]
        derived = {"disk": disk, "largest": disk, "tmp": self.memory // 4, "shm": self.memory // 2}
        return {name: derived[name] if value is None else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Ending:
    """How a script ended. `stopped`: the limit that it broke, "" if it ended by itself, "agent" if it was wanted no
    more, "supervisor" if that was killed.

    used, limit: in the limit's unit.  status: its exit status, -n if signal n killed it.  left: processes that did not
    die.
    """

    stopped: str
    used: float
    limit: float
    status: int | None
    left: int


@dataclass(frozen=True)
class Started:
    """A script at work, behind its supervisor."""

    supervisor: subprocess.Popen[bytes]
    lifeline: int
    result: int

    def stop(self) -> Ending:
        """Kill at once what is left of it; how it ended. Once only."""
        with suppress(BrokenPipeError):  # it has ended
            os.write(self.lifeline, b"x")
        with os.fdopen(self.result, "rb") as result:
            told = result.read()
        self.supervisor.wait()
        os.close(self.lifeline)
        for pipe in filter(None, (self.supervisor.stdin, self.supervisor.stdout, self.supervisor.stderr)):
            with suppress(BrokenPipeError):
                pipe.close()
        return Ending(**json.loads(told)) if told else Ending("supervisor", 0, 0, None, 0)


@cache
def probe() -> Containment:
    """The strongest level that works here. Each is tried, not looked at: what exists may fail in a container."""
    if sys.platform != "linux":
        return Containment("none", why="the sandbox needs Linux")
    if exposed := [folder for folder in walls.interpreter() if Path.home().is_relative_to(folder)]:
        return Containment("none", why=f"Python's own folder {exposed[0]} holds the home folder")
    complaints = []
    for bwrap in walls.bubblewraps():
        box = Containment("bwrap", bwrap)
        if not (complaint := trial(box)):
            return box
        complaints.append(f"{bwrap}: {complaint}")
    why = "; ".join(complaints) or "bubblewrap is not installed"
    if not (complaint := trial(Containment("landlock"))):
        return Containment("landlock", why=why)
    return Containment("none", why=f"{why}; Landlock: {complaint}")


def trial(box: Containment) -> str:
    """Why this level does not work here; "" if it does: a script runs, and reads and reaches no more than it should."""
    if not walls.seccomp(box.level):
        return f"m3dspy has no filter of system calls for {os.uname().machine}"
    if box.level == "landlock" and find_spec("landlockpy") is None:
        return "landlockpy is not installed"
    with TemporaryDirectory(prefix="m3dspy-") as folder:
        code, out, scratch, secret = (Path(folder).resolve() / name for name in ("code", "out", "scratch", "secret"))
        for each in (code, out, scratch):
            each.mkdir()
        (code / "probe.py").write_text(PROBE)
        secret.touch()
        place = place_of(box, code, "code")
        command = [sys.executable, str(place / "probe.py"), str(secret), "9"]
        script = start(box, command, code, out, {}, scratch, limits=Limits(), seconds=60.0, threads=None, gpus=None)
        _, stderr = script.supervisor.communicate()
        status = script.stop().status
    lines = stderr.decode(errors="replace").strip().splitlines()
    return "" if status == 0 else (lines or [f"it ended with status {status}"])[-1]


def place_of(box: Containment, path: Path, name: str) -> Path:
    """Where the script finds what is mounted under this name."""
    return INSIDE / name if box.level == "bwrap" else path


def start(
    box: Containment,
    command: Sequence[str],
    code: Path,
    out: Path,
    mounts: Mapping[str, Path],
    scratch: Path,
    *,
    limits: Limits,
    seconds: float | None,
    threads: int | None,
    gpus: Gpus,
    talk: bool = False,
) -> Started:
    """Start a command inside.

    Args:
        code, out, mounts: as in `execute.stream`, absolute and resolved; `command` names them as `place_of` does.
        scratch: an empty folder, which the caller removes after the end.
        seconds: wall time.  talk: its stdin is a pipe, else empty.
    """
    bounds = limits.at(out)
    tmp, lib = (Path("/tmp"), INSIDE / "lib") if box.level == "bwrap" else (scratch / "tmp", scratch / "lib")
    environment = walls.environment(tmp, lib, threads, gpus)
    kernel = {"CORE": 0, "FSIZE": bounds["largest"]}
    if not walls.devices(gpus):
        kernel["DATA"] = int(MARGIN * limits.memory)  # CUDA reserves far more than it uses
    launch: dict[str, Any] = {"limits": kernel, "filter": walls.seccomp(box.level).hex(), "landlock": None}
    files: list[IO[bytes]] = []
    if box.bwrap is not None:
        kernel["NPROC"] = int(MARGIN * limits.processes)  # counts the user's processes in this namespace only
        arguments = walls.bwrap_arguments(code, out, mounts, environment, gpus, bounds["tmp"], bounds["shm"])
        files.append(_opened(b"".join(os.fsencode(argument) + b"\0" for argument in arguments)))
        before, launcher = [str(box.bwrap), "--args", str(files[0].fileno()), "--"], INSIDE / LAUNCHER.name
        outer: dict[str, str] = {}  # the inside can read it in /proc/1
    else:
        tmp.mkdir()
        walls.own_copy(lib)
        if box.level == "landlock":
            launch["landlock"] = walls.landlock_paths(code, out, mounts, tmp, gpus)
        before, launcher, outer = [], LAUNCHER, environment
    job = {
        "level": box.level,
        "command": [*before, sys.executable, "-I", "-S", str(launcher), json.dumps(launch), *command],
        "environment": outer,
        "cwd": str(out),
        "keep": [file.fileno() for file in files],
        "out": str(out),
        "writable": [str(out)] if box.level == "bwrap" else [str(out), str(tmp)],
        "seconds": seconds,
        "limits": bounds,
    }
    files.append(_opened(json.dumps(job).encode()))
    cord, lifeline = os.pipe()
    result, told = os.pipe()
    try:
        supervisor = subprocess.Popen(
            [sys.executable, "-I", "-S", str(SUPERVISOR), str(files[-1].fileno()), str(cord), str(told)],
            stdin=subprocess.PIPE if talk else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pass_fds=[*(file.fileno() for file in files), cord, told],
            env={name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
        )
    except BaseException:
        os.close(lifeline)
        os.close(result)
        raise
    finally:
        os.close(cord)
        os.close(told)
        for file in files:
            file.close()
    return Started(supervisor, lifeline, result)


def _opened(content: bytes) -> IO[bytes]:
    file = TemporaryFile()  # noqa: SIM115
    file.write(content)
    file.seek(0)
    return file
