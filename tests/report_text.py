"""A report page as plain text: a line a block, `| cell | cell |` a row of a table."""

from html.parser import HTMLParser

SILENT = ("style", "script", "svg", "title")
LINES = ("p", "li", "h1", "h2", "h3", "caption", "figcaption", "summary", "tr", "pre", "ins", "del", "output", "label")


def page_text(html: str) -> str:
    """What a reader reads, blanks of one line joined."""
    reader = _Reader()
    reader.feed(html)
    return "\n".join(line for raw in "".join(reader.parts).split("\n") if (line := " ".join(raw.split())))


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.parts, self.silent, self.code = [], 0, 0

    def handle_starttag(self, tag, attrs):
        self.silent += tag in SILENT
        self.code += tag == "pre"
        if tag in LINES:
            self.parts.append("\n")
        if tag == "tr":
            self.parts.append("| ")

    def handle_endtag(self, tag):
        self.silent -= tag in SILENT
        self.code -= tag == "pre"
        if tag in ("td", "th"):
            self.parts.append(" | ")
        if tag in LINES:
            self.parts.append("\n")

    def handle_data(self, data):
        if not self.silent:
            self.parts.append(data if self.code else data.replace("\n", " "))
