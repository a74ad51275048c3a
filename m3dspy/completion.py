"""What the shell offers after TAB: names that stand in folders, so that no keystroke waits for a heavy import."""

from pathlib import Path

import typer

from m3dspy import __path__ as tree
from m3dspy.registry import Registry


def runs(ctx: typer.Context) -> list[str]:
    """The runs in the folder of --runs."""
    home = Path(ctx.params.get("runs") or "runs")
    return sorted(path.parent.name for path in home.glob("[!.]*/request.json"))


def datasets() -> list[str]:
    """The datasets of M3Bench; each has a card of its name."""
    return sorted(path.stem for path in Path(tree[0], "workspace", "cards").glob("*.md"))


def programs() -> list[str]:
    """The compiled programs that come with the package, by name, and those of `compile`, by folder."""
    shipped = Path(tree[0], "programs", "compiled").glob("*/manifest.json")
    own = Path("runs", "programs").glob("*/manifest.json")
    return sorted([*(path.parent.name for path in shipped), *(str(path.parent) for path in own)])


def optimizers() -> list[str]:
    """The optimizers of prompts."""
    return [name.replace("_", "-") for name in Registry("optimizer", "m3dspy.optimizers.prompts")]
