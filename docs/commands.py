"""A hook of MkDocs: the page commands.md, every command with its options, from the command line itself."""

import subprocess
import sys

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ASKED = [sys.executable, "-m", "typer", "m3dspy.cli", "utils", "docs", "--name", "m3dspy", "--title", "Commands"]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page to those of the folder."""
    text = subprocess.run(ASKED, capture_output=True, text=True, check=True).stdout
    files.append(File.generated(config, "commands.md", content=text))
    return files
