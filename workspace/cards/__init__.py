"""Known datasets in free text, one `.md` file each; a new card is one new file and no list to edit.

The first line is `# NAME`, the name of the dataset in m3bench. What stands in back-quotes is found in the folder
itself: names of folders, files and columns, label values; by these a card is recognised.
"""

from functools import cache
from pathlib import Path

from m3dspy.signatures.values import DataCard


@cache
def cards() -> list[DataCard]:
    """Every card, by name."""
    texts = [file.read_text(encoding="utf-8") for file in sorted(Path(__file__).parent.glob("*.md"))]
    return [DataCard(name=text.partition("\n")[0].removeprefix("# ").strip(), text=text) for text in texts]
