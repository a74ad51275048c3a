"""Studies in a database: a real PostgreSQL, its clients killed and the server taken away."""

import os
import signal
import subprocess
import sys
import time

import optuna
import pytest
from postgresql_here import BINARIES, PostgreSQL

from m3dspy.errors import M3Error, UsageError
from m3dspy.optimizers.storage import PASSWORD, keep_password, storage_of

WRITER = """
import sys, optuna
from m3dspy.optimizers.storage import storage_of
study = optuna.create_study(study_name="many", storage=storage_of(sys.argv[1]), load_if_exists=True)
for _ in range(int(sys.argv[2])):
    trial = study.ask()
    trial.report(trial.suggest_float("x", 0, 1), 0)
    study.tell(trial, trial.params["x"])
    print(trial.number, flush=True)
"""


@pytest.fixture(scope="module")
def server():
    if not BINARIES:
        pytest.skip("PostgreSQL is not installed: no initdb below /usr/lib/postgresql")
    server = PostgreSQL()
    yield server
    server.end()


def writer(url, trials):
    command = [sys.executable, "-c", WRITER, url, str(trials)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# ------------------------------------------------------------------------------------------------ a real server
@pytest.mark.slow
def test_a_study_in_a_database_is_there_for_the_next_who_opens_it(server):
    study = optuna.create_study(study_name="run-1", storage=storage_of(server.url), direction="maximize")
    trial = study.ask({"lr": optuna.distributions.FloatDistribution(0.1, 0.2)})
    trial.report(0.25, 0)
    study.tell(trial, 0.5)
    (again,) = optuna.load_study(study_name="run-1", storage=storage_of(server.url)).trials
    assert (again.params, again.value, again.intermediate_values) == (trial.params, 0.5, {0: 0.25})


@pytest.mark.slow
def test_nothing_that_was_told_is_lost_when_one_of_four_writers_is_killed(server):
    writers = [writer(server.url, 10) for _ in range(4)]
    told = [int(writers[0].stdout.readline())]
    writers[0].send_signal(signal.SIGKILL)
    for process in writers:
        out, err = process.communicate(timeout=120)
        told += [int(line) for line in out.split()]
        assert process is writers[0] or process.returncode == 0, err
    study = optuna.load_study(study_name="many", storage=storage_of(server.url))
    complete = {trial.number for trial in study.trials if trial.state.name == "COMPLETE"}
    assert len(told) == len(set(told)) >= 31
    assert set(told) <= complete
    assert [trial.number for trial in study.trials] == list(range(len(study.trials)))


@pytest.mark.slow
def test_a_database_that_goes_away_is_one_line_and_when_it_is_back_the_study_goes_on(server):
    study = optuna.create_study(study_name="stopped", storage=storage_of(server.url))
    study.tell(study.ask(), 1.0)
    server.stop()
    try:
        with pytest.raises(M3Error, match=r"is gone \(.+\)\. Bring it back, and: m3dspy resume RUN$") as told:
            study.ask()
        assert "sesame" not in str(told.value)
        with pytest.raises(
            M3Error, match=r"^The storage postgresql\+psycopg2://m3:\*\*\*@127.* does not let us in: .*refused"
        ):
            storage_of(server.url)
    finally:
        server.start()
    study.tell(study.ask(), 2.0)
    assert [trial.value for trial in study.trials] == [1.0, 2.0]


@pytest.mark.slow
def test_a_wrong_password_is_one_line_that_does_not_show_it(server):
    with pytest.raises(M3Error, match="password authentication failed") as told:
        storage_of(server.url.replace("open%20sesame", "guessed"))
    assert "guessed" not in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.slow
def test_the_password_may_stand_in_the_environment(server, monkeypatch):
    monkeypatch.setenv(PASSWORD, "to be replaced")
    url = keep_password(server.url)
    assert url == server.url.replace(":open%20sesame", "")
    study = optuna.create_study(study_name="by environment", storage=storage_of(url))
    study.tell(study.ask(), 1.0)
    assert study.best_value == 1.0


# ------------------------------------------------------------------------------------------------ none is needed
def test_a_path_is_a_journal_and_a_url_of_sqlite_a_database(tmp_path):
    for place in (tmp_path / "journal.log", f"sqlite:///{tmp_path}/study.db"):
        study = optuna.create_study(study_name="tune", storage=storage_of(place))
        study.tell(study.ask(), 0.5)
        assert optuna.load_study(study_name="tune", storage=storage_of(place)).best_value == 0.5
    assert {"journal.log", "study.db"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://me@host:port/x", r"^--storage is the URL of a database: postgresql://"),
        ("redis://me:secret@host/0", r"^redis://me:\*\*\*@host/0: Optuna cannot use such a database"),
        ("oracle+nope://me:secret@host/x", r"^oracle\+nope://me:\*\*\*@host/x: Optuna cannot use such a database"),
    ],
)
def test_what_is_no_database_is_said_without_its_password(url, says):
    with pytest.raises(UsageError, match=says) as told:
        storage_of(url)
    assert "secret" not in str(told.value)


def test_a_driver_that_is_missing_is_named_with_the_line_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(UsageError, match=r"psycopg2.*pip install 'm3dspy\[postgresql\]'"):
        storage_of("postgresql://me@127.0.0.1:1/x")


def test_a_dead_address_is_one_line(tmp_path):
    pytest.importorskip("psycopg2")
    began = time.monotonic()
    with pytest.raises(M3Error, match=r"^The storage postgresql\+psycopg2://me@127\.0\.0\.1:1/x does not let us in: "):
        storage_of("postgresql://me@127.0.0.1:1/x?password=secret")
    assert time.monotonic() - began < 15


def test_what_is_no_url_is_refused_before_a_run_begins():
    with pytest.raises(UsageError, match=r"^--storage is the URL of a database: postgresql://"):
        keep_password("study.db")


def test_a_run_folder_never_holds_a_password(monkeypatch):
    monkeypatch.delenv(PASSWORD, raising=False)
    assert keep_password("sqlite:////tmp/x.db") == "sqlite:////tmp/x.db"
    assert PASSWORD not in os.environ
    monkeypatch.setenv(PASSWORD, "another")
    assert keep_password("mysql+pymysql://me:s%40f%2Fe@host/x?charset=utf8") == "mysql+pymysql://me@host/x?charset=utf8"
    assert os.environ[PASSWORD] == "s@f/e"
    assert keep_password("postgresql://me@host/x?password=hid") == "postgresql://me@host/x"
    assert os.environ[PASSWORD] == "hid"
