"""A training script sees what the index names, and nothing that tells the label of a test case."""

import json
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from m3dspy.errors import DataError
from m3dspy.signatures.values import Index, Item, Request
from m3dspy.workspace import public
from m3dspy.workspace.runs import Run


def item(id, image, label="sick", patient=None, **more):
    return Item(id=id, patient=patient or f"{label}-{id}", image=image, label=label, **more)


CLASSES = Index(
    task="classification",
    labels=("sick", "well"),
    training=(item("sick-1", "sick/1.png"), item("well-1", "well/1.png", "well")),
    validation=(item("sick-2", "sick/2.png"),),
    test=(
        *(item(f"sick-{k}", f"sick/{k}.png") for k in (3, 4, 5, 6)),
        *(item(f"well-{k}", f"well/{k}.png", "well") for k in (3, 4, 5, 6)),
    ),
)


@pytest.fixture
def make(tmp_path):
    """A run with an index; every file that the index names, and a table, lie in its dataset and hold their own name."""

    def run_of(index, more=(), root=tmp_path / "data"):
        for case in (*index.training, *index.validation, *index.test):
            images = [case.image] if isinstance(case.image, str) else case.image
            label = [case.label] if index.task == "segmentation" else []
            for path in filter(None, (*images, *label, case.mask, "labels.csv", *more)):
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_text(path)
        run = Run.create(Request(text="tell", data=str(root)), tmp_path / "runs")
        run.commit("index", index)
        return run

    return run_of


def seen(run, *, test, trusted=False):
    """What a script reads: its index, and the files of its dataset folder -> their text."""
    index, data = public.shown(run, test=test, trusted=trusted)
    files = {str(path.relative_to(data)): path.read_text() for path in sorted(data.rglob("*")) if path.is_file()}
    return Index.model_validate_json(index.read_bytes()), files


def test_test_cases_lose_their_names_their_folders_and_their_order(make):
    index, files = seen(make(CLASSES), test=True)
    assert (index.training, index.validation) == (CLASSES.training, CLASSES.validation)
    assert [case.model_dump() for case in index.test] == [
        {"id": name, "patient": name, "image": f"test/{name}.png", "label": None}
        for name in (f"test-00000{k}" for k in range(8))
    ]
    shown = [files[str(case.image)] for case in index.test]
    assert sorted(shown) == sorted(str(case.image) for case in CLASSES.test)
    assert shown != [case.image for case in CLASSES.test]
    assert set(files) - {case.image for case in index.test} == {"sick/1.png", "sick/2.png", "well/1.png"}


def test_the_order_depends_on_more_than_what_the_script_is_shown(make):
    """Two indexes that a script cannot tell apart but for the images: their cases are numbered differently."""
    other = CLASSES.model_copy(update={"test": CLASSES.test[::-1]})
    assert [case.id for case in public.opaque(CLASSES).values()] != [case.id for case in public.opaque(other).values()]
    assert public.opaque(CLASSES) == public.opaque(CLASSES.model_copy())


def test_tuning_sees_no_test_case(make):
    index, files = seen(make(CLASSES), test=False)
    assert index.test == ()
    assert set(files) == {"sick/1.png", "sick/2.png", "well/1.png"}


def test_masks_of_test_cases_are_not_there_and_slices_keep_their_order(make):
    cases = [item(f"c{k}", tuple(f"ct/c{k}/{s}.dcm" for s in (9, 10, 11)), f"seg/c{k}.nii.gz") for k in range(4)]
    index = Index(task="segmentation", labels=("a",), values=(1,), training=tuple(cases[:2]), test=tuple(cases[2:]))
    shown, files = seen(make(index), test=True)
    assert {path for path in files if path.startswith("seg")} == {"seg/c0.nii.gz", "seg/c1.nii.gz"}
    for case in shown.test:
        assert case.image == tuple(f"test/{case.id}/000{k}.dcm" for k in (1, 2, 3))
        assert [files[path].rpartition("/")[2] for path in case.image] == ["9.dcm", "10.dcm", "11.dcm"]


def test_the_masks_of_abnormal_training_images_are_there_and_those_of_test_images_are_not(make):
    cases = [item(f"c{k}", f"c{k}.png", "abnormal", mask=f"gt/c{k}.png") for k in range(4)]
    index = Index(task="anomaly_detection", labels=("normal", "abnormal"), training=(*cases[:2],), test=(*cases[2:],))
    shown, files = seen(make(index), test=True)
    assert [path for path in files if path.startswith("gt/")] == ["gt/c0.png", "gt/c1.png"]
    assert [case.mask for case in shown.test] == [None, None]


def test_a_dataset_with_a_folder_called_test_keeps_it(make):
    index = CLASSES.model_copy(update={"training": (item("a", "Test/test-000000.png"),)})
    shown, files = seen(make(index), test=True)
    assert files["Test/test-000000.png"] == "Test/test-000000.png"
    assert {str(case.image).partition("/")[0] for case in shown.test} == {"test_"}


def test_the_other_half_of_an_image_comes_along_and_odd_endings_tell_nothing(make):
    index = CLASSES.model_copy(
        update={"training": (item("a", "a.img"),), "test": (item("b", "sick.b.IMG"), item("c", "c.sick"))}
    )
    _, files = seen(make(index, more=("a.hdr", "sick.b.HDR", "sick.b.txt")), test=True)
    kept = sorted(path for path in files if path.startswith("test/"))
    numbers = {case.id: name for name, case in public.opaque(index).items()}
    assert kept == sorted([f"test/{numbers['b']}.img", f"test/{numbers['b']}.HDR", f"test/{numbers['c']}"])
    assert {"a.img", "a.hdr"} <= set(files)


def test_files_are_links_that_cost_no_space_and_are_made_once(make):
    run = make(CLASSES)
    _, data = public.shown(run, test=True, trusted=False)
    root = run.load("request", Request).data
    assert (data / "sick" / "1.png").samefile(f"{root}/sick/1.png")
    before = data.stat().st_ino
    assert public.shown(run, test=True, trusted=False)[1].stat().st_ino == before
    public.forget(run)
    assert not data.exists()
    assert sorted(path.name for path in Path(root, "sick").iterdir()) == [f"{k}.png" for k in range(1, 7)]


def test_another_index_has_another_view(make):
    run = make(CLASSES)
    public.shown(run, test=True, trusted=False)
    run.commit("index", CLASSES.model_copy(update={"test": CLASSES.test[:2]}))
    assert sum(path.startswith("test/") for path in seen(run, test=True)[1]) == 2
    assert len(list((run.folder / public.FOLDER).iterdir())) == 1


def test_what_a_crash_left_half_made_is_made_anew(make):
    run = make(CLASSES)
    stray = run.attempt(public.FOLDER) / "all" / "stray.png"
    stray.parent.mkdir()
    stray.touch()
    assert "stray.png" not in seen(run, test=True)[1]


def test_several_trials_at_once_share_one_view(make):
    run, found = make(CLASSES), []
    threads = [threading.Thread(target=lambda: found.append(seen(run, test=False)[1])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [found[0]] * 8


# ------------------------------------------------------------------------------------------------ without links
@pytest.fixture
def elsewhere(tmp_path):
    """A folder on another disk than the runs, so that no file can be linked."""
    if not Path("/dev/shm").is_dir() or Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second disk here")
    with TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def swollen(root):
    """A file of the dataset grows to more than the disk of the runs has."""
    with (root / "sick" / "1.png").open("r+b") as file:
        file.truncate(1 << 50)


def test_where_files_cannot_be_linked_they_are_copied(make, elsewhere):
    run = make(CLASSES, root=elsewhere)
    index, files = seen(run, test=True)
    _, data = public.shown(run, test=True, trusted=False)
    assert len(files) == 11
    assert index.test[0].image == "test/test-000000.png"
    assert not (data / "sick" / "1.png").samefile(elsewhere / "sick" / "1.png")
    assert (data / "sick" / "1.png").samefile(data.parent / "tuning" / "sick" / "1.png")  # one copy is enough


def test_without_room_a_script_of_a_language_model_is_not_run(make, elsewhere):
    run = make(CLASSES, root=elsewhere)
    swollen(elsewhere)
    with pytest.raises(
        DataError, match=r"copies take 1125899\.9 GB, more than half .* Put the runs on the disk of the"
    ):
        public.shown(run, test=True, trusted=False)
    assert not (run.folder / public.FOLDER).exists()
    assert not (run.folder / "attempts" / public.FOLDER).exists()


def test_without_room_our_own_script_is_given_the_dataset_as_it_lies_and_that_is_said(make, elsewhere):
    run = make(CLASSES, root=elsewhere)
    swollen(elsewhere)
    path, data = public.shown(run, test=True, trusted=True)
    index = Index.model_validate_json(path.read_bytes())
    assert data == elsewhere
    assert (index.test[0].label, index.test[0].id) == (None, "test-000000")
    assert {str(case.image) for case in index.test} == {str(case.image) for case in CLASSES.test}
    (warning,) = [event["text"] for event in run.events()]
    assert warning.startswith("Our own script is given the dataset as it lies: copies take")


def test_a_file_that_is_gone_is_named(make):
    run = make(CLASSES)
    Path(run.load("request", Request).data, "well", "1.png").unlink()
    with pytest.raises(DataError, match=r"data/well/1\.png is in the index, and is no longer there"):
        public.shown(run, test=False, trusted=True)


# ------------------------------------------------------------------------------------------------ answers
def answer(run, files):
    left = run.attempt("final") / "predictions"
    for name, text in files.items():
        (left / name).parent.mkdir(parents=True, exist_ok=True)
        (left / name).write_text(text)
    return left


def test_answers_get_the_names_of_their_cases_back(make):
    run, names = make(CLASSES), {case.id: name for name, case in public.opaque(CLASSES).items()}
    rows = [f"{name},sick,1,0" for name in sorted(names.values())]
    maps = {f"{name}.png": case for case, name in names.items()}
    below = {f"bank/{name}": text for name, text in maps.items()}
    left = answer(run, {"predictions.csv": "\n".join(["id,label,sick,well", *rows]), **maps, **below, "notes.txt": "x"})
    named = public.named_answers(run, "final")
    table = (named / "predictions.csv").read_text().splitlines()
    assert table == ["id,label,sick,well", *(f"{case.id},sick,1,0" for case in CLASSES.test)]
    for folder in ("", "bank/"):
        assert all((named / f"{folder}{case.id}.png").read_text() == case.id for case in CLASSES.test)
    assert len([path for path in named.rglob("*") if path.is_file()]) == 17
    assert (named / "sick-3.png").stat().st_nlink == 1  # a crash before the rest is removed leaves nothing odd
    assert left.is_dir()


def test_rows_and_files_of_no_test_case_are_left_behind(make):
    run = make(CLASSES)
    answer(run, {"predictions.csv": "id,label\nsick-3,sick\ntest-000099,sick\ntest-000000,well\n", "sick-3.png": "x"})
    named = public.named_answers(run, "final")
    first = public.opaque(CLASSES)["test-000000"].id
    assert {path.name: path.read_text() for path in named.iterdir()} == {"predictions.csv": f"id,label\n{first},well\n"}


@pytest.mark.parametrize("table", [b"", b"\xff\xfe", b'"' + b"x" * 200_000 + b'"\n', b"\0"])
def test_a_table_that_is_none_answers_no_case(make, table):
    run = make(CLASSES)
    (answer(run, {"notes.txt": ""}) / "predictions.csv").write_bytes(table)
    named = public.named_answers(run, "final")
    assert not [line for path in named.iterdir() for line in path.read_text().splitlines()[1:]]


def test_a_link_among_the_answers_is_refused(make):
    run = make(CLASSES)
    (answer(run, {"predictions.csv": "id"}) / "test-000000.png").symlink_to("/etc/passwd")
    with pytest.raises(DataError, match=r"predictions/test-000000\.png, which is a link"):
        public.named_answers(run, "final")


def test_no_answers_at_all_are_said_to_be_none(make):
    run = make(CLASSES)
    run.attempt("final")
    with pytest.raises(DataError, match=r"The script left no folder .*predictions"):
        public.named_answers(run, "final")


def test_the_public_index_holds_no_name_of_a_test_case(make):
    run = make(CLASSES)
    text = public.shown(run, test=True, trusted=False)[0].read_text()
    told = json.loads(text)["test"]
    assert not [word for case in CLASSES.test for word in (case.id, case.patient, case.image) if word in str(told)]


# ------------------------------------------------------------------------------------------------ reports
REPORTS = Index(
    task="report_generation",
    labels=(),
    training=(item("r1", "1.png", None, "p1", findings="A nodule.", impression="Nodule."),),
    test=tuple(item(f"r{k}", f"{k}.png", None, f"p{k}", findings=f"Secret {k}.") for k in (2, 3)),
)


def test_a_script_never_sees_the_reports_of_test_cases(make):
    run = make(REPORTS)
    index, _ = seen(run, test=True)
    assert index.training == REPORTS.training
    assert "Secret" not in index.model_dump_json()


def test_reports_get_the_cases_own_ids_back_and_no_others_are_taken(make):
    run = make(REPORTS)
    own = {name: case.id for name, case in public.opaque(REPORTS).items()}
    said = {name: {"findings": f"Of {case}.", "impression": ""} for name, case in own.items()}
    extra = {"test-000099": {"findings": "x", "impression": ""}, "r2": {"findings": "y", "impression": ""}}
    answer(run, {"reports.json": json.dumps(dict(reversed((extra | said).items())))})
    named = public.named_answers(run, "final")
    assert json.loads((named / "reports.json").read_text()) == {
        name: {"findings": f"Of {name}.", "impression": ""} for name in ("r2", "r3")
    }


@pytest.mark.parametrize("text", ["not JSON", "[1]", '{"a": NaN}', "[" * 99])
def test_reports_that_are_none_are_not_taken(text, make):
    run = make(REPORTS)
    answer(run, {"reports.json": text})
    assert list(public.named_answers(run, "final").iterdir()) == []
