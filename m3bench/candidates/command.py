"""Anybody's command line: `agent/run.sh {request} {data} {out}`.

The three names are filled in, the request as one argument. Files and folders that the command line names are shown to
it, read-only: a file with the folder it is in. It runs in the sandbox, with this Python's packages, without network.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path

from m3dspy.errors import NoSandbox, UsageError
from m3dspy.m3bench.candidate import Assignment, Submission
from m3dspy.m3bench.candidates._sandboxed import carried_out
from m3dspy.workspace import execute
from m3dspy.workspace.sandbox import walls


@dataclass(frozen=True)
class Command:
    """A candidate that is a command line. unsafe: run it uncontained where there is no sandbox."""

    line: str
    unsafe: bool = False

    def __post_init__(self) -> None:
        """Raises: UsageError: it cannot be taken apart, or lacks {data} or {out}.  NoSandbox: nothing contains it."""
        words = _words(self.line)
        if missing := [name for name in ("{data}", "{out}") if not any(name in word for word in words)]:
            raise UsageError(
                f"The command {self.line!r} does not say where {' and '.join(missing)} go. "
                "Give e.g. 'agent/run.sh {request} {data} {out}'."
            )
        box = execute.probe()
        if box.level == "none" and not self.unsafe:
            raise NoSandbox(
                f"Nothing on this machine can contain a candidate's command ({box.why}). Add --unsafe to run it as you."
            )

    def __call__(self, given: Assignment) -> Submission:
        words, mounts = _shown(_words(self.line), given)
        done = carried_out(given, "enter.py", words, mounts, unsafe=self.unsafe)
        return done.model_copy(update={"program": self.line})


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise UsageError(f"The command {line!r} cannot be taken apart: {error}. Mend its quotes.") from None


def _shown(words: list[str], given: Assignment) -> tuple[list[str], dict[str, Path]]:
    """The words with `{own0}`, ... for what is the candidate's own, and what these stand for.

    Raises: UsageError: its folder holds the benchmark's, and would show it the answers.
    """
    filled, mounts = [], {}
    for word in words:
        path = Path(word)
        if "{" in word or not path.exists() or _visible(path.absolute()):
            filled.append(word)
            continue
        folder = path.resolve() if path.is_dir() else path.resolve().parent
        for secret in (given.data.resolve().parent, given.out.resolve()):
            if secret.is_relative_to(folder) or folder.is_relative_to(secret):
                raise UsageError(
                    f"{folder}, where the candidate's {word} is, holds the benchmark's own {secret}. "
                    "Put the candidate into a folder of its own, or give another --out."
                )
        name = next((name for name, known in mounts.items() if known == folder), f"own{len(mounts)}")
        mounts[name] = folder
        filled.append(f"{{{name}}}" if path.is_dir() else f"{{{name}}}/{path.name}")
    return filled, mounts


def _visible(path: Path) -> bool:
    """Whether a sandbox shows it anyway: the system and this Python."""
    return any(path.is_relative_to(folder) for folder in (*walls.SYSTEM, *walls.interpreter()))
