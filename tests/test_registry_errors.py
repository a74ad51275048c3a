import pytest

from m3dspy.errors import DataError, M3Error, Refused, RunFailed, Stopped, UsageError, unknown
from m3dspy.registry import Registry


@pytest.fixture
def animals(tmp_path, monkeypatch):
    """A registry over a folder with two entries, a helper and a file that cannot be imported."""
    name = f"animals_{tmp_path.name}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "cat.py").write_text("LEGS = 4")
    (folder / "sea_cow.py").write_text("LEGS = 0")
    (folder / "_helper.py").write_text("LEGS = 99")
    (folder / "unicorn.py").write_text("raise RuntimeError('was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    return Registry("animal", name), folder


def test_every_file_of_the_folder_is_an_entry_but_helpers_are_not(animals):
    registry, _ = animals
    assert list(registry) == ["cat", "sea_cow", "unicorn"]
    assert len(registry) == 3


def test_an_entry_is_imported_when_it_is_asked_for_and_no_sooner(animals):
    registry, _ = animals
    assert registry["cat"].LEGS == 4
    with pytest.raises(RuntimeError, match="was imported"):
        registry["unicorn"]


def test_a_hyphen_may_stand_for_an_underscore(animals):
    registry, _ = animals
    assert registry["sea-cow"].LEGS == 0


def test_a_new_file_is_a_new_entry(animals):
    registry, folder = animals
    (folder / "dog.py").write_text("LEGS = 4")
    assert "dog" in list(registry)


def test_an_unknown_name_is_told_its_nearest_neighbour(animals):
    registry, _ = animals
    with pytest.raises(UsageError, match=r"^No animal is called 'cta'\. Did you mean 'cat'\? Known: cat, sea_cow, "):
        registry["cta"]


def test_a_helper_cannot_be_asked_for(animals):
    registry, _ = animals
    with pytest.raises(UsageError, match="No animal is called '_helper'"):
        registry["_helper"]


def test_unknown_names_are_matched_in_any_case_and_guessed_only_when_near():
    assert "Did you mean 'resnet18'?" in str(unknown("network", "ResNet81", ["resnet18", "cnn"]))
    assert "Did you mean 'ADNI'?" in str(unknown("dataset", "adni", ["ADNI", "BTCV"]))
    assert str(unknown("network", "zzz", ["cnn"])) == "No network is called 'zzz'. Known: cnn."
    assert str(unknown("card", "a", [])) == "No card is called 'a'. Known: none."


def test_the_exit_status_tells_what_kind_of_error_it_was():
    assert [error.exit_status for error in (M3Error, DataError, UsageError, Refused, Stopped)] == [1, 1, 2, 3, 1]


def test_a_failed_run_ends_with_the_last_five_lines_of_its_log(tmp_path):
    log = tmp_path / "final.log"
    log.write_text("".join(f"line {number}\n\n" for number in range(1, 8)))
    error = RunFailed("The training ended with status 1.", log)
    assert error.tail == ["line 3", "line 4", "line 5", "line 6", "line 7"]
    assert str(error).splitlines()[0] == f"The training ended with status 1. Log: {log}"


def test_a_failed_run_without_a_log_is_one_line(tmp_path):
    assert str(RunFailed("It never began.", tmp_path / "no.log")) == f"It never began. Log: {tmp_path / 'no.log'}"


def test_a_spent_budget_passes_through_loops_that_swallow_errors():
    def loop():
        for _ in range(3):
            try:
                raise Stopped("2.00 dollars are spent")
            except Exception:
                continue

    with pytest.raises(Stopped, match="spent"):
        loop()


def test_a_failed_run_says_what_its_script_knew_in_one_line(tmp_path):
    log = tmp_path / "train.log"
    log.write_text("reading\nerror: a.nii.gz: cannot be read: is damaged\n")
    assert str(RunFailed("train.py ended with status 1.", log)) == f"a.nii.gz: cannot be read: is damaged. Log: {log}"


def test_a_failed_run_shows_the_last_five_lines_where_its_script_knew_nothing(tmp_path):
    log = tmp_path / "train.log"
    log.write_text("".join(f"line {n}\n" for n in range(9)))
    shown = str(RunFailed("train.py ended with status 1.", log)).splitlines()
    assert shown == [f"train.py ended with status 1. Log: {log}", *(f"    line {n}" for n in range(4, 9))]
