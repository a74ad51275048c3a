"""Looks for the answers from inside the sandbox, and submits what it finds, or else the dummy's answers.

What it tries is in `_inside/cheat.py`. It must end where the dummy ends: if it does not, something leaks.
"""

from m3dspy.m3bench.candidate import Assignment, Submission
from m3dspy.m3bench.candidates import dummy
from m3dspy.m3bench.candidates._sandboxed import carried_out
from m3dspy.workspace import untrusted


def candidate(given: Assignment, *, unsafe: bool = False) -> Submission:
    """The dummy's answers are there before it starts; it writes over those that it can better."""
    untrusted.remove(given.out)
    dummy.candidate(given)
    return carried_out(given, "cheat.py", (), {}, unsafe=unsafe).model_copy(update={"program": "cheater"})
