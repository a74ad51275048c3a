"""What can go wrong, as one line for the person at the terminal.

    M3Error                  exit 1   one line: what happened, what was given, what to do
    ├── UsageError           exit 2   a name, path or option that does not exist
    ├── Refused              exit 3   a request that no dataset or card can serve; nothing was trained
    ├── DataError            exit 1   a folder or file that cannot be used
    ├── LMFailed             exit 1   no usable answer from a language model
    ├── NoSandbox            exit 1   untrusted code, and nothing to contain it
    └── RunFailed            exit 1   a script ended badly; carries the last lines of its log
    Stopped(BaseException)   exit 1   a budget is spent; passes through every `except Exception` on its way up
    Defect(BaseException)             an error of ours that must pass through them too; its cause has the traceback

An M3Error is the user's to mend and is printed without a traceback. Any other exception is ours and keeps it.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class M3Error(Exception):
    """Something the user can mend."""

    exit_status = 1


class UsageError(M3Error):
    """A name, path or option that does not exist."""

    exit_status = 2


class Refused(M3Error):
    """A request that cannot be served with this data."""

    exit_status = 3


class DataError(M3Error):
    """A folder or file that cannot be used."""


class LMFailed(M3Error):
    """A language model gave no usable answer."""


class NoSandbox(M3Error):
    """Code that a language model wrote, on a machine that cannot contain it."""


class RunFailed(M3Error):
    """A script ended badly.

    Args: happened: one sentence.  log: the script's log. If its last line is `error: ...`, the script knew what was
          wrong, and that is the message; else the last five lines are shown.  cut: it was ended from outside, by its
          time limit or a signal; on another day it might have run through.
    """

    def __init__(self, happened: str, log: Path, *, cut: bool = False):
        self.happened, self.log, self.cut = happened, log, cut
        lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
        self.tail = [line for line in lines if line.strip()][-5:]
        known = self.tail[-1].removeprefix("error: ") if self.tail and self.tail[-1].startswith("error: ") else ""
        shown = "" if known else "".join(f"\n    {line[:200]}" for line in self.tail)
        super().__init__(f"{known.rstrip('.') + '.' if known else happened} Log: {log}{shown}")

    def __reduce__(self) -> tuple[type, tuple[str, Path], dict[str, object]]:
        """As it was raised, also where its log cannot be read."""
        return type(self), (self.happened, self.log), {**self.__dict__, "args": self.args}


class Stopped(BaseException):
    """A budget is spent. Not an Exception, because optimizers and retry loops swallow those."""

    exit_status = 1


class Defect(BaseException):
    """An error of ours, where optimizers would swallow an Exception and go on with a score of 0."""


def unknown(kind: str, given: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not known, with the nearest spelling.

    >>> print(unknown("network", "resnet81", ["resnet18", "cnn"]))
    No network is called 'resnet81'. Did you mean 'resnet18'? Known: cnn, resnet18.
    """
    names = {name.lower(): name for name in sorted(known)}
    near = [names[name] for name in get_close_matches(given.lower(), names, n=1, cutoff=0.5)]
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UsageError(f"No {kind} is called {given!r}.{hint} Known: {', '.join(names.values()) or 'none'}.")
