import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("m3dspy", "signatures", "workspace", "programs", "m3bench", "optimizers")
TEMPLATES = ROOT / "workspace" / "templates"  # scripts: they import what lies beside them in an emitted folder
FILES = sorted(
    path
    for part in PARTS
    for path in (ROOT / part).rglob("*.py")
    if ">>> " in path.read_text() and path.parent != TEMPLATES
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_examples_in_docstrings_hold(path):
    names = path.relative_to(ROOT).with_suffix("").parts
    module = import_module(".".join(name for name in ("m3dspy", *names[names[0] == "m3dspy" :]) if name != "__init__"))
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0
