"""What TensorBoard and MLflow are told of a run, read back from their own files."""

import json
import sys

import mlflow
import pytest
from finished_runs import classified
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from m3dspy.errors import UsageError
from m3dspy.signatures.values import Request
from m3dspy.tracking import EXPERIMENT, tracked
from m3dspy.workspace import private
from m3dspy.workspace.runs import Run

CALL = {"time": 1e9, "role": "task_manager", "model": "openai/m", "input_tokens": 90, "output_tokens": 10, "cost": 0.02}
CALL |= {"seconds": 2.0, "key": "k", "messages": [{"role": "user", "content": "plan it"}], "answer": ["a plan"]}


@pytest.fixture
def run(tmp_path):
    """A finished run with the events of two epochs and a trial, a call to a language model, and a hidden name."""
    run = Run(classified(tmp_path))
    for epoch, score in enumerate((0.4, 0.7)):
        run.event("epoch", attempt="final", epochs=2, epoch=epoch, loss=1 - score, score=score)
    run.event("trial", number=0, state="complete", score=0.6)
    (run.folder / "lm.jsonl").write_text(json.dumps(CALL) + "\n")
    persons = private.Private()
    persons.add("name", "QUIRKSEN")
    private.write(persons, run.folder / private.FILE)
    return run


def asked(run, kind):
    request = run.load("request", Request)
    run.commit("request", request.model_copy(update={"track": kind, "text": "is Quirksen demented?"}))
    return run


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where MLflow puts traces
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    mlflow.set_tracking_uri(None)
    yield
    mlflow.end_run()


def tell(run, *events):
    heard = []
    with tracked(run, heard.append) as listen:
        for event in events:
            listen(event)
    return heard


LATER = {"time": 1e9, "kind": "epoch", "attempt": "final", "epochs": 3, "epoch": 2, "loss": 0.2, "score": 0.8}


def test_a_run_that_asks_for_nothing_is_told_to_the_screen_alone(run):
    assert tell(run, LATER) == [LATER]
    assert not (run.folder / "tensorboard").exists()


def test_tensorboard_is_told_all_events_once_however_often_a_run_goes_on(run):
    asked(run, "tensorboard")
    for _ in range(2):
        assert tell(run, LATER) == [LATER]
    told = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    assert [(e.step, round(e.value, 4)) for e in told.Scalars("final/score")] == [(0, 0.4), (1, 0.7), (2, 0.8)]
    assert [round(e.value, 4) for e in told.Scalars("trials/score")] == [0.6]
    assert round(told.Scalars("test/score")[0].value, 4) == 0.74
    (call,) = told.Tensors("calls/task_manager/text_summary")
    assert b"plan it" in call.tensor_proto.string_val[0] and b"a plan" in call.tensor_proto.string_val[0]
    (text,) = told.Tensors("run/text/text_summary")
    assert text.tensor_proto.string_val == [b"is <name-1> demented?"]


def test_mlflow_has_one_run_with_its_numbers_and_the_calls_as_traces(run, server):
    asked(run, "mlflow")
    for _ in range(2):
        tell(run, LATER)
    (found,) = mlflow.search_runs(experiment_names=[EXPERIMENT], output_format="list")
    assert (found.info.run_name, found.info.status) == (run.id, "FINISHED")
    history = mlflow.MlflowClient().get_metric_history(found.info.run_id, "final/score")
    assert sorted((metric.step, metric.value) for metric in history) == [(0, 0.4), (1, 0.7), (2, 0.8)]
    assert found.data.metrics["test/floor"] == 0.5
    assert found.data.metrics["dollars"] == 0.02 and found.data.metrics["tokens"] == 100
    assert found.data.params["text"] == "is <name-1> demented?" and found.data.params["network"] == "cnn"
    (trace,) = mlflow.search_traces(return_type="list")
    (span,) = trace.data.spans
    assert (span.name, span.outputs) == ("task_manager", {"answer": ["a plan"]})
    assert span.inputs == {"messages": CALL["messages"]}
    assert trace.info.trace_metadata["mlflow.sourceRun"] == found.info.run_id


def test_what_is_not_installed_or_not_reached_is_one_line_before_any_work(run, monkeypatch):
    asked(run, "tensorboard")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match=r"^--track tensorboard needs .*: pip install 'm3dspy\[track\]'\.$"):
        tell(run)
    asked(run, "mlflow")
    monkeypatch.setattr(mlflow, "set_experiment", lambda name: 1 / 0)
    with pytest.raises(UsageError, match=r"^--track mlflow: ZeroDivisionError: division by zero\. Mend it"):
        tell(run)


def test_a_server_that_goes_away_costs_the_run_nothing(run, server, monkeypatch):
    asked(run, "mlflow")

    def gone(*given, **named):
        raise ConnectionError("no route to the server")

    heard = []
    with tracked(run, heard.append) as listen:
        monkeypatch.setattr(mlflow.MlflowClient, "log_metric", gone)
        listen(LATER)
        listen(LATER)
    assert [event["kind"] for event in heard] == ["warning", "epoch", "epoch"]
    assert heard[0]["text"] == "--track mlflow is told nothing more: ConnectionError: no route to the server."
