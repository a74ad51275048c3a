"""An emitted train.py with one realistic fault in it, for whoever has to learn to mend scripts."""

import ast
import re
from functools import cache

from m3dspy.m3bench.phantom import stream
from m3dspy.workspace.syntax import parse

SOUND = 3  # one script of so many is left as it is
LOST = "lost import"
IMPORTS = ("normalised", "ThreadPoolExecutor", "augmented", "np", "Counter", "DiceCELoss", "drawn", "augment")
EDITS = {  # kind -> (what stands in a template, on the way of a smoke run; what is written instead)
    "misspelled attribute": (("s.channels)", "s.channel)"), ("s.cache_gb", "s.cache")),
    "misspelled name": (("loss=run.losses[0]", "loss=runs.losses[0]"), ('out / "cache"', 'output / "cache"')),
    "misspelled key": (
        ('tuple(index["labels"])', 'tuple(index["label"])'),
        ('item["image"], root', 'item["path"], root'),
    ),
    "misspelled method": (("run.epochs()", "run.epoch()"), ("room.keep(", "room.store(")),
    "wrong shape": (
        ("torch.zeros(len(items), len(s.labels))", "torch.zeros(len(s.labels), len(items))"),
        ("case.mask[window][None]", "case.mask[window]"),
        ("seen = case.image[None], ", "seen = case.image, "),
        ("words[:, :-1])", "words[:-1])"),
    ),
    "wrong axis": (
        ("logits.log_softmax(1)", "logits.log_softmax(2)"),
        ("logits[0].softmax(0)", "logits[0].softmax(4)"),
        (".split(s.batch)[:steps]", ".split(s.batch, 1)[:steps]"),
        (".flatten(0, 1), words", ".flatten(1, 2), words"),
    ),
    "wrong dtype": (
        (".to(torch.float16)", ".to(torch.bfloat16)"),
        ("torch.cat(images)", "torch.cat(images).to(torch.float16)"),
    ),
    "wrong keyword": (
        ("replacement=True", "with_replacement=True"),
        ("to_onehot_y=True", "onehot_y=True"),
        ("strength=s.augment", "strengths=s.augment"),
        ("ignore_index=net", "ignored_index=net"),
    ),
    "wrong number of arguments": (
        ("Room(s.cache_gb, ", "Room("),
        ("upright(array, affine, s.dims)", "upright(array, s.dims)"),
        ('drawn(index["training"], kept)', 'drawn(index["training"])'),
    ),
}


def damage(script: str, seed: int) -> tuple[str, str]:
    """The script with one fault that ends its `--smoke` run in an error message, and the kind of the fault.

    One script in three is left as it is: "none".
    """
    random = stream(seed, "fault")
    if random.integers(SOUND) == 0:
        return script, "none"
    made = faults(script)
    kind = sorted(made)[random.integers(len(made))]
    return made[kind][random.integers(len(made[kind]))], kind


@cache
def faults(script: str) -> dict[str, list[str]]:
    """Kind -> the script with a fault of that kind, in every way that has a place in it."""
    found = {LOST: [text for name in IMPORTS if (text := _without_import(script, name))]}
    for kind, edits in EDITS.items():
        found[kind] = [re.sub(rf"(?<![\w.]){re.escape(old)}", new, script, count=1) for old, new in edits]
    return {kind: fit for kind, texts in found.items() if (fit := [text for text in texts if text != script])}


def _without_import(script: str, name: str) -> str | None:
    """The script less one imported name; None where it imports no such name at its top."""
    lines = script.splitlines(keepends=True)
    for node in parse(script).body:
        if isinstance(node, ast.Import | ast.ImportFrom) and name in {
            alias.asname or alias.name for alias in node.names
        }:
            node.names = [alias for alias in node.names if (alias.asname or alias.name) != name]
            kept = f"{ast.unparse(node)}\n" if node.names else ""
            return "".join([*lines[: node.lineno - 1], kept, *lines[node.end_lineno :]])
    return None
