"""The last step before a script, inside: limits, what the kernel forbids, exec. `launcher.py JOB COMMAND...`, JOB JSON.

`{"limits": {"FSIZE": bytes, ...}, "filter": BPF in hex, "landlock": {"library", "read", "write", "devices"} or null}`
"""

# ruff: noqa: PTH110, PTH112, PTH123 (pathlib is slow to start)
import ctypes
import json
import os
import resource
import sys
from typing import Any

SET_PDEATHSIG, SET_SECCOMP, CAPBSET_DROP, SET_NO_NEW_PRIVS, FILTER, KILL = 1, 22, 24, 38, 2, 9
CAPABILITIES_VERSION = 0x20080522
OLDEST_LANDLOCK = 6  # the first that keeps signals inside


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


def limit(limits: dict[str, int]) -> None:
    for name, most in limits.items():
        number = getattr(resource, f"RLIMIT_{name}", None)
        if number is None:
            continue
        hard = resource.getrlimit(number)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(number, (most, most))


def give_up_rights(libc: ctypes.CDLL) -> None:
    """Root's capabilities, for good: some pass by Landlock."""
    for number in range(64):
        libc.prctl(CAPBSET_DROP, number, 0, 0, 0)
    header, none = (ctypes.c_uint32 * 2)(CAPABILITIES_VERSION, 0), (ctypes.c_uint32 * 6)()
    if libc.capset(header, none):
        sys.exit(f"capabilities cannot be given up: {os.strerror(ctypes.get_errno())}")


def enclose(job: dict[str, Any]) -> None:
    """Landlock: these paths and no others, no signal and no abstract socket to the outside."""
    sys.path.insert(0, job["library"])
    from landlockpy import AccessFS, Ruleset, Scope, abi_version

    if abi_version() < OLDEST_LANDLOCK:
        sys.exit(f"Landlock of version {abi_version()}; {OLDEST_LANDLOCK} is needed (Linux 6.12)")
    read = AccessFS.READ_FILE | AccessFS.EXECUTE
    write = read | AccessFS.WRITE_FILE | AccessFS.TRUNCATE
    folder = AccessFS.READ_DIR
    change = folder | AccessFS.REMOVE_DIR | AccessFS.REMOVE_FILE | AccessFS.REFER
    make = AccessFS.MAKE_DIR | AccessFS.MAKE_REG | AccessFS.MAKE_SOCK | AccessFS.MAKE_FIFO | AccessFS.MAKE_SYM
    device = AccessFS.READ_FILE | AccessFS.WRITE_FILE | AccessFS.IOCTL_DEV
    tell = AccessFS.WRITE_FILE if job["devices"] else AccessFS.NONE  # CUDA names its threads in /proc/self/task
    with Ruleset(scoped=Scope.ABSTRACT_UNIX_SOCKET | Scope.SIGNAL) as rules:
        rules.allow_path("/proc", AccessFS.READ_FILE | folder | tell)
        for node in ("null", "zero", "full", "random", "urandom"):
            rules.allow_path(f"/dev/{node}", AccessFS.READ_FILE | AccessFS.WRITE_FILE)
        for kind, alone, more in (("read", read, folder), ("write", write, change | make), ("devices", device, folder)):
            for path in job[kind]:
                if os.path.exists(path):
                    rules.allow_path(path, alone | more if os.path.isdir(path) else alone)
        rules.restrict()


def main() -> None:
    job, command = json.loads(sys.argv[1]), sys.argv[2:]
    limit(job["limits"])
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        prctl = libc.prctl
        prctl(SET_PDEATHSIG, KILL, 0, 0, 0)
        prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
        if job["landlock"]:
            give_up_rights(libc)
            enclose(job["landlock"])
        if job["filter"]:
            code = ctypes.create_string_buffer(bytes.fromhex(job["filter"]))
            program = Program((len(code) - 1) // 8, ctypes.addressof(code))
            if prctl(SET_SECCOMP, FILTER, ctypes.byref(program), 0, 0):
                sys.exit(f"the kernel takes no filter of system calls: {os.strerror(ctypes.get_errno())}")
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
