"""A dataset of the Hugging Face Hub as files. There is no network here: a local copy is streamed in its place."""

import io

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as Picture
from PIL import Image
from pyarrow import parquet

from m3dspy.errors import DataError, UsageError
from m3dspy.workspace import hub, unpack

COUNTS = {"train": 100, "test": 12}
FEATURES = Features({"image": Picture(), "label": ClassLabel(names=["plain", "bright"]), "age": Value("int64")})


def png(number):
    data = io.BytesIO()
    Image.fromarray(np.full((8, 8), number, np.uint8)).save(data, "png")
    return data.getvalue()


@pytest.fixture
def copy(tmp_path):
    """A dataset as it lies in its repository on the hub."""
    for split, count in COUNTS.items():
        rows = [{"image": {"bytes": png(n), "path": None}, "label": n % 2, "age": 40 + n} for n in range(count)]
        path = tmp_path / "copy" / "data" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        Dataset.from_list(rows, features=FEATURES).to_parquet(path)
    return tmp_path / "copy"


def test_pictures_come_as_they_are_stored_and_classes_keep_their_names(copy, tmp_path):
    assert hub.pull(str(copy), tmp_path / "pulled") == COUNTS
    with unpack.aside(tmp_path / "pulled") as (root, how):
        assert how.format == "hugging_face"
        (table,), pictures = list(root.rglob("*.csv")), list(root.rglob("*.png"))
        rows = table.read_text().splitlines()
        assert len(rows) - 1 == len(pictures) == sum(COUNTS.values())
        assert any(",plain," in row for row in rows) and any(",bright," in row for row in rows)
        assert {path.read_bytes() for path in pictures} == {png(n) for n in range(100)}


def test_so_many_of_the_first_rows_of_each_split(copy, tmp_path):
    assert hub.pull(str(copy), tmp_path / "pulled", limit=5) == {"train": 5, "test": 5}
    rows = parquet.read_table(tmp_path / "pulled" / "test-00000-of-00001.parquet").to_pylist()
    assert [row["age"] for row in rows] == [40, 41, 42, 43, 44]
    with pytest.raises(UsageError, match=r'is of another pull: .*"limit": 5\}\. Give a new folder\.'):
        hub.pull(str(copy), tmp_path / "pulled")


def test_a_stream_that_ends_early_leaves_no_split_behind_and_whole_ones_are_not_fetched_again(
    copy, tmp_path, monkeypatch
):
    rows, fetched = hub._rows, []

    def broken(stream, pictures):
        for number, row in enumerate(rows(stream, pictures)):
            if len(fetched) >= COUNTS["train"] + 3:
                raise DataError("The stream ended early: no route.")
            fetched.append(number)
            yield row

    monkeypatch.setattr(hub, "_rows", broken)
    with pytest.raises(DataError, match="ended early"):
        hub.pull(str(copy), tmp_path / "pulled")
    assert [path.name for path in (tmp_path / "pulled").glob("*.parquet")] == ["train-00000-of-00001.parquet"]
    monkeypatch.setattr(hub, "_rows", rows)
    before = (tmp_path / "pulled" / "train-00000-of-00001.parquet").stat().st_mtime_ns
    assert hub.pull(str(copy), tmp_path / "pulled") == COUNTS
    assert (tmp_path / "pulled" / "train-00000-of-00001.parquet").stat().st_mtime_ns == before
    assert not list((tmp_path / "pulled").glob("*.tmp"))


def test_a_folder_of_pictures_is_pulled_with_its_classes(tmp_path):
    for label in ("cyst", "stone"):
        for number in range(3):
            path = tmp_path / "copy" / "train" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(number))
    assert hub.pull(str(tmp_path / "copy"), tmp_path / "pulled") == {"train": 6}
    rows = parquet.read_table(tmp_path / "pulled" / "train-00000-of-00001.parquet").to_pylist()
    assert [row["image"]["bytes"] for row in rows] == [png(number) for number in (0, 1, 2)] * 2


def test_what_cannot_be_had_or_holds_no_pictures_is_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"^The dataset nobody/nothing cannot be had: .* HF_TOKEN"):
        hub.pull("nobody/nothing", tmp_path / "pulled")
    (tmp_path / "copy").mkdir()
    Dataset.from_list([{"text": "no picture"}]).to_parquet(tmp_path / "copy" / "train.parquet")
    with pytest.raises(DataError, match=r"copy holds no pictures: its columns are text\."):
        hub.pull(str(tmp_path / "copy"), tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()
