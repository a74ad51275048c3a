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
Messages quote file names, cells and logs that may be hostile, and go to terminals, reports and prompts: they are clean.
"""

import os
import re
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

_MOST, _LONGEST_LINE = 20_000, 2_000  # characters of a cleaned text
_TAIL = 64 << 10  # bytes of a log that are looked at for its last lines
_SEQUENCE = re.compile(  # what begins with an escape: titles, links and other strings; colours and cursors; the rest
    r"(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?|\x1b[ -/]*[0-~]?"
)
_UNCOMMON = re.compile(r"[^\t\n\x20-\x7e]+")  # signs that may be control or format characters
_FIELD = re.compile(r"\[\s*\[\s*##")  # begins a field in DSPy's chat format


def clean(text: str | bytes) -> str:
    r"""Text from outside, fit for a terminal, a report and a prompt.

    Escape sequences are gone, control and format characters but tab and newline became U+FFFD, of a line that was drawn
    over by carriage returns its last state stays, field marks of a prompt are broken; lines above 2,000 characters and
    texts above 20,000 keep their head and tail.

    >>> clean("\x1b]0;owned\x07\x1b[31mred\x1b[0m  10%\r100%\nbidi \u202e [[ ## code ## ]]")
    '100%\nbidi � [ [ ## code ## ]]'
    """
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    lines = []
    for line in _SEQUENCE.sub("", _cut(text, 8 * _MOST, "\n")).replace("\r\n", "\n").split("\n"):
        seen = "".join(map(_shown, line.rstrip("\r").rpartition("\r")[2]))
        lines.append(_cut(seen, _LONGEST_LINE, " "))
    return break_fields(_cut("\n".join(lines), _MOST, "\n"))


def visible(text: str) -> str:
    r"""Text in which every control and format character but tab and newline became U+FFFD; nothing is cut.

    >>> visible("left\u202eright\x00\n")
    'left�right�\n'
    """
    return _UNCOMMON.sub(lambda found: "".join(map(_shown, found[0])), text)


def break_fields(text: str) -> str:
    """Text in which nothing begins a field of a prompt."""
    return _FIELD.sub("[ [ ##", text)


def _shown(sign: str) -> str:
    plain = sign == "\t" or (unicodedata.category(sign)[0] != "C" and sign not in "\u2028\u2029")
    return sign if plain else "\ufffd"


def _cut(text: str, most: int, gap: str) -> str:
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}{gap}[... {len(text) - most // 2 * 2} characters cut ...]{gap}{text[-(most // 2) :]}"


class M3Error(Exception):
    """Something the user can mend. Args: message: one line; it is cleaned."""

    exit_status = 1

    def __init__(self, message: str):
        super().__init__(clean(message))


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
        self.tail = [line for line in last_text(log).split("\n") if line.strip()][-5:]
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


def last_text(log: Path) -> str:
    """The end of a log, cleaned; "" if there is none."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
        return clean(file.read())


def unknown(kind: str, given: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not known, with the nearest spelling.

    >>> print(unknown("network", "resnet81", ["resnet18", "cnn"]))
    No network is called 'resnet81'. Did you mean 'resnet18'? Known: cnn, resnet18.
    """
    names = {name.lower(): name for name in sorted(known)}
    near = [names[name] for name in get_close_matches(given.lower(), names, n=1, cutoff=0.5)]
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UsageError(f"No {kind} is called {given!r}.{hint} Known: {', '.join(names.values()) or 'none'}.")
