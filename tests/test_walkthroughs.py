"""The walk-throughs of docs/ hold: every command as it is written, and what their readers are told to see."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from lms.server import serve

PAGES = sorted((Path(__file__).parent.parent / "docs" / "walkthroughs").glob("*.md"))
BLOCK = re.compile(r"^```(bash|text)\n(.*?)^```$", re.M | re.S)
END = "\x1e"  # printed after each block of commands
DECIMAL = r"\d+\.\d+"
KINDS = {"...": ".*", " ": r"\s+", "0.0": DECIMAL}


def steps(page):
    """(commands, lines that they are said to print) of a page, in order."""
    found = []
    for kind, text in BLOCK.findall(page.read_text()):
        if kind == "bash":
            found.append((text, []))
        else:
            found[-1][1].extend(line for line in text.splitlines() if line.strip("."))
    return found


def seen(line):
    """A shown line as a pattern: spaces are alike, `...` stands for anything, and decimals may be others."""
    parts = re.split(rf"(\.\.\.|{DECIMAL}|\s+)", line.strip())
    return "".join(KINDS.get(re.sub(r"\s+", " ", re.sub(DECIMAL, "0.0", part)), re.escape(part)) for part in parts)


@pytest.fixture(scope="module")
def environment():
    """This Python's commands first, and simulated language models where those of OpenAI would be."""
    with serve() as base:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        yield {**os.environ, "PATH": path, "COLUMNS": "200", "OPENAI_API_KEY": "none", "OPENAI_BASE_URL": base}


def test_a_shown_line_holds_but_for_decimals_and_dots():
    line = seen("  trial 0: complete 0.613 in ...csv")
    assert re.search(line, "trial 0:   complete 0.5 in runs/a.csv")
    assert not re.search(line, "trial 1: complete 0.613 in runs/a.csv")
    assert not re.search(line, "trial 0: complete in runs/a.csv")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_does_what_it_says(page, environment, practice, tmp_path):
    told = steps(page)
    if any("m3dspy compile" in commands for commands, _ in told):
        (tmp_path / "runs").mkdir()
        (tmp_path / "runs" / "practice").symlink_to(practice)
    assert any(lines for _, lines in told)
    script = "".join(f"{commands}printf '\\036'\n" for commands, _ in told)
    done = subprocess.run(
        ["bash", "-e", "-c", script], cwd=tmp_path, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    outputs = done.stdout.split(END)
    assert done.returncode == 0, f"after {len(outputs) - 1} of {len(told)} blocks:\n{outputs[-1]}"
    for (commands, lines), output in zip(told, outputs[:-1], strict=True):
        at = 0
        for line in lines:
            match = re.compile(seen(line)).search(output, at)
            assert match, f"not seen, or not in this place: {line}\nafter:\n{commands}\nwhich printed:\n{output}"
            at = match.end()
