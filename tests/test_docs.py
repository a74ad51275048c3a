"""The pages of docs/ are built without a warning, and what is built loads nothing from elsewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from m3dspy import cli

ROOT = Path(__file__).resolve().parent.parent
LOADED = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=["']?(?:https?:)?//[^>]*>""", re.I)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("docs") / "site"
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", out]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def test_nothing_is_loaded_from_elsewhere(site):
    found = [file for file in site.rglob("*") if file.suffix in (".html", ".css")]
    assert len(found) > 10
    for file in found:
        text = file.read_text()
        assert not LOADED.findall(text), file
        assert not re.findall(r"url\([\"']?(?:https?:)?//|@import", text), file


def test_a_script_from_elsewhere_would_be_found():
    assert LOADED.search('<script async src="https://unpkg.com/x"></script>')
    assert LOADED.search('<link rel=stylesheet href="//fonts.googleapis.com/css">')


def test_every_command_is_on_the_page_of_commands(site):
    page = (site / "commands.html").read_text()
    commands = typer.main.get_command(cli.app).commands
    names = [
        f"{name} {below}".strip() for name, found in commands.items() for below in getattr(found, "commands", [""])
    ]
    assert len(names) > 20
    for name in names:
        assert f"<code>m3dspy {name}</code>" in page
