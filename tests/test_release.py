"""Every dataset as it is released: nothing in it tells of a test case, and what is left is a dataset still."""

import hashlib

import pytest

from m3dspy.m3bench import task as datasets
from m3dspy.m3bench.release import graded, release, validate
from m3dspy.workspace import public


@pytest.fixture(scope="module", params=[task.name for task in datasets.tasks()])
def released(request, tmp_path_factory):
    """A small phantom, and its release."""
    task, home = datasets.find(request.param), tmp_path_factory.mktemp("release")
    datasets.make(task.name, home / "data", size=task.demo)
    return task, home / "data", release(task, home / "data", home / "released")


def digests(folder):
    return {
        hashlib.sha256(path.read_bytes()).hexdigest(): path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
    }


def every_text(folder):
    """Path -> text, of every file that is one; a workbook's cells."""
    from openpyxl import load_workbook

    texts = {}
    for path in folder.rglob("*"):
        if path.suffix == ".xlsx":
            rows = [row for sheet in load_workbook(path).worksheets for row in sheet.iter_rows(values_only=True)]
            texts[path] = "\n".join(",".join(map(str, row)) for row in rows)
        elif path.suffix in (".csv", ".tsv", ".json", ".txt", ".xml"):
            texts[path] = path.read_text(errors="replace")
    return texts


def test_no_image_and_no_mask_of_a_test_case_is_left(released):
    _, data, found = released
    own = found.own()
    learnt = {path for item in (*own.training, *own.validation) for path in files_of(item)}
    learnt = {hashlib.sha256((data / path).read_bytes()).hexdigest() for path in learnt}
    shown = digests(found.public)
    for item in own.test:
        for path in public.paths(item.image):
            place = shown.get(hashlib.sha256((data / path).read_bytes()).hexdigest(), "")
            assert place.startswith("test/"), f"{path} is {place}"
        for path in {*files_of(item)} - {*public.paths(item.image)}:
            digest = hashlib.sha256((data / path).read_bytes()).hexdigest()
            place = shown.get(digest, "sample/") if digest not in learnt else "sample/"  # an empty mask is like another
            assert place.startswith("sample/"), f"{path} is {place}"


def files_of(item):
    masks = [item.mask] if item.mask else []
    masks += [item.label] if isinstance(item.label, str) and "/" in item.label else []
    return [*public.paths(item.image), *masks]


def test_no_name_of_a_test_case_is_left(released):
    """Neither in a text nor in a path: its image's name, its id, and what names its patient and nobody else's."""
    _, _, found = released
    own = found.own()
    learnt = {name for item in (*own.training, *own.validation) for name in names_of(item)}
    places = [path.relative_to(found.public / "train").as_posix() for path in (found.public / "train").rglob("*")]
    texts = every_text(found.public / "train")
    told = {word for text in texts.values() for word in words(text)} | {part for path in places for part in words(path)}
    for item in own.test:
        for name in names_of(item) - learnt:
            assert name not in told, f"{name} of {item.id}"


def names_of(item):
    path = item.image if isinstance(item.image, str) else item.image[0].rpartition("/")[0]
    name = path.rpartition("/")[2]
    return {n for n in (name, name.partition(".")[0], item.id, item.patient) if not (n.isdigit() and len(n) < 5)}


def words(text):
    import re

    return {word for word in re.split(r"[\s,;\"'/\\:\[\]{}]+", text) if word} | set(re.split(r"[,\"/\n]+", text))


def test_no_report_of_a_test_case_is_left(released):
    _, _, found = released
    own = found.own()
    learnt = {" ".join(str(item.findings).split()) for item in (*own.training, *own.validation)}
    texts = [" ".join(text.split()) for text in every_text(found.public).values()]
    for item in own.test:
        report = " ".join((item.findings or "").split())
        if report and not any(report in text for text in learnt):
            assert not any(report in text for text in texts), item.id


def test_nothing_else_is_lost(released):
    """Every case to learn from has its files and, by the expert's own reading, its label."""
    task, data, found = released
    own, train = found.own(), found.public / "train"
    for item in (*own.training, *own.validation):
        for path in files_of(item):
            assert (train / path).read_bytes() == (data / path).read_bytes()
    again = task.gold(train, 0)
    labels = {item.image: item.label for split in ("training", "validation", "test") for item in again.items(split)}
    if not (task.facts.caps.training or task.facts.caps.test):
        assert labels == {item.image: item.label for item in (*own.training, *own.validation)}
    assert all(again.items(split) for split in ("training", "validation", "test"))
    assert not [path for path in train.rglob("*") if path.is_dir() and not any(path.iterdir())]


def test_the_numbers_of_the_test_cases_tell_nothing_of_their_names_or_labels(released):
    _, _, found = released
    own, index = found.own(), found.index()
    assert [item.id for item in index.test] == [f"test-{n:06d}" for n in range(len(own.test))]
    assert [item.id for item in own.test] != sorted(item.id for item in own.test) or len(own.test) < 4
    text = (found.public / "test.json").read_text() + (found.public / "task.json").read_text()
    assert not [item.id for item in own.test if f'"{item.id}"' in text]
    assert all(item.label is None and item.findings is None and item.mask is None for item in found.given().test)


def test_the_sample_is_well_formed_and_worth_no_more_than_the_floor(released):
    _, _, found = released
    sample = found.public / "sample"
    assert validate(found, sample) == []
    grade = graded(found, sample)
    assert grade.s1
    assert not grade.s2


def test_a_release_is_the_same_twice_and_the_data_is_as_it_was(released, tmp_path):
    task, data, found = released
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in data.rglob("*") if path.is_file()}
    again = release(task, data, tmp_path / "again")
    assert digests(again.home) == digests(found.home)
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in before} == before
    assert release(task, data, tmp_path / "again") == again  # kept
