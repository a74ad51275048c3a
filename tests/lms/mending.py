"""What stands for a strong model that knows how a training script must look: it compares it with the template."""

import ast
import re
from functools import cache

from m3dspy.workspace.emit import TEMPLATES, templates
from m3dspy.workspace.syntax import parse

_CHOICES = re.compile(r"^(SETTINGS|SPACE) = .*(?:\n[ )}].*)*", re.M)  # the two statements that no template knows


def mended(script: str) -> str:
    """The script as its template has it, with its own SETTINGS and SPACE; "" where that changes nothing.

    Args: script: an emitted train.py, damaged or not.
    """
    lines = set(script.splitlines())
    template = max(_templates(), key=lambda text: len(lines & set(text.splitlines())))
    own = {match[1]: match[0] for match in _CHOICES.finditer(script)}
    whole = _CHOICES.sub(lambda match: own.get(match[1], match[0]), template)
    return whole if whole.strip() != script.strip() else ""


def fragment(script: str, whole: str) -> str:
    """Only the top-level statement that was mended, as a lazy model gives it; "" where nothing was."""
    pairs = zip(script.splitlines(), whole.splitlines(), strict=False)
    first = next((number for number, (before, after) in enumerate(pairs, 1) if before != after), 0)
    for node in parse(whole).body:
        if first and node.lineno <= first <= (node.end_lineno or 0):
            return f"{ast.get_source_segment(whole, node)}\n"
    return ""


@cache
def _templates() -> tuple[str, ...]:
    return tuple((TEMPLATES / f"{name}.py").read_text() for name in templates())
