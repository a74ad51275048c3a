"""Malicious and malformed datasets, as `bad_datasets.py` writes them: each is refused in one line, cut down, or works.

python tests/test_hostile_data.py            prints what becomes of each case as a table in Markdown
M3DSPY_BAD_DATASETS=DIR pytest ...           tries the cases of DIR/expectations.json, too
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import bad_datasets
import dspy
import pytest

from m3dspy import job
from m3dspy.errors import DataError, M3Error
from m3dspy.programs.builder import Hands
from m3dspy.programs.lms.ledger import Ledger
from m3dspy.programs.lms.model import M3dLM
from m3dspy.programs.role import SentBack
from m3dspy.signatures.values import Request
from m3dspy.workspace import execute, private, sandbox
from m3dspy.workspace.looking import contained
from m3dspy.workspace.private import Private

FURTHER = os.environ.get("M3DSPY_BAD_DATASETS")
EXPECTED = {name: expected for name, (_, expected) in bad_datasets.CASES.items()}
MASKS = ("mask_shape", "mask_values", "json_malformed")
TOO_SMALL = "patients cannot fill training and test and validation"  # how a run ends where a look finds no fault
OF_RUN = {name: {**EXPECTED[name], "kind": "error", "names": [TOO_SMALL]} for name in ("dicom_phi", "dicom_series")}
WORDS = "classify the images as benign or malignant, a quick try"


def indexed(folder, home, text):
    """Exit status and all that a run tells, up to its index."""
    told = []
    try:
        asked = Request(text=text, data=str(folder.resolve()), trials=0)
        run = job.start(asked, home)
        run.listen = lambda event: told.append(json.dumps(event, ensure_ascii=False))
        with private.hiding(Private()) as persons, dspy.context(adapter=dspy.ChatAdapter()):
            job._look(run, asked, persons)
            builder = job._builder(run, asked)
            builder.set_lm(M3dLM("rules", Ledger()))
            builder._plan(run, Hands(), "")
            builder._index(run, Hands(), "")
    except SentBack as back:
        return 1, str(back.cause), "\n".join(told)
    except M3Error as error:
        return error.exit_status, str(error), "\n".join(told)
    return 0, "", "\n".join(told)


def judged(expected, status, said):
    """What is wrong with how a case ended; [] where it is as expected."""
    wrong = [
        f"{name!r} is not named" for name in expected["names"] if expected["kind"] != "handled" and name not in said
    ]
    wrong += [f"{word!r} appears" for word in expected["forbid"] if word in said]
    if (status != 0) != (expected["kind"] == "error"):
        wrong.append(f"exit status {status}")
    return wrong + (["a traceback"] if "Traceback" in said else [])


def of_look(name):
    """What is expected of `data look`, which asks for no labels and makes no split."""
    return {**EXPECTED[name], "kind": "skip", "names": []} if name in ("no_labels", "copies") else EXPECTED[name]


def written(name, folder):
    """A case written below `folder`."""
    if os.geteuid() == 0 and name == "unreadable" and execute.probe().bwrap is None:
        pytest.skip("root reads everything")
    bad_datasets.generate(str(folder), name)
    return folder / name


@pytest.mark.parametrize("name", EXPECTED)
def test_a_bad_dataset_is_looked_at_as_expected(name, tmp_path, m3dspy):
    folder = written(name, tmp_path)
    status, out, err = m3dspy("data", "look", folder)
    said = out + err
    assert judged(of_look(name), status, said) == []
    if status:
        assert len([line for line in err.splitlines() if line]) == 1
    assert not list(tmp_path.rglob("PWNED"))


@pytest.mark.parametrize("name", EXPECTED)
def test_a_run_on_a_bad_dataset_ends_as_expected(name, tmp_path):
    folder = written(name, tmp_path)
    text = "segment the lesion, a quick try" if name in MASKS else WORDS
    status, said, told = indexed(folder, tmp_path / "runs", text)
    assert judged(OF_RUN.get(name, EXPECTED[name]), status, said + told) == []
    assert "\n" not in said
    assert not list(tmp_path.rglob("PWNED"))


@pytest.mark.skipif(not FURTHER, reason="M3DSPY_BAD_DATASETS names no folder")
def test_further_bad_datasets_are_looked_at_as_expected(m3dspy):
    root = Path(FURTHER or "")
    expectations = json.loads((root / "expectations.json").read_text())
    ended = {name: m3dspy("data", "look", root / name) for name in expectations}
    wrong = {name: judged(expectations[name], status, out + err) for name, (status, out, err) in ended.items()}
    assert {name: found for name, found in wrong.items() if found} == {}


@pytest.mark.soak
@pytest.mark.parametrize("name", ["truncated", "duplicate_patients", "odd_names"])
def test_a_whole_run_on_a_bad_dataset_ends_with_a_report(name, tmp_path, m3dspy):
    folder = written(name, tmp_path)
    status, _, err = m3dspy("run", WORDS, "--data", folder, "--trials", 0)
    assert (status, "Traceback" in err) == (0, False)
    assert len(list((tmp_path / "runs").glob("*/report.html"))) == 1


@pytest.mark.skipif(execute.probe().bwrap is None, reason="nothing contains the parsers here")
def test_a_parser_that_crashes_is_one_line_that_names_the_file(tmp_path, monkeypatch):
    bad_datasets.put(str(tmp_path), "data/a.png", bad_datasets.png(bad_datasets.img()))
    (tmp_path / "inside").mkdir()
    crash = "import os, sys\nfrom pathlib import Path\nfrom m3dspy.workspace import sources\n" + (
        "given = dict(zip(sys.argv[1::2], sys.argv[2::2]))\n"
        "sources.keep_journal(Path(given['--out'], 'journal'))\n"
        "with sources.at_work(Path(given['--data'], 'a.png')):\n    os.kill(os.getpid(), 11)\n"
    )
    (tmp_path / "inside" / "parse.py").write_text(crash)
    monkeypatch.setattr(contained, "_CODE", tmp_path / "inside")
    with pytest.raises(DataError, match=r"signal 11.*At work: a\.png\. Remove or replace this file\.") as caught:
        contained.look(tmp_path / "data", private=Private())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("level", ["bwrap", "landlock", "none"])
def test_a_path_in_an_error_is_the_users_own_at_every_level_of_the_sandbox(level, tmp_path, monkeypatch):
    box = execute.Containment(level, execute.probe().bwrap if level == "bwrap" else None)
    if level != "none" and (why := sandbox.trial(box)):
        pytest.skip(why)
    bad_datasets.put(str(tmp_path), "real/a.png", b"no image")
    (tmp_path / "data").symlink_to(tmp_path / "real")
    monkeypatch.setattr(execute, "probe", lambda: box)
    with pytest.raises(DataError, match=f"^No image in {tmp_path}/data can be read: a\\.png ") as caught:
        contained.look(tmp_path / "data", private=Private())
    assert "/m3/" not in str(caught.value)
    assert "real" not in str(caught.value)


def main():
    """What becomes of each case, by `data look` and by a run up to its index."""
    print("| case | expected | `data look` exits | `run` exits | as expected |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        bad_datasets.generate(scratch)
        for name, expected in EXPECTED.items():
            folder = Path(scratch, name)
            command = [sys.executable, "-m", "m3dspy", "data", "look", str(folder)]
            looked = subprocess.run(command, capture_output=True, text=True, check=False)
            text = "segment the lesion, a quick try" if name in MASKS else WORDS
            status, said, told = indexed(folder, Path(scratch, "runs"), text)
            wrong = judged(of_look(name), looked.returncode, looked.stdout + looked.stderr)
            wrong += [f"run: {line}" for line in judged(OF_RUN.get(name, expected), status, said + told)]
            print(f"| {name} | {expected['kind']} | {looked.returncode} | {status} | {'; '.join(wrong) or 'yes'} |")


if __name__ == "__main__":
    main()
