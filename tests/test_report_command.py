"""`m3dspy report` and `m3dspy runs`: pages made anew, served while a run goes on, and listed."""

import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest
from finished_runs import classified
from report_text import page_text

from m3dspy.signatures.values import Outcome, Request
from m3dspy.workspace import private
from m3dspy.workspace.report import report
from m3dspy.workspace.reporting import live
from m3dspy.workspace.runs import Run

ROOT = Path(__file__).parent.parent


def unfinished(home, text="mark the liver"):
    return Run.create(Request(text=text, data="/d"), home)


@contextmanager
def served(page=lambda: "<p>here", going_on=lambda: True):
    with live.server(page, going_on) as (server, address):
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield urlsplit(address)
        finally:
            server.shutdown()
            thread.join()


def ask(address, path=None, host=None):
    """Status, headers and body."""
    connection = HTTPConnection("127.0.0.1", address.port, timeout=10)
    connection.putrequest("GET", path or address.path, skip_host=True)
    connection.putheader("Host", host or address.netloc)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read().decode()


def test_a_page_is_served_to_its_own_address_alone():
    with served() as address:
        assert address.hostname == "127.0.0.1"
        assert ask(address)[::2] == (200, "<p>here")
        for path in ("/", f"{address.path}/../request.json", "/request.json"):
            assert ask(address, path)[0] == 404
        for host in ("evil.example", f"evil.example:{address.port}", f"127.0.0.1:{address.port + 1}"):
            assert ask(address, host=host)[0] == 421


def test_a_browser_asks_again_only_while_the_run_goes_on():
    with served(going_on=lambda: True) as address:
        assert ask(address)[1]["Refresh"] == "5"
    with served(going_on=lambda: False) as address:
        headers = ask(address)[1]
        assert "Refresh" not in headers
        assert headers["Cache-Control"] == "no-store"


def test_the_page_of_the_finished_run_is_not_an_earlier_one():
    states = iter([True, False])
    pages = iter(["begun", "done"])
    with served(lambda: next(pages), lambda: next(states)) as address:
        assert [ask(address)[2] for _ in range(2)] == ["begun", "done"]


def test_a_page_that_cannot_be_made_at_the_moment_is_asked_for_again():
    def gone():
        raise FileNotFoundError("plan.json")

    with served(gone) as address:
        status, headers, body = ask(address)
    assert (status, headers["Refresh"]) == (503, "5")
    assert "plan.json" in body


def test_a_run_is_watched_from_the_command_line_until_ctrl_c(tmp_path):
    run = unfinished(tmp_path)
    run.event("stage", name="plan", status="start")
    words = [sys.executable, "-m", "m3dspy", "report", str(run.folder), "--live", "--json"]

    def heeds_ctrl_c() -> None:  # which a job in the background is told to ignore
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    how = {"stdout": subprocess.PIPE, "text": True, "cwd": ROOT, "preexec_fn": heeds_ctrl_c}
    with subprocess.Popen(words, **how) as watching:
        try:
            told = json.loads(watching.stdout.readline())
            assert told["run"] == run.id
            page = page_text(ask(urlsplit(told["page"]))[2])
            watching.send_signal(signal.SIGINT)
            assert watching.wait(30) == 0
        finally:
            watching.kill()
    assert "The run is not finished. Last begun: Plan, by the task manager." in page
    assert not (run.folder / "report.html").exists()


def test_a_page_is_made_anew_for_a_run_that_failed(m3dspy, tmp_path):
    run = unfinished(tmp_path / "runs")
    run.commit("outcome", Outcome(status="failed", reason="The disk is full."))
    status, out, _ = m3dspy("report", run.id, "--json")
    assert (status, json.loads(out)) == (0, {"run": run.id, "page": str(run.folder / "report.html")})
    assert "The run failed: The disk is full." in page_text((run.folder / "report.html").read_text())


def test_no_page_is_written_into_a_run_that_is_at_work(m3dspy, tmp_path):
    run = unfinished(tmp_path / "runs")
    with run.lock():
        status, _, err = m3dspy("report", run.id)
    assert (status, "at work elsewhere" in err) == (1, True)
    assert not (run.folder / "report.html").exists()


def test_runs_are_listed_with_how_they_ended_and_their_page(m3dspy, tmp_path):
    done = Run(classified(tmp_path))
    report(done.folder)
    refused, broken = unfinished(tmp_path / "runs", "b"), unfinished(tmp_path / "runs", "c")
    refused.commit("outcome", Outcome(status="refused", reason="No liver."))
    (broken.folder / "request.json").write_text("{")
    going_on = unfinished(tmp_path / "runs", "d")
    status, out, _ = m3dspy("runs", "--json")
    rows = {row["run"]: row for row in json.loads(out)}
    assert status == 0
    states = {done.id: "done", refused.id: "refused", broken.id: "damaged", going_on.id: "unfinished"}
    assert {name: row["status"] for name, row in rows.items()} == states
    assert (rows[done.id]["metric"], rows[done.id]["score"]) == ("macro AUROC", 0.74)
    assert rows[done.id]["page"] == str(done.folder / "report.html")
    assert rows[refused.id]["page"] is None
    status, out, _ = m3dspy("runs")
    assert f"done       macro AUROC 0.740   a model for classification\n    {rows[done.id]['page']}" in out


def test_a_folder_without_runs_says_how_to_start_one(m3dspy):
    assert m3dspy("runs", "--json")[:2] == (0, "[]\n")
    assert "m3dspy run" in m3dspy("runs")[1]


def test_what_identifies_a_patient_is_a_token_wherever_it_stands(tmp_path):
    folder = classified(tmp_path)
    hiding = private.Private()
    hiding.add("name", "Kowalski^Jadwiga")
    private.write(hiding, folder / private.FILE)
    Run(folder).event("warning", text="seen")
    with (folder / "events.jsonl").open("a") as events:
        events.write(json.dumps({"time": 2.0, "kind": "warning", "text": "scan of Jadwiga Kowalski"}) + "\n")
    call = {"time": 1.0, "role": "task_manager", "model": "m", "input_tokens": 9, "output_tokens": 1, "cost": 0.0}
    messages = [{"role": "user", "content": "KOWALSKI, Jadwiga"}]
    line = json.dumps({**call, "seconds": 1, "messages": messages, "answer": ["of jadwiga"]})
    (folder / "lm.jsonl").write_text(line)
    for name in ("plan", "fingerprint"):
        text = (folder / f"{name}.json").read_text()
        (folder / f"{name}.json").write_text(
            text.replace("Show a classification", "Kowalski").replace("odd", "Kowalski")
        )
    html = report(folder).read_text()
    assert "kowalski" not in html.lower()
    assert "jadwiga" not in html.lower()
    assert html.count("&lt;name-1&gt;") >= 5


@pytest.mark.parametrize("nonsense", ["\u202e", "\x1b[2J", "\x00"])
def test_signs_that_change_how_text_is_read_are_shown_as_one(nonsense, tmp_path):
    folder = classified(tmp_path)
    Run(folder).commit("request", Request(text=f"a{nonsense}b", data="/d"))
    html = report(folder).read_text()
    assert f"a{nonsense}" not in html
    assert "a\ufffd" in html
