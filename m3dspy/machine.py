"""What this machine can do, for `m3dspy doctor`."""

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from m3dspy import __version__
from m3dspy.programs.lms.model import KEYS
from m3dspy.workspace import execute, hardware
from m3dspy.workspace.sandbox import walls

_EXTRAS = {  # what for
    "export": "m3dspy export",
    "nnunet": "a request that asks for nnU-Net",
    "formats": "reading DICOM-SEG, COCO and MedMNIST",
    "cluster": "--cluster",
    "postgresql": "--storage postgresql://",
    "track": "--track",
}
_PACKAGES = ("dspy", "torch", "monai", "open_clip_torch", "optuna", "datasets", "typer", "lightning-fabric", "nibabel")


def checkup() -> dict[str, Any]:
    """Versions, cores, memory, GPU, sandbox, and which keys are set (never their values)."""
    contained = execute.probe()
    return {
        "m3dspy": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "disk_free_gib": round(shutil.disk_usage(Path.cwd()).free / 2**30, 1),
        "packages": {name: _version(name) for name in _PACKAGES},
        "extras": {extra: lacking(extra) for extra in _EXTRAS},
        "gpus": _gpus(),
        "sandbox": {
            "level": contained.level,
            "bwrap": str(contained.bwrap or ""),
            "seccomp": bool(walls.seccomp(contained.level)),
            "landlock_abi": walls.landlock_abi(),
            "why": contained.why,
        },
        "keys": {name: name in os.environ for name in KEYS.values()},
    }


def as_text(found: dict[str, Any]) -> str:
    """The check-up, a line a finding, with the remedy where something is missing."""
    keys = [name for name, there in found["keys"].items() if there]
    lines = [
        f"m3dspy {found['m3dspy']}, Python {found['python']}, {found['system']}",
        f"{found['cores']} cores, {found['memory_gib']} GiB memory, {found['disk_free_gib']} GiB free here",
        "packages: " + ", ".join(f"{name} {v or 'MISSING'}" for name, v in found["packages"].items()),
        "GPU: " + ("; ".join(found["gpus"]) or "none; training runs on the CPU"),
        _sandbox(found["sandbox"]),
        "keys: " + (", ".join(keys) or "none set; --lm rules and local servers (--api-base) need none"),
    ]
    for extra, packages in found["extras"].items():
        if packages:
            lines.append(f"{_EXTRAS[extra]} needs {', '.join(packages)}, not installed: pip install 'm3dspy[{extra}]'")
    if missing := [name for name, v in found["packages"].items() if v is None]:
        lines.append(f"to mend: pip install {' '.join(missing)}")
    return "\n".join(lines)


def _sandbox(found: dict[str, Any]) -> str:
    kernel = f"seccomp {'yes' if found['seccomp'] else 'no'}, Landlock version {found['landlock_abi'] or 'none'}"
    if found["level"] == "bwrap":
        return f"sandbox: bubblewrap works ({found['bwrap']}); {kernel}"
    if found["level"] == "landlock":
        return f"sandbox: Landlock works; {kernel}. Weaker than bubblewrap, which does not work here: {found['why']}"
    return (
        f"sandbox: NONE ({found['why']}); {kernel}. Only --lm rules works without --unsafe. "
        "Install bubblewrap, e.g. apt install bubblewrap"
    )


def lacking(extra: str) -> list[str]:
    """The packages of an extra that are not installed."""
    needed = map(Requirement, requires("m3dspy") or ())
    of_extra = [
        need.name
        for need in needed
        if need.marker and need.marker.evaluate({"extra": extra}) and not need.marker.evaluate({"extra": ""})
    ]
    return [name for name in of_extra if _version(name) is None]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _gpus() -> list[str]:
    try:
        return [f"{found.gpu}, {found.gigabytes:.0f} GB" for found in hardware.gpus()]
    except ImportError:
        return []
