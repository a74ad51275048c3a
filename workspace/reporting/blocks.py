"""What a report page is made of, and the one HTML file that it becomes.

Text from outside (data, labels, file names, logs, answers of language models) reaches the page through `seen` alone:
one sign for every control character, tokens in place of what identifies a patient, and then Jinja's escaping. What is
`Markup` was escaped before; only `say`, `exactly` and the charts make it.
"""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import ClassVar, Literal

from markupsafe import Markup, escape

from m3dspy.errors import visible
from m3dspy.signatures.values import Score
from m3dspy.workspace.private import hidden

ASSETS = Path(__file__).with_name("assets")


@dataclass(frozen=True)
class Words:
    """A paragraph; a `note` stands out, a `warning` more so; a `score` is what the page is about."""

    kind: ClassVar[str] = "words"
    text: str
    tone: Literal["", "note", "warning", "score"] = ""


@dataclass(frozen=True)
class Bullets:
    kind: ClassVar[str] = "bullets"
    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Rows below a head; the first cell of a row names it."""

    kind: ClassVar[str] = "table"
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class Chart:
    """A drawing with its description, and its numbers as a table."""

    kind: ClassVar[str] = "chart"
    title: str
    about: str
    svg: Markup
    numbers: Table | None = None


@dataclass(frozen=True)
class Charts:
    """Charts side by side, where there is room."""

    kind: ClassVar[str] = "charts"
    items: Sequence[Chart]


@dataclass(frozen=True)
class Code:
    """Text as it is, line by line: (mark, text), the mark being "", "+" or "-" as in a diff."""

    kind: ClassVar[str] = "code"
    about: str
    lines: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Fold:
    """What is shown only when it is asked for."""

    kind: ClassVar[str] = "fold"
    summary: str
    blocks: "Sequence[Block]"


@dataclass(frozen=True)
class Step:
    """One thing that happened in a run: when, what, and what there is to read of it."""

    kind: ClassVar[str] = "step"
    at: str
    what: str
    tone: Literal["stage", "asked", "repair", "warning"]
    blocks: "Sequence[Block]" = ()


@dataclass(frozen=True)
class Steps:
    kind: ClassVar[str] = "steps"
    items: Sequence[Step]


@dataclass(frozen=True)
class Layer:
    """Pictures of all slices of a case, one below the other. name: "" for the image, else what lies over it."""

    name: str
    about: str
    picture: str


@dataclass(frozen=True)
class View:
    """A case to look at. width, height: of one slice as drawn.  slices: their numbers in the volume, from 1.

    start: which of them is shown first.   of: slices of the whole volume.   left: what lies to the left, if known.
    """

    kind: ClassVar[str] = "view"
    title: str
    caption: str
    good: bool | None
    width: int
    height: int
    slices: Sequence[int]
    start: int
    of: int
    plane: str
    left: str
    layers: Sequence[Layer]
    texts: Table | None = None


@dataclass(frozen=True)
class Views:
    """Cases side by side. key: (colour, name) of what is marked on them."""

    kind: ClassVar[str] = "views"
    key: Sequence[tuple[str, str]]
    items: Sequence[View]


Block = Words | Bullets | Table | Chart | Charts | Code | Fold | Steps | View | Views


@dataclass(frozen=True)
class Section:
    name: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A whole report. lead: what is said above all sections.  banners: what must not be overlooked."""

    title: str
    run: str
    banners: Sequence[str]
    lead: Sequence[Block]
    sections: Sequence[Section]
    chart: Chart | None = None


def seen(given: object) -> str:
    r"""Text from outside as a reader may see it; it is escaped elsewhere.

    >>> seen("a\u202eb\x1b[31m")
    'a�b�[31m'
    """
    return hidden(visible(str(given)))


def say(form: str, *given: object) -> Markup:
    """Our own words, which may be marked up, around text from outside, which may not.

    >>> say("reaches <strong>{}</strong>", "<b>1</b>")
    Markup('reaches <strong>&lt;b&gt;1&lt;/b&gt;</strong>')
    """
    return Markup(form).format(*(part if isinstance(part, Markup) else seen(part) for part in given))


def exactly(given: str) -> Markup:
    """Text that is to be copied, such as a command: nothing in it is replaced by a token."""
    return escape(visible(given))


def code(about: str, text: str) -> Code:
    return Code(about, [("", line) for line in text.splitlines()])


def interval(score: Score | None) -> str:
    """`0.742 (0.650 to 0.830)`."""
    return f"{score.value:.3f} ({score.low:.3f} to {score.high:.3f})" if score else "not measured"


def scores(caption: str, name: str, found: Iterable[tuple[str, Score | None]]) -> Table:
    """A table of scores with their intervals."""
    return Table(caption, (name, "value (95 % interval)"), [(each, interval(score)) for each, score in found])


def html(page: Page) -> str:
    """The page as one HTML file that loads nothing, and runs no script but its own."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda given: given if isinstance(given, Markup) else seen(given),
    )
    style, script = (_own(name) for name in ("page.css", "page.js"))
    allowed = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}"
    policy = f"{allowed}; base-uri 'none'; form-action 'none'"
    return environment.get_template("page.html").render(page=page, style=style, script=script, policy=policy)


def _own(name: str) -> Markup:
    return Markup((ASSETS / name).read_text(encoding="utf-8").strip())


def _hash(text: str) -> Markup:
    return Markup(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'")
