"""The command line: bad input is one line and an exit status; the whole job runs, resumes and predicts."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rules_server import serve

from m3dspy.m3bench import task
from m3dspy.workspace.runs import Run

ROOT = Path(__file__).resolve().parent.parent
KIDNEY = "tell kidney cysts, stones, tumours and normal kidneys apart on CT"
FEW = "few-shot anomaly detection on liver CT, 4 normal and 4 abnormal"
LUNGS = "segment both lungs and the COVID-19 infection on chest CT"


def pictures(folder, names):
    random = np.random.default_rng(0)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        noise = random.integers(0, 255, (16, 16), dtype=np.uint8)
        Image.fromarray(noise).save(folder / name)


def one_line(err):
    lines = [line for line in err.splitlines() if line.startswith("m3dspy: ")]
    assert len(lines) == 1
    assert "Traceback" not in err
    return lines[0]


# ---------------------------------------------------------------------------------------------------- bad input
def test_a_missing_folder_is_bad_usage(m3dspy):
    status, _, err = m3dspy("run", "tell a from b", "--data", "nowhere")
    assert (status, "There is no folder" in one_line(err)) == (2, True)


def test_an_empty_folder_is_named(m3dspy, tmp_path):
    (tmp_path / "empty").mkdir()
    status, _, err = m3dspy("run", "tell a from b", "--data", "empty")
    assert status == 1
    assert "empty" in one_line(err)


def test_a_folder_without_images_is_named(m3dspy, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no image")
    status, _, err = m3dspy("run", "tell a from b", "--data", "texts")
    assert status == 1
    assert "no images" in one_line(err)


def test_one_class_only_is_refused(m3dspy, tmp_path):
    pictures(tmp_path / "d", [f"cyst/{n}.png" for n in range(6)])
    status, _, err = m3dspy("run", "tell cysts from stones", "--data", "d")
    assert status == 3
    assert "class" in one_line(err)


def test_fewer_than_two_patients_a_class_is_named_with_the_class(m3dspy, tmp_path):
    pictures(tmp_path / "d", [*(f"cyst/{n}.png" for n in range(8)), "stone/0.png"])
    status, _, err = m3dspy("run", "tell cysts from stones", "--data", "d")
    assert status == 1
    assert "'stone'" in one_line(err)


def test_a_label_table_that_names_absent_files_only_is_refused(m3dspy, tmp_path):
    pictures(tmp_path / "d", [f"images/{n}.png" for n in range(6)])
    rows = [f"absent{n}.png,{'ab'[n % 2]}" for n in range(6)]
    (tmp_path / "d" / "labels.csv").write_text("\n".join(["file,label", *rows]))
    status, _, err = m3dspy("run", "tell a from b", "--data", "d")
    assert status == 3
    assert "no row of labels.csv names an image that is there" in one_line(err)


def test_an_unknown_language_model_is_answered_with_the_nearest(m3dspy, tmp_path):
    pictures(tmp_path / "d", ["a.png"])
    status, _, err = m3dspy("run", "tell a from b", "--data", "d", "--lm", "rulez")
    assert status == 2
    assert "Did you mean 'rules'?" in one_line(err)
    assert not (tmp_path / "runs").exists()


def test_an_unknown_dataset_is_answered_with_the_known(m3dspy):
    status, _, err = m3dspy("data", "make", "ADMI", "d")
    assert status == 2
    assert "'adni'" in one_line(err).lower()


def test_a_time_that_is_none_is_bad_usage(m3dspy, tmp_path):
    pictures(tmp_path / "d", ["a.png"])
    status, _, err = m3dspy("run", "tell a from b", "--data", "d", "--time", "soon")
    assert (status, "90s, 30m or 2h" in one_line(err)) == (2, True)


def test_an_unknown_run_is_answered_with_where_it_looked(m3dspy):
    status, _, err = m3dspy("resume", "yesterday")
    assert (status, "holds no runs" in one_line(err)) == (2, True)


def test_an_error_comes_as_json_too(m3dspy):
    status, out, _ = m3dspy("run", "tell a from b", "--data", "nowhere", "--json")
    assert json.loads(out)["exit"] == status == 2


def test_weights_that_are_neither_file_nor_name_are_refused_before_a_run_is_made(m3dspy, tmp_path):
    pictures(tmp_path / "d", ["good/1.png", "Ungood/1.png"])
    status, _, err = m3dspy("run", FEW, "--data", "d", "--weights", "clip.pt")
    assert (status, "There are no weights 'clip.pt'. Give the file of a CLIP" in one_line(err)) == (2, True)
    assert not (tmp_path / "runs").exists()


def test_zero_shot_is_answered_with_what_it_is_for(m3dspy):
    status, _, err = m3dspy("bench", "--zero-shot", "--tasks", "ADNI")
    assert (status, "ADNI is not for anomaly detection" in one_line(err)) == (2, True)


def test_a_budget_of_calls_ends_a_run_that_can_be_resumed(m3dspy, tmp_path):
    pictures(tmp_path / "d", [f"{kind}/{n}.png" for kind in ("cyst", "stone") for n in range(9)])
    status, _, err = m3dspy("run", "tell cysts from stones", "--data", "d", "--max-calls", 2)
    assert status == 1
    assert "budget of 2 calls" in one_line(err)
    (run,) = (tmp_path / "runs").glob("[!.]*")
    assert json.loads((run / "outcome.json").read_text())["status"] == "failed"
    assert len((run / "lm.jsonl").read_text().splitlines()) == 2


def test_a_mask_of_another_shape_is_named_before_any_training(m3dspy, tmp_path):
    task.make("COVID19", tmp_path / "d", size=task.find("COVID19").smallest)
    mask = next((tmp_path / "d" / "segmentation_masks").iterdir())
    import nibabel

    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), mask)
    status, _, err = m3dspy("run", LUNGS, "--data", "d")
    assert status == 1
    assert mask.name in err
    assert "shape" in err


def test_a_request_that_the_data_cannot_serve_exits_3_with_the_reason(m3dspy, tmp_path):
    task.make("ADNI", tmp_path / "ADNI", size=task.find("ADNI").smallest)
    status, _, err = m3dspy("run", "segment the liver in abdominal CT", "--data", "ADNI")
    assert status == 3
    assert "no masks" in one_line(err)
    (run,) = (tmp_path / "runs").glob("[!.]*")
    assert json.loads((run / "outcome.json").read_text())["status"] == "refused"
    assert not (run / "code").exists()
    status, _, err = m3dspy("predict", run, tmp_path / "ADNI", "--out", "answers")
    assert status == 2
    assert "has no model: status refused" in one_line(err)


# ---------------------------------------------------------------------------------------------------- looking
def test_data_list_names_every_dataset(m3dspy):
    status, out, _ = m3dspy("data", "list", "--json")
    assert status == 0
    assert {row["name"] for row in json.loads(out)} == {t.name for t in task.tasks()}


def test_data_look_shows_a_folder(m3dspy, tmp_path):
    pictures(tmp_path / "d", [f"{kind}/{n}.png" for kind in ("cyst", "stone") for n in range(3)])
    status, out, _ = m3dspy("data", "look", "d")
    assert status == 0
    assert "classes cyst 3, stone 3" in out


def test_doctor_never_prints_a_key(m3dspy, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    status, out, _ = m3dspy("doctor")
    assert status == 0
    assert "OPENAI_API_KEY" in out
    assert "sk-secret" not in out


def test_doctor_names_what_an_extra_lacks_and_the_command_that_installs_it(m3dspy, monkeypatch):
    from m3dspy import machine

    wanted = ["numpy>=2", "torch; extra == 'export'", "no-such-package>=1; extra == 'export'"]
    monkeypatch.setattr(machine, "requires", lambda name: wanted)
    _, out, _ = m3dspy("doctor")
    assert "m3dspy export needs no-such-package, not installed: pip install 'm3dspy[export]'" in out.splitlines()
    assert "--cluster needs" not in out


# ---------------------------------------------------------------------------------------------------- the whole job
@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run on the smallest kidney phantom, over HTTP, by the command line in a process of its own."""
    home = tmp_path_factory.mktemp("whole")
    task.make("CT-kidney", home / "kidney", size=task.find("CT-kidney").smallest)
    with serve() as base:
        words = ["run", KIDNEY, "--data", "kidney", "--trials", "1", "--lm", "openai/any", "--api-base", base, "--json"]
        done = subprocess.run([sys.executable, "-m", "m3dspy", *words], cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return home, json.loads(done.stdout)


def test_the_whole_job_ends_with_a_graded_model_and_a_report(finished):
    home, outcome = finished
    run = Path(outcome["folder"])
    assert outcome["status"] == "done"
    assert outcome["grade"]["s1"] is True
    assert outcome["phantom"] is True
    assert (outcome["trials"], outcome["contained"]) == (1, True)
    table = "predictions/predictions.csv"
    for name in ("report.html", "model/model.safetensors", table, f"control/{table}"):
        assert (run / name).is_file(), name
    assert home in run.parents


def test_no_patient_and_no_pixel_reaches_a_language_model(finished):
    _, outcome = finished
    run = Path(outcome["folder"])
    calls = [json.loads(line) for line in (run / "lm.jsonl").read_text().splitlines()]
    assert {call["role"] for call in calls} == {
        "", "task_manager", "data_engineer", "module_architect", "model_trainer",
    }  # fmt: skip
    sent = json.dumps([call["messages"] for call in calls])
    index = json.loads((run / "index.json").read_text())
    items = [item for split in ("training", "validation", "test") for item in index[split]]
    assert not [item["id"] for item in items if item["id"] in sent or item["image"] in sent]
    assert str(run.parent.parent) not in sent


def test_the_emitted_folder_trains_where_m3dspy_cannot_be_imported(finished, tmp_path):
    home, outcome = finished
    run = Path(outcome["folder"])
    code = tmp_path / "code"
    subprocess.run(["cp", "-r", run / "code", code], check=True)
    blocker = (
        "import sys; sys.modules['m3dspy'] = None; import runpy; sys.argv = sys.argv[1:]; sys.path.insert(0, '.');"
    )
    words = ["train.py", "--index", run / "index.json", "--data", home / "kidney", "--out", tmp_path / "out"]
    words += ["--set", "epochs=1"]
    line = [sys.executable, "-c", f"{blocker} runpy.run_path('train.py', run_name='__main__')", *words]
    done = subprocess.run(line, cwd=code, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "result.json").is_file()


def test_new_images_are_answered(finished, m3dspy, tmp_path):
    home, outcome = finished
    images = tmp_path / "new"
    images.mkdir()
    for number, path in enumerate(sorted((home / "kidney").rglob("*.jpg"))[:3]):
        (images / f"new{number}.jpg").write_bytes(path.read_bytes())
    status, out, err = m3dspy("predict", outcome["folder"], images, "--out", tmp_path / "answers", "--json")
    assert status == 0, err
    assert json.loads(out)["ids"] == ["new0", "new1", "new2"]
    lines = (tmp_path / "answers" / "predictions.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["id", "new0", "new1", "new2"]


def test_a_finished_run_is_not_done_again(finished, m3dspy):
    _, outcome = finished
    before = (Path(outcome["folder"]) / "events.jsonl").read_bytes()
    status, out, _ = m3dspy("resume", outcome["folder"], "--json")
    assert status == 0
    assert json.loads(out)["grade"] == outcome["grade"]
    assert (Path(outcome["folder"]) / "events.jsonl").read_bytes() == before


# ---------------------------------------------------------------------------------------------------- anomalies
@pytest.mark.soak
def test_few_shots_go_from_request_to_report(m3dspy, tmp_path):
    task.make("Liver", tmp_path / "liver", size=task.find("Liver").smallest)
    status, out, _ = m3dspy("run", f"{FEW}, as a quick try", "--data", "liver", "--trials", 0, "--json")
    outcome = json.loads(out)
    assert (status, outcome["status"], outcome["grade"]["s1"], outcome["phantom"]) == (0, "done", True, True)
    run = Path(outcome["folder"])
    warnings = [event.get("text", "") for event in Run(run).events() if event["kind"] == "warning"]
    assert any(text.startswith("The backbone is random") for text in warnings)
    for name in ("predictions", "control/predictions", "draws/1", "draws/2"):
        assert (run / name / "predictions.csv").is_file(), name
    assert len(list((run / "predictions").glob("*.png"))) == outcome["grade"]["cases"]
    assert "pixel AUROC" in outcome["grade"]["others"]
    assert not (run / "cache").exists()
    shutil.copytree(tmp_path / "liver" / "test" / "Ungood" / "img", tmp_path / "new")
    status, out, _ = m3dspy("predict", run, "new", "--out", "answers", "--json")
    assert (status, json.loads(out)["cases"]) == (0, len(list((tmp_path / "new").iterdir())))
    assert (tmp_path / "answers" / "predictions.csv").is_file()
