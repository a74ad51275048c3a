"""Imports point one way. The table is the house rule; a new file falls under its folder's row."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("signatures", "workspace", "programs", "m3bench", "optimizers")
GROUND = {"m3dspy.errors", "m3dspy.registry"}
EVERYTHING = {"m3dspy"}
MAY_IMPORT = {  # the longest row that fits a file counts; a row allows the modules named and what is below them
    "m3dspy.cli": EVERYTHING,
    "m3dspy.job": EVERYTHING,
    "m3dspy.machine": EVERYTHING,
    "m3dspy.program": EVERYTHING,
    "m3dspy.rivals": EVERYTHING,
    "m3dspy.tracking": EVERYTHING,
    "m3dspy.zero_shot": EVERYTHING,
    "m3dspy.__main__": {"m3dspy.cli"},
    "m3dspy.errors": set(),
    "m3dspy.registry": {"m3dspy.errors"},
    "m3dspy": {*GROUND, "m3dspy.signatures.values"},
    "m3dspy.signatures": {*GROUND, "m3dspy.signatures"},
    "m3dspy.signatures.values": set(),
    "m3dspy.workspace": {*GROUND, "m3dspy.signatures.values", "m3dspy.workspace"},
    "m3dspy.workspace.templates": set(),
    "m3dspy.workspace.networks": set(),
    "m3dspy.workspace.sources": {"m3dspy.workspace.sources"},
    "m3dspy.programs": {*GROUND, "m3dspy.signatures", "m3dspy.workspace", "m3dspy.programs"},
    "m3dspy.m3bench": {*GROUND, "m3dspy.signatures", "m3dspy.workspace", "m3dspy.m3bench"},
    "m3dspy.optimizers": {*GROUND, *(f"m3dspy.{part}" for part in PARTS)},
}
FILES = sorted(path for part in ("m3dspy", *PARTS) for path in (ROOT / part).rglob("*.py"))
HEAVY = (
    "torch",
    "dspy",
    "optuna",
    "numpy",
    "monai",
    "pandas",
    "matplotlib",
    "nibabel",
    "scipy",
    "sklearn",
    "transformers",
)


def module_of(path):
    """The name under which a file is imported."""
    names = path.relative_to(ROOT).with_suffix("").parts
    names = names if names[0] == "m3dspy" else ("m3dspy", *names)
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def is_module(name):
    path = ROOT.joinpath(*name.split(".")[1:])
    return path.is_dir() or path.with_suffix(".py").is_file() or (ROOT / "m3dspy" / f"{path.name}.py").is_file()


def imports(path):
    """Every module that an import statement anywhere in the file names, relative imports resolved."""
    module = module_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                name = f"{source}.{alias.name}"
                yield name if name.startswith("m3dspy.") and is_module(name) else source


def below(module, roots):
    return any(module == root or module.startswith(f"{root}.") for root in roots)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_point_one_way(path):
    module = module_of(path)
    row = max((row for row in MAY_IMPORT if below(module, [row])), key=len)
    ours = {name for name in imports(path) if below(name, ["m3dspy", *PARTS])} - {"m3dspy"}
    wrong = sorted(name for name in ours if not below(name, MAY_IMPORT[row]))
    assert not wrong, f"{module} must not import {', '.join(wrong)}"


def test_the_values_know_no_dspy():
    assert not {name for name in imports(ROOT / "signatures" / "values.py") if below(name, ["dspy"])}


def test_the_examiner_and_the_workspace_know_no_language_models():
    for part in ("workspace", "m3bench"):
        for path in (ROOT / part).rglob("*.py"):
            assert not {name for name in imports(path) if below(name, ["dspy", "litellm"])}, path


def test_an_import_that_points_the_wrong_way_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / "role.py").touch()
    (tmp_path / "workspace").mkdir()
    bad = tmp_path / "workspace" / "look.py"
    bad.write_text(
        "def f():\n    from ..programs import role\n    from m3dspy import programs\n    import signatures.values\n"
    )
    assert set(imports(bad)) == {"m3dspy.programs.role", "m3dspy.programs", "signatures.values"}
    with pytest.raises(
        AssertionError, match=r"must not import m3dspy\.programs, m3dspy\.programs\.role, signatures\.values"
    ):
        test_imports_point_one_way(bad)


def test_the_command_line_loads_nothing_heavy():
    code = f"import sys, m3dspy.cli; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr
