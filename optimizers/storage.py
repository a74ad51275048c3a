"""Optuna's journal, made to survive `kill -9` of whoever writes it.

Optuna's own locks are files, which a killed holder leaves behind; and a last line that it tore ruins the journal at the
next append. Here the kernel holds the lock, and whoever gets it cuts off a torn line first.
"""

import fcntl
import os
from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from m3dspy.workspace.runs import heal


class HealingLock(JournalFileOpenLock):
    """A kernel lock on `<journal>.lock` under which the journal always ends with a whole line."""

    def __init__(self, journal: Path):
        self.journal, self.file = journal, -1

    def acquire(self) -> bool:
        self.file = os.open(f"{self.journal}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(self.file, fcntl.LOCK_EX)  # FileLock would ask again and again, and be many times slower
        heal(self.journal)
        return True

    def release(self) -> None:
        os.close(self.file)


def journal_storage(path: Path) -> JournalStorage:
    """A storage for Optuna studies in one file; the folder is made if need be."""
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(path), HealingLock(path)))


def storage_of(place: str | Path) -> BaseStorage:
    """The storage at a path (a journal) or a URL (a database)."""
    return RDBStorage(str(place)) if "://" in str(place) else journal_storage(Path(place))
