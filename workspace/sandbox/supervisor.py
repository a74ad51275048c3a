"""Start a script, watch it from outside, and end it with everything that it started.

`python -I -S supervisor.py JOB LIFELINE RESULT` (open files): a process of its own, so that it outlives no agent and
no thread. The script has this process's stdin, stdout and stderr; this process keeps none of the first two. A byte or
the end of LIFELINE, or another parent: the agent wants no more, or is gone. RESULT gets one JSON object at the end:
`{"stopped": "memory", "used": 4.1e9, "limit": 4e9, "status": -9, "left": 0}`; `stopped` is "" if it ended by itself.

Limits (bytes, seconds, numbers) are those of `Limits`. A tree that did less than 1 % of one core's work for `idle`
seconds is stuck, whatever it prints.
"""

# ruff: noqa: PTH101, PTH104, PTH108, PTH116, PTH123, PTH207, PTH208 (pathlib is slow to start)
import ctypes
import glob
import json
import math
import os
import select
import signal
import stat
import sys
import time
from typing import Any, NamedTuple

PAGE, TICK = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
SET_CHILD_SUBREAPER = 36
GRACE = 2.0  # from SIGTERM to SIGKILL, where time is up
PATIENCE = 10.0  # for processes that the kernel does not let go of
IDLE_SHARE = 0.01
LONGEST_PATH, DEEPEST = 2000, 64  # characters; folders, one in the other
EXTRA_BITS = 0o6022  # set-uid, set-gid, writable for the group or others


class Process(NamedTuple):
    parent: int
    threads: int
    resident: int
    work: float  # seconds of CPU time, ended children's too


def processes() -> dict[int, Process]:
    """Everything that below this process lives (on Linux)."""
    found: dict[int, Process] = {}
    for name in os.listdir("/proc") if sys.platform == "linux" else ():
        try:
            with open(f"/proc/{int(name)}/stat", "rb") as file:
                text = file.read()
        except (OSError, ValueError):
            continue
        field = text[text.rindex(b")") + 2 :].split()
        if field[0] != b"Z" or int(field[17]) > 1:  # of a zombie threads may live on
            work = sum(map(int, field[11:15])) / TICK
            found[int(name)] = Process(int(field[1]), int(field[17]), int(field[21]) * PAGE, work)
    below, reached = {}, {os.getpid()}
    while reached:
        new = {pid: one for pid, one in found.items() if one.parent in reached and pid not in below}
        below |= new
        reached = set(new)
    return below


def memory(tree: dict[int, Process], limit: int, out_device: int, own_tmpfs: bool) -> int:
    """Bytes of RAM that the tree holds: its pages, what it keeps in nameless files, and its own tmpfs."""
    held, devices = 0, set()
    for folder in ("tmp", "dev/shm") if own_tmpfs else ():
        for pid in tree:
            try:
                inside = f"/proc/{pid}/root/{folder}"
                device, space = os.stat(inside).st_dev, os.statvfs(inside)
            except OSError:
                continue
            if device != os.stat(f"/{folder}").st_dev and device not in devices:
                devices.add(device)
                held += (space.f_blocks - space.f_bfree) * space.f_frsize
                break
    held += nameless(tree, lambda device: device != out_device and device not in devices)
    rough = sum(one.resident for one in tree.values()) + held
    return rough if rough <= limit else sum(_proportional(pid, one) for pid, one in tree.items()) + held


def _proportional(pid: int, one: Process) -> int:
    """What of its pages is its own; those of shared files are counted as files."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            size = {line.split()[0]: int(line.split()[1]) for line in file.readlines()[1:]}
        return (size[b"Pss:"] - size[b"Pss_Shmem:"]) * 1024
    except (OSError, KeyError):
        return one.resident


def nameless(tree: dict[int, Process], where: Any) -> int:
    """Bytes in deleted files, memory files too, that the tree keeps open on the devices that `where` picks."""
    found = {}
    for pid in tree:
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for name in names:
            try:
                status = os.stat(f"/proc/{pid}/fd/{name}")
            except OSError:
                continue
            if status.st_nlink == 0 and stat.S_ISREG(status.st_mode) and where(status.st_dev):
                found[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(found.values())


def usage(folders: list[str], most: int) -> tuple[int, float]:
    """Bytes on disk and number of entries; infinite if a folder is closed or too deep; `most` is enough."""
    size, number, todo = 0, 0, list(folders)
    while todo and number <= most:
        folder = todo.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    number += 1
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    else:
                        size += _blocks(entry)
        except FileNotFoundError:
            continue
        except OSError:
            return size, math.inf
    return size, number


def _blocks(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_blocks * 512
    except FileNotFoundError:  # just removed
        return 0


def strip(folder: str) -> None:
    """Leave no set-uid or set-gid file and nothing that others may write to; the owner may read and remove it all.

    A folder too deep for those who read and remove it is moved up, to `deep-...`.
    """
    todo = [folder]
    while todo:
        here = todo.pop()
        if len(here) > LONGEST_PATH or here.count("/") > folder.count("/") + DEEPEST:
            flat = f"{folder}/deep-{os.urandom(4).hex()}"
            os.rename(here, flat)
            here = flat
        with os.scandir(here) as entries:
            for entry in entries:
                mode = entry.stat(follow_symlinks=False).st_mode
                wanted = mode & ~EXTRA_BITS | (0o700 if stat.S_ISDIR(mode) else 0o600)
                try:
                    if not stat.S_ISLNK(mode) and wanted != mode:
                        os.chmod(entry.path, stat.S_IMODE(wanted))
                except PermissionError:  # somebody else's; the script could not have made it
                    continue
                if stat.S_ISDIR(mode):
                    todo.append(entry.path)


class Watch:
    """What a tree uses, against its limits; the more CPU time a look costs, the rarer it is."""

    def __init__(self, job: dict[str, Any]):
        self.job, self.limits = job, job["limits"]
        self.start = self.worked_at = time.monotonic()
        self.next_look = self.next_walk = self.start
        self.worked = 0.0
        self.out_device = os.stat(job["out"]).st_dev
        self.seen: set[int] = set()

    def over(self) -> tuple[str, float, float] | None:
        """The limit that is broken: its name, what is used, what is allowed."""
        now, limits = time.monotonic(), self.limits
        if self.job["seconds"] is not None and now - self.start >= self.job["seconds"]:
            return "time", now - self.start, self.job["seconds"]
        used: dict[str, float] = {}
        if now >= self.next_look:
            begun = time.process_time()
            tree = processes()
            self.seen |= set(tree)
            used["memory"] = memory(tree, limits["memory"], self.out_device, self.job["level"] == "bwrap")
            used["processes"] = sum(one.threads for one in tree.values())
            work = sum(one.work for one in tree.values())
            if not self.worked <= work < self.worked + IDLE_SHARE * limits["idle"]:
                self.worked, self.worked_at = work, now
            used["idle"] = now - self.worked_at
            self.next_look = now + max(0.2, 20 * (time.process_time() - begun))
            if now >= self.next_walk:
                begun = time.process_time()
                used |= self.stored(tree)
                self.next_walk = now + max(0.5, 20 * (time.process_time() - begun))
        return next(((name, use, limits[name]) for name, use in used.items() if use > limits[name]), None)

    def stored(self, tree: dict[int, Process]) -> dict[str, float]:
        size, number = usage(self.job["writable"], self.limits["files"])
        return {"disk": size + nameless(tree, lambda device: device == self.out_device), "files": number}

    def left(self) -> float:
        """Seconds to the next look."""
        end = self.start + self.job["seconds"] if self.job["seconds"] is not None else float("inf")
        return max(0.0, min(self.next_look, end) - time.monotonic())


def start(job: dict[str, Any], keep: list[int]) -> int:
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            for file in keep:
                os.set_inheritable(file, True)
            os.chdir(job["cwd"])
            os.execve(job["command"][0], job["command"], job["environment"])
        except OSError as error:
            os.write(2, f"error: {job['command'][0]}: {error.strerror}\n".encode())
        os._exit(127)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    return child


def reap(child: int) -> int | None:
    """Take leave of the dead; the exit status of the script if it is among them, -n for signal n."""
    status = None
    while True:
        try:
            pid, raw = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == child:
            status = os.waitstatus_to_exitcode(raw)


def end(child: int, *, gently: bool, behind_bwrap: bool) -> tuple[int | None, int]:
    """Kill the tree, the script first by SIGTERM if `gently`. Its exit status, and how many processes did not die."""
    status = None
    if gently:
        for pid in processes().keys() - ({child} if behind_bwrap else set()):  # without bwrap nothing could end well
            _signal(pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while status is None and processes() and time.monotonic() < deadline:
            time.sleep(0.02)
            status = reap(child)
    deadline = time.monotonic() + PATIENCE
    while (tree := processes()) and time.monotonic() < deadline:
        for number in (signal.SIGSTOP, signal.SIGKILL):  # what stands still forks no more
            for pid in tree:
                _signal(pid, number)
        time.sleep(0.005)
        ended = reap(child)
        status = ended if status is None else status
    if sys.platform != "linux" and status is None:
        _signal(-child, signal.SIGKILL)
        time.sleep(0.1)
        status = reap(child)
    return status, len(processes())


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        return


def sweep(seen: set[int]) -> None:
    """Remove the shared memory that killed processes of torch left in the machine's /dev/shm."""
    for path in glob.glob("/dev/shm/torch_*"):
        owner = path.split("_")[1]
        if owner.isdigit() and int(owner) in seen:
            os.unlink(path)


def main() -> None:
    lifeline, result = int(sys.argv[2]), int(sys.argv[3])
    agent = os.getppid()
    with os.fdopen(int(sys.argv[1]), "rb") as file:
        job = json.load(file)
    for number in (lifeline, result):
        os.set_inheritable(number, False)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    died, bell = os.pipe()
    os.set_blocking(died, False)
    os.set_blocking(bell, False)
    signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # rings the bell
    watch = Watch(job)
    child = start(job, job["keep"])
    for number in job["keep"]:
        os.close(number)

    status, broken = None, None
    while status is None and broken is None:
        ready = select.select([lifeline, died], [], [], min(0.2, watch.left()))[0]
        if died in ready:
            os.read(died, 4096)
        status = reap(child)
        if lifeline in ready or os.getppid() != agent:
            broken = ("agent", 0.0, 0.0)
        elif status is None:
            broken = watch.over()
    gently = broken is not None and broken[0] in ("time", "idle")
    ended, left = end(child, gently=gently, behind_bwrap=job["level"] == "bwrap")
    status = ended if status is None else status
    for folder in job["writable"]:
        strip(folder)
    if broken is None:
        last = watch.stored({})
        broken = next(((k, use, watch.limits[k]) for k, use in last.items() if use > watch.limits[k]), None)
    if job["level"] != "bwrap":
        sweep(watch.seen)
    elif status is not None and status > 128:
        status = 128 - status  # bubblewrap tells a signal the way a shell does
    stopped, used, limit = broken or ("", 0.0, 0.0)
    told = {"stopped": stopped, "used": used, "limit": limit, "status": status, "left": left}
    os.write(result, json.dumps(told).encode())


if __name__ == "__main__":
    main()
