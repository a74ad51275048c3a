"""Any lab's folder: every format is looked at, planned and indexed by the rules, and its own split is kept."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from lab_trees import TREES

from m3dspy.programs.lms.experts.data_engineer import write_prepare
from m3dspy.programs.lms.experts.task_manager import make_plan
from m3dspy.programs.task_manager import check_plan
from m3dspy.signatures.values import SPLITS, Index
from m3dspy.workspace import unpack
from m3dspy.workspace.indexes.checking import check_index
from m3dspy.workspace.look import look

FORMAT_OF = {  # where that is not the name of the tree; "": its files are read as they lie
    "nnunet_v1": "nnunet",
    "nnunet_regions": "nnunet",
    "decathlon": "",
    "datalist": "",
    "datalist_channels": "datalist",
    "datalist_classes": "",
    "bids_masks": "bids",
    "hugging_face_parquet": "hugging_face",
    "hugging_face_shards": "hugging_face",
    "webdataset_masks": "webdataset",
    "parquet_table": "",
    "class_folders": "",
    "csv_table": "",
    "xlsx_table": "",
    "mask_folders": "",
    "mask_folders_table": "",
    "coco_boxes": "coco",
    "coco_outlines": "coco",
    "coco_instances": "coco",
    "yolo_outlines": "yolo",
    "dicom_series": "",
    "dicom_seg": "dicom_objects",
    "dicom_labelmap": "dicom_objects",
    "rtstruct": "dicom_objects",
}
IMAGES = {"nnunet": "imagesTs", "decathlon": "imagesTr", "datalist": "scans"}  # where a tree has images to predict on
PREDICTED = {"nnunet": 3, "nnunet_v1": 12}  # cases there, where these are not all, or some have no mask


def written(name: str, folder: Path) -> tuple[int, ...]:
    return TREES[name].write(folder)


def planned(root: Path, unpacked, request: str):
    """The fingerprint, and the rules' answer."""
    fingerprint = look(root).model_copy(update={"unpacked": unpacked})
    return fingerprint, make_plan(request, fingerprint, [], "")


def indexed(root: Path, fingerprint, plan, out: Path) -> Index:
    out.mkdir()
    (out / "prepare.py").write_text(write_prepare(plan, fingerprint)["prepare"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["prepare.py", "--data", str(root), "--out", str(out)])
        runpy.run_path(str(out / "prepare.py"))
    return Index.model_validate_json((out / "index.json").read_bytes())


@pytest.mark.parametrize("name", TREES)
def test_every_format_is_planned_and_indexed_by_the_rules_with_its_own_split(name, tmp_path):
    made, (counts, tree) = tmp_path / "data", (written(name, tmp_path / "data"), TREES[name])
    before = sorted((path, path.stat().st_mtime_ns) for path in made.rglob("*"))
    with unpack.aside(made) as (root, unpacked):
        fingerprint, answer = planned(root, unpacked, tree.request)
        plan = answer["plan"]
        assert plan is not None, answer["refusal"]
        assert (unpacked.format if unpacked else "") == FORMAT_OF.get(name, name)
        assert (check_plan(plan, fingerprint, []), set(plan.labels)) == ([], set(tree.labels))
        index = indexed(root, fingerprint, plan, tmp_path / "out")
        assert check_index(index, root) == []
        assert "MRN" not in index.model_dump_json()
    found = tuple(len(index.items(split)) for split in SPLITS)
    if len(counts) == 3:
        assert found == counts
    elif len(counts) == 2 and name.startswith(("datalist", "coco")):
        assert (found[0] + found[2], found[1]) == counts
    elif len(counts) == 2:
        assert (found[0] + found[1], found[2]) == counts
    else:
        assert sum(found) == counts[0]
    items = [item for split in SPLITS for item in index.items(split)]
    assert len({item.patient for item in items}) == (tree.patients or sum(counts))
    assert sorted((path, path.stat().st_mtime_ns) for path in made.rglob("*")) == before


# ------------------------------------------------------------------------------------------------ to a graded model
@pytest.mark.soak
@pytest.mark.parametrize("name", TREES)
def test_every_format_comes_to_a_graded_model_that_predicts_on_its_like(name, m3dspy, tmp_path):
    counts = written(name, tmp_path / "data")
    status, out, err = m3dspy("run", TREES[name].request, "--data", "data", "--trials", 0, "--json")
    assert status == 0, err
    (run,) = (tmp_path / "runs").glob("[!.]*")
    grade = json.loads((run / "grade.json").read_text())
    assert grade["s1"]
    assert grade["score"]["value"] > grade["floor"]["value"]
    assert ("boxes, drawn as masks" in (run / "report.html").read_text()) == (name in ("coco_boxes", "yolo"))
    new = tmp_path / "new"
    written(name, new)
    if name in IMAGES:  # masks lie beside them
        new = next(path for path in sorted(new.rglob("*")) if path.is_dir() and path.name == IMAGES[name])
    status, out, err = m3dspy("predict", run.name, new, "--out", "answers", "--json")
    assert status == 0, err
    assert json.loads(out)["cases"] == (PREDICTED.get(name) or sum(counts))
