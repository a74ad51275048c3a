"""Real downloads, made up file by file: found, verified, linked, and told apart from what is not whole."""

import hashlib
from dataclasses import replace

import pytest
from real_trees import TREES

from m3dspy.errors import DataError
from m3dspy.m3bench import fetch as fetching
from m3dspy.m3bench.fetch import fetch, real
from m3dspy.m3bench.task import Part, find, make

TASK = replace(
    find("COVID19"),
    layout=(Part("images/*.nii.gz", 3), Part("segmentation_masks/*.nii.gz", 3), Part("labels.json")),
    access="Download it from zenodo.org/records/3757476.",
    arrange=None,
)


@pytest.fixture
def download(tmp_path):
    folder = tmp_path / "download" / "COVID-19-CT-Seg_20cases"
    for name in ("coronacases_001", "coronacases_002", "radiopaedia_4_85506_1"):
        for part in ("images", "segmentation_masks"):
            (folder / part).mkdir(parents=True, exist_ok=True)
            (folder / part / f"{name}.nii.gz").write_bytes(f"{part} {name}".encode())
    (folder / "labels.json").write_text("{}")
    (folder / "images" / "._coronacases_001.nii.gz").write_bytes(b"left by macOS")
    (folder / "__MACOSX" / "images").mkdir(parents=True)
    (folder / "__MACOSX" / "images" / "coronacases_001.nii.gz").write_bytes(b"the same")
    return folder


def test_a_whole_download_is_linked_without_what_archivers_left(download, tmp_path):
    found = fetch(TASK, download.parent, tmp_path / "real")  # one folder above the dataset
    assert (found.found, found.files, found.known) == (download, 7, 0)
    names = sorted(
        path.relative_to(tmp_path / "real/COVID19").as_posix() for path in (tmp_path / "real/COVID19").rglob("*.*")
    )
    assert names == [
        "images/coronacases_001.nii.gz",
        "images/coronacases_002.nii.gz",
        "images/radiopaedia_4_85506_1.nii.gz",
        "labels.json",
        "segmentation_masks/coronacases_001.nii.gz",
        "segmentation_masks/coronacases_002.nii.gz",
        "segmentation_masks/radiopaedia_4_85506_1.nii.gz",
    ]
    assert (tmp_path / "real/COVID19/labels.json").samefile(download / "labels.json")
    digest = hashlib.sha256(b"{}").hexdigest()
    assert f"{digest}  labels.json\n" in (tmp_path / "real/COVID19.sha256").read_text()


def test_without_a_root_nothing_is_written(download, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    assert fetch(TASK, download).folder is None
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_missing_is_named_with_the_way_to_get_it(download, tmp_path):
    (download / "labels.json").unlink()
    (download / "images" / "coronacases_002.nii.gz").unlink()
    with pytest.raises(DataError) as told:
        fetch(TASK, download, tmp_path / "real")
    assert "images/*.nii.gz: 2 of 3 files; nothing is called labels.json. Download it from zenodo" in str(told.value)
    assert not (tmp_path / "real").exists()


def test_a_phantom_is_no_download(tmp_path):
    make("ADNI", tmp_path / "ADNI", size=find("ADNI").smallest)
    with pytest.raises(DataError, match=r"ADNI is a phantom, no download of ADNI\. Apply at adni"):
        fetch(find("ADNI"), tmp_path / "ADNI")


def test_what_has_to_be_arranged_first_is_not_read_as_it_is(tmp_path):
    TREES["COVID19"](tmp_path / "root/COVID19")
    with pytest.raises(DataError, match=r"arranged first: `m3dspy data fetch COVID19 --from .*root/COVID19 --to"):
        real(tmp_path / "root", [find("COVID19")])


def test_more_than_was_published_is_noted(download):
    (download / "images" / "mine.nii.gz").write_bytes(b"")
    assert fetch(TASK, download).notes == ("images/*.nii.gz: 4 files where 3 are published",)


def test_an_absent_folder_is_told_how_to_be_filled(tmp_path):
    with pytest.raises(DataError, match=r"There is no folder .*nowhere\. Download it from zenodo"):
        fetch(TASK, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("MD5SUMS", "{md5}  ./labels.json\n"),
        ("sha256sum.txt", "# made by hand\n{sha256} *labels.json\n"),
        ("labels.json.md5", "{md5}\n"),
        ("CHECKSUM.SHA1", "SHA1 (labels.json) = {sha1}\n"),
    ],
)
def test_checksums_that_came_along_are_believed(download, name, line):
    digests = {kind: hashlib.new(kind, b"{}").hexdigest() for kind in ("md5", "sha1", "sha256")}
    (download / name).write_text(line.format(**digests) + f"{'0' * 32}  unpacked_and_removed.zip\n")
    assert fetch(TASK, download).checked == 1
    (download / "labels.json").write_text("{ }")
    with pytest.raises(DataError, match=r"labels\.json is broken"):
        fetch(TASK, download)


def test_a_file_that_changed_since_the_first_fetch_is_named(download, tmp_path):
    fetch(TASK, download, tmp_path / "real")
    assert fetch(TASK, download, tmp_path / "real").known == 7
    changed = tmp_path / "real/COVID19/images/coronacases_001.nii.gz"
    changed.unlink()
    changed.write_bytes(b"other voxels")
    with pytest.raises(DataError, match=r"images/coronacases_001\.nii\.gz is not what .*COVID19\.sha256 says"):
        fetch(TASK, download, tmp_path / "real")


def test_a_link_without_its_content_is_named(download, tmp_path):
    (download / "images" / "coronacases_009.nii.gz").symlink_to(tmp_path / "annex" / "gone")
    with pytest.raises(DataError, match=r"coronacases_009\.nii\.gz is a link to a file that is not here"):
        fetch(TASK, download)


def test_links_are_followed_to_their_content(download, tmp_path):
    (download / "labels.json").rename(tmp_path / "content")
    (download / "labels.json").symlink_to(tmp_path / "content")
    fetch(TASK, download, tmp_path / "real")
    assert (tmp_path / "real/COVID19/labels.json").read_text() == "{}"
    assert not (tmp_path / "real/COVID19/labels.json").is_symlink()


def test_another_disk_gets_copies(download, tmp_path, monkeypatch):
    def other_disk(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(fetching.os, "link", other_disk)
    fetch(TASK, download, tmp_path / "real")
    assert (tmp_path / "real/COVID19/labels.json").read_text() == "{}"


def test_a_root_is_searched_for_what_is_there_and_whole(download, tmp_path):
    root = tmp_path / "real"
    fetch(TASK, download, root)
    make("ADNI", root / "ADNI", size=find("ADNI").smallest)
    tasks = [TASK, find("ADNI"), find("BTCV")]
    assert real(root, tasks) == {"COVID19": root / "COVID19", "ADNI": root / "ADNI"}
    (root / "COVID19" / "labels.json").unlink()
    with pytest.raises(DataError, match=r"COVID19 is not COVID19 as published: nothing is called labels\.json"):
        real(root, tasks)


def test_a_download_that_has_to_be_arranged_is_verified_before_and_known_after(download, tmp_path):
    def arrange(source, folder):
        (folder / "drawn.txt").write_text((source / "labels.json").read_text())

    task = replace(TASK, arrange=arrange)
    assert fetch(task, download, tmp_path / "real").files == 7
    assert [path.name for path in (tmp_path / "real/COVID19").iterdir()] == ["drawn.txt"]
    assert fetch(task, download, tmp_path / "real").known == 1
    assert real(tmp_path / "real", [task]) == {"COVID19": tmp_path / "real/COVID19"}
    (tmp_path / "real/COVID19.sha256").unlink()
    with pytest.raises(DataError, match="is not COVID19 as published"):
        real(tmp_path / "real", [task])
