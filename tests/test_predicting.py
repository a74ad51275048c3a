"""A finished model on new images: every case told of, killed and gone on with, DICOM in and out."""

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
from lab_trees import TREES
from trained_runs import SEGMENT, finished, nifti, series

from m3dspy import job
from m3dspy.errors import DataError, M3Error, UsageError
from m3dspy.signatures.values import Index, Item
from m3dspy.workspace import emit, predicting, training
from m3dspy.workspace.runs import Run
from m3dspy.workspace.sources import dicom


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory) -> Run:
    return finished(tmp_path_factory.mktemp("segmenter"), SEGMENT, width=4)


def told(run: Run) -> list[dict]:
    """What the run says from now on."""
    said = []
    run.listen = said.append
    return said


def pictures(folder: Path, numbers) -> Path:
    folder.mkdir(exist_ok=True)
    for number in numbers:
        nifti(folder / f"new{number}.nii.gz", number)
    return folder


SLOWLY = (
    "import time\nimport harness\nbefore = harness.append\nharness.append = lambda *of: (before(*of), time.sleep(1))\n"
)


# ------------------------------------------------------------------------------------------------ case by case
@pytest.mark.slow
def test_cases_that_cannot_be_answered_are_named_and_the_others_are_kept(segmenter, m3dspy, tmp_path):
    images = pictures(tmp_path / "new", [0, 1])
    for name in ("bad1.nii.gz", "bad2.nii.gz"):
        (images / name).write_bytes(b"no image")
    status, out, err = m3dspy("predict", segmenter.folder, images, "--out", "answers", "--json")
    assert status == 1
    said = json.loads(out)["error"]
    assert said.startswith("2 of 4 cases could not be answered: bad1 (bad1.nii.gz: cannot be read: ")
    assert "bad2 (" in said and "the others are in answers." in said
    assert len(err.strip().splitlines()) == 1
    answers = tmp_path / "answers"
    assert {path.name for path in answers.iterdir()} == {"new0.nii.gz", "new1.nii.gz", "answered.jsonl"}
    for name in ("new0.nii.gz", "new1.nii.gz"):  # the second is stored left, posterior, superior
        image, mask = nibabel.load(images / name), nibabel.load(answers / name)
        assert mask.shape == image.shape
        assert np.array_equal(mask.affine, image.affine)


@pytest.mark.slow
def test_a_killed_prediction_goes_on_behind_its_last_answer(segmenter, tmp_path):
    images, out = pictures(tmp_path / "new", range(5)), tmp_path / "answers"
    script = segmenter.folder / "code" / "train.py"
    swift = script.read_text()
    script.write_text(swift.replace("\nfrom harness import", f"\n{SLOWLY}from harness import", 1))
    words = ["predict", segmenter.folder, images, "--out", out]
    process = subprocess.Popen([sys.executable, "-m", "m3dspy", *map(str, words)])
    journal, deadline = out / ".unfinished/answered.jsonl", time.monotonic() + 300
    try:
        while not (journal.is_file() and len(journal.read_bytes().splitlines()) >= 3):  # the model, and two cases
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait(60)
        script.write_text(swift)
    said = told(segmenter)
    assert 1 <= job.predict(segmenter, images, out)["new"] <= 3
    cases = [(event["number"], event["of"]) for event in said if event["kind"] == "case"]
    assert cases == [(number, 5) for number in range(6 - len(cases), 6)] and len(cases) <= 3
    assert {path.name for path in out.iterdir()} == {"answered.jsonl", *(f"new{k}.nii.gz" for k in range(5))}


# ------------------------------------------------------------------------------------------------ in the script
@pytest.fixture
def harness(monkeypatch):
    """The module that lies beside every script."""
    monkeypatch.syspath_prepend(str(Path(emit.__file__).parent / "templates"))
    return importlib.import_module("harness")


def cases(root: Path, *names: str) -> list[dict]:
    root.mkdir(exist_ok=True)
    for name in names:
        if not (root / name).exists():
            (root / name).write_text(name)
    return [{"id": name, "image": name} for name in names]


def begun(harness, folder: Path, model: str = "weights") -> Path:
    """A folder in which a prediction by this model has begun."""
    kept = folder.parent / f"model-{model}"
    kept.mkdir(exist_ok=True)
    for name in ("model.safetensors", "settings.json"):
        (kept / name).write_text(model)
    harness.begin_journal(folder, kept)
    return folder


def test_only_cases_that_are_new_or_changed_are_answered_again(harness, tmp_path, capsys):
    root, folder, asked = tmp_path / "data", begun(harness, tmp_path / "out"), []

    def answers(*names: str) -> dict:
        asked.clear()
        return harness.answered(
            cases(root, *names), root, begun(harness, folder), lambda item: asked.append(item["id"]) or len(asked)
        ).rows

    assert answers("a", "b") == {"a": 1, "b": 2}
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"case": "a", "number": 1, "of": 2}, {"case": "b", "number": 2, "of": 2},
    ]  # fmt: skip
    (root / "b").write_text("another image")
    assert list(answers("a", "b", "c").items()) == [("a", 1), ("b", 1), ("c", 2)]
    assert asked == ["b", "c"]
    assert answers("c") == {"c": 2} and asked == []


def test_a_line_that_a_crash_tore_is_answered_again(harness, tmp_path):
    folder, asked = begun(harness, tmp_path / "out"), []
    items = cases(tmp_path / "data", "a", "b")
    harness.answered(items, tmp_path / "data", folder, lambda item: "yes")
    journal = folder / "answered.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-9])
    harness.answered(items, tmp_path / "data", begun(harness, folder), lambda item: asked.append(item["id"]) or "yes")
    assert asked == ["b"]
    assert journal.read_bytes() == whole


def test_a_case_that_fails_is_tried_again_and_costs_no_other(harness, tmp_path, capsys):
    folder, items, broken = begun(harness, tmp_path / "out"), cases(tmp_path / "data", "a", "b"), ["a"]

    def answer(item: dict) -> str:
        if item["id"] in broken:
            raise harness.Problem("it is torn")
        return "yes"

    found = harness.answered(items, tmp_path / "data", folder, answer)
    assert (found.failed, found.rows) == (["a"], {"b": "yes"})
    assert json.loads(capsys.readouterr().out.splitlines()[0]) == {
        "case": "a",
        "number": 1,
        "of": 2,
        "failed": "it is torn",
    }
    broken.clear()
    assert harness.answered(items, tmp_path / "data", folder, answer).rows == {"a": "yes", "b": "yes"}


def test_where_no_prediction_has_begun_nothing_is_kept_and_nothing_said(harness, tmp_path, capsys):
    found = harness.answered(cases(tmp_path / "data", "a"), tmp_path / "data", tmp_path / "out", lambda item: 1)
    assert found.rows == {"a": 1}
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "out").exists()


def test_answers_of_another_model_are_not_mixed(harness, tmp_path):
    folder = begun(harness, tmp_path / "out")
    with pytest.raises(harness.Problem, match=r"^out holds answers of another model: give a new folder with --out$"):
        begun(harness, folder, "others")


# ------------------------------------------------------------------------------------------------ the folder
def test_a_folder_of_other_things_is_left_alone(segmenter, tmp_path):
    images = pictures(tmp_path / "new", [0])
    with pytest.raises(UsageError, match=r"new is there, and holds other things than predictions"):
        predicting.check_out(images, tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"lies in the folder of images, to which nothing is written"):
        job.predict(segmenter, images, images / "answers")
    assert [path.name for path in images.iterdir()] == ["new0.nii.gz"]


# ------------------------------------------------------------------------------------------------ DICOM
def test_dicom_is_answered_series_by_series(tmp_path):
    series(tmp_path / "scans" / "a", 0)
    series(tmp_path / "scans" / "b", 1)
    for path in (tmp_path / "scans" / "b").iterdir():
        path.rename(tmp_path / "scans" / "a" / f"b-{path.name}")  # two series in one folder
    scout = pydicom.dcmread(next((tmp_path / "scans" / "a").iterdir()))
    scout.SeriesInstanceUID = "1.2.3"
    scout.save_as(tmp_path / "scans" / "scout.dcm")
    nifti(tmp_path / "scans" / "c.nii.gz", 2)
    lines = []
    root, items = predicting.cases(tmp_path / "scans", 3, False, lines.append)
    assert [(item.id, 1 if isinstance(item.image, str) else len(item.image)) for item in items] == [
        ("a", 18), ("a-2", 19), ("c", 1),
    ]  # fmt: skip
    heights = [pydicom.dcmread(root / path).ImagePositionPatient[2] for path in items[0].image]
    assert heights == sorted(heights)
    assert lines == ["left out: scout.dcm: a single picture, and the model reads volumes"]
    with pytest.raises(DataError, match=r"are single pictures, and the model reads volumes"):
        predicting.cases(tmp_path / "scans" / "scout.dcm", 3, False, lines.append)


@pytest.mark.slow
def test_a_mask_comes_back_as_dicom_seg_that_refers_to_its_series(segmenter, tmp_path):
    for name, number in (("jane", 0), ("poor", 1)):
        series(tmp_path / "scans" / name, number)
    for path in (tmp_path / "scans" / "poor").iterdir():
        poor = pydicom.dcmread(path)
        del poor.StudyInstanceUID
        poor.save_as(path)
    answers = tmp_path / "answers"
    with pytest.raises(
        M3Error, match=r"No DICOM-SEG could be written of poor \(.*StudyInstanceUID.*; the masks are in"
    ):
        job.predict(segmenter, tmp_path / "scans", answers, dicom_seg=True)
    left = {path.name for path in answers.iterdir()}
    assert left == {"answered.jsonl", "poor.nii.gz", "jane.nii.gz", "jane.dcm"}

    made, mask = highdicom.seg.segread(answers / "jane.dcm"), nibabel.load(answers / "jane.nii.gz")
    voxels = np.asarray(mask.dataobj)
    assert set(np.unique(voxels)) == {0, 1, 2}
    slices = [pydicom.dcmread(path) for path in (tmp_path / "scans" / "jane").iterdir()]
    slices.sort(key=lambda one: one.ImagePositionPatient[2])
    uids = [one.SOPInstanceUID for one in slices]
    for number, (value, label) in enumerate([(1, "ball"), (2, "cube")], start=1):
        told = made.get_segment_description(number)
        assert told.segment_label == label
        assert told.algorithm_identification.name.startswith("m3dspy ")
        assert segmenter.id[:20] in told.algorithm_identification.name
        shown = made.get_pixels_by_source_instance(uids, [number], assert_missing_frames_are_empty=True)[..., 0]
        assert np.array_equal(shown, (voxels == value).transpose(2, 1, 0))
    for name in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert made[name].value == slices[0][name].value
    assert made.ContentDescription == "Research use only; not for diagnosis"
    assert np.allclose(mask.affine @ [0, 0, 0, 1], [10, 20, 30, 1])  # the first voxel, in RAS+

    root, items = predicting.cases(tmp_path / "scans", 3, False, print)
    assert predicting.write_dicom_seg(segmenter, items[:1], root, answers, set()) == []  # it is there


def test_an_empty_mask_and_a_multi_frame_source_can_be_dicom_seg(segmenter, tmp_path):
    from highdicom.legacy import LegacyConvertedEnhancedCTImage
    from pydicom.uid import generate_uid

    series(tmp_path / "single", 0)
    files = [pydicom.dcmread(path) for path in sorted((tmp_path / "single").iterdir())]
    (tmp_path / "scans").mkdir()
    LegacyConvertedEnhancedCTImage(files, generate_uid(), 2, generate_uid(), 1).save_as(tmp_path / "scans/enhanced.dcm")
    _, items = predicting.cases(tmp_path / "scans", 3, False, print)
    assert items[0].image == "enhanced.dcm"
    out = tmp_path / "answers"
    for shown in (False, True):
        out.mkdir(exist_ok=True)
        mask = np.zeros((24, 20, 18), np.uint8)
        mask[3:5, 6:9, 2] = shown
        nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), out / "enhanced.nii.gz")
        assert predicting.write_dicom_seg(segmenter, items, tmp_path / "scans", out, {"enhanced"}) == ["enhanced.dcm"]
        made = highdicom.seg.segread(out / "enhanced.dcm")
        order = [frame + 1 for _, frame in dicom.slices([tmp_path / "scans/enhanced.dcm"])]
        pixels = made.get_pixels_by_source_frame(
            made.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID, order,
            segment_numbers=[1], assert_missing_frames_are_empty=True,
        )[..., 0]  # fmt: skip
        assert np.array_equal(pixels, mask.transpose(2, 1, 0))


def test_how_new_images_were_unpacked_is_told(segmenter, tmp_path, monkeypatch):
    TREES["datalist_channels"].write(tmp_path / "new")
    monkeypatch.setattr(training, "predict", lambda *of, **how: None)
    said = told(segmenter)
    assert job.predict(segmenter, tmp_path / "new", tmp_path / "answers")["cases"] == 10
    assert [event["text"] for event in said if event["kind"] == "warning"] == [
        "The 2 files of each case are the channels of one image."
    ]


def test_what_cannot_be_dicom_seg_is_said_before_anything_is_done(segmenter, tmp_path, monkeypatch):
    images, index = pictures(tmp_path / "new", [0]), segmenter.load("index", Index)
    with pytest.raises(UsageError, match=r"refers to the slices of a DICOM series, and case new0 is none\."):
        job.predict(segmenter, images, tmp_path / "answers", dicom_seg=True)
    assert not (tmp_path / "answers").exists()
    reports = index.model_copy(update={"task": "report_generation"})
    with pytest.raises(UsageError, match=r"--dicom-seg is for segmentation, this run's task is report_generation\."):
        predicting.check_dicom_seg(reports, 3, [], images)
    monkeypatch.setattr(predicting, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"--dicom-seg needs highdicom: pip install 'm3dspy\[export\]'"):
        predicting.check_dicom_seg(index, 3, [], images)


# ------------------------------------------------------------------------------------------------ what a script left
def test_links_that_a_script_left_do_not_reach_the_answers(segmenter, tmp_path):
    script = segmenter.folder / "code" / "train.py"
    before = script.read_text()
    script.write_text(
        "import os, sys\nos.symlink('/etc/passwd', sys.argv[sys.argv.index('--out') + 1] + '/predictions.csv')"
    )
    items = [Item(id="a", patient="a", image="image0.nii.gz")]
    try:
        with pytest.raises(DataError, match=r"predictions\.csv, which is a link\. Only plain files count\."):
            training.predict(segmenter, items, tmp_path, tmp_path / "answers", trusted=True, unsafe=False)
    finally:
        script.write_text(before)
    assert not (tmp_path / "answers").exists()
