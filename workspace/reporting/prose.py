"""Markdown in which text from outside stays text."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from m3dspy.signatures.values import Score


def text(given: object) -> str:
    r"""Text from outside on one line, shown as it is: no markup, link, mention or control character has an effect.

    >>> text("a|b\n<img src=http://x>")
    'a\\|b \\<img src=http\\://x\\>'
    """
    seen = "".join(" " if unicodedata.category(sign)[0] == "C" else sign for sign in str(given))
    return re.sub(r"[\\`*_\[\]<>|#~&@$]|:(?=//)", r"\\\g<0>", " ".join(seen.split()))


def cell(given: object) -> str:
    """Text from outside in a table: as `text`, and a spreadsheet does not take it for a formula.

    >>> cell("=1+1"), cell(-0.5)
    ("'=1+1", '-0.5')
    """
    mark = "'" if isinstance(given, str) and given.lstrip().startswith(("=", "+", "-", "@")) else ""
    return mark + text(given)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A table; every cell is escaped."""
    lines = [[cell(name) for name in head], ["---"] * len(head), *([cell(entry) for entry in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines] + [""]


def fenced(code: str, language: str = "") -> list[str]:
    """A block of code, fenced by more backticks than it holds in a row."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", code)), default=0))
    return [f"{fence}{language}", code.rstrip("\n"), fence, ""]


def figure(name: str, about: str) -> list[str]:
    """A picture of the report's own folder."""
    return [f"![{about}](figures/{name}.png)", ""]


def interval(score: Score | None) -> str:
    """`0.742 (0.650 to 0.830)`."""
    return f"{score.value:.3f} ({score.low:.3f} to {score.high:.3f})" if score else "not measured"
