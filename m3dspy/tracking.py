"""A run as TensorBoard or MLflow shows it, written while it goes on: `m3dspy run ... --track mlflow`.

Everything comes from the run folder: what a killed run did not come to tell is told by `m3dspy resume`. Names, numbers
and the language models' questions and answers go there, in the form in which the run folder has them (names of patients
are hidden); images and models do not.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from m3dspy.errors import UsageError
from m3dspy.programs.lms.ledger import read_ledger
from m3dspy.signatures.values import Design, Outcome, Request
from m3dspy.workspace import private
from m3dspy.workspace.runs import Run

Listen = Callable[[dict[str, Any]], None]
EXPERIMENT = "m3dspy"
LONGEST = 500  # characters of a parameter, MLflow's limit on many servers


@contextmanager
def tracked(run: Run, listen: Listen) -> Iterator[Listen]:
    """`listen`, and what the run's request asks to be told: all events from the first on, and at the end the grade.

    A server that goes away later costs the run nothing but a warning: `m3dspy resume` tells the rest.
    Raises: UsageError: what is needed for it is not installed or cannot be reached.
    """
    kind = run.load("request", Request).track
    if kind is None:
        yield listen
        return
    try:
        tell, close = _KINDS[kind](run)
        for event in run.events():
            tell(event)
    except ModuleNotFoundError as error:
        raise UsageError(f"--track {kind} needs {error.name}: pip install 'm3dspy[track]'.") from error
    except Exception as error:  # whatever a server answers
        raise UsageError(f"--track {kind}: {_reason(error)}. Mend it, or leave it out.") from error
    lost = False

    def careful(act: Callable[[], None]) -> None:
        nonlocal lost
        try:
            if not lost:
                act()
        except Exception as error:  # as above
            lost = True
            listen({"kind": "warning", "text": f"--track {kind} is told nothing more: {_reason(error)}."})

    def both(event: dict[str, Any]) -> None:
        careful(lambda: tell(event))
        listen(event)

    try:
        yield both
    finally:
        careful(close)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:LONGEST]}".rstrip(".")


def _tensorboard(run: Run) -> tuple[Listen, Callable[[], None]]:
    """Written anew from the first event on, in `tensorboard/` of the run."""
    from torch.utils.tensorboard import SummaryWriter

    folder = run.folder / "tensorboard"
    shutil.rmtree(folder, ignore_errors=True)
    writer = SummaryWriter(str(folder), flush_secs=5)

    def tell(event: dict[str, Any]) -> None:
        for name, value, step in _numbers(event):
            writer.add_scalar(name, value, step, walltime=event["time"])

    def close() -> None:
        for number, call in enumerate(_calls(run)):
            writer.add_text(f"calls/{call['role'] or 'preflight'}", _as_markdown(call), number, walltime=call["time"])
        for name, value in _facts(run).items():
            writer.add_text(f"run/{name}", str(value))
        for name, value in _results(run).items():
            writer.add_scalar(name, value)
        writer.close()

    return tell, close


def _mlflow(run: Run) -> tuple[Listen, Callable[[], None]]:
    """One run of MLflow's for one of ours, found again by its folder; its traces are the calls to language models."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    import mlflow

    mlflow.set_experiment(EXPERIMENT)
    folder = str(run.folder)
    found = mlflow.search_runs(filter_string=f"tags.`m3dspy.folder` = '{folder}'", output_format="list")
    known = found[0].info.run_id if found else None
    here = mlflow.start_run(run_id=known, run_name=run.id, tags={"m3dspy.folder": folder}).info.run_id
    client = mlflow.MlflowClient()

    def tell(event: dict[str, Any]) -> None:
        for name, value, step in _numbers(event):  # what is told again is one and the same to MLflow
            client.log_metric(here, name, value, timestamp=int(1000 * event["time"]), step=step)

    def close() -> None:
        told = int(client.get_run(here).data.tags.get("m3dspy.calls", 0))
        calls = _calls(run)
        for call in calls[told:]:
            began = int(1e9 * (call["time"] - call["seconds"]))
            about = {name: call[name] for name in ("model", "input_tokens", "output_tokens", "cost")}
            span = mlflow.start_span_no_context(
                call["role"] or "preflight",
                span_type="LLM",
                inputs={"messages": call["messages"]},
                attributes=about,
                metadata={"mlflow.sourceRun": here},
                start_time_ns=began,
            )
            span.end(outputs={"answer": call["answer"]}, end_time_ns=int(1e9 * call["time"]))
        mlflow.set_tag("m3dspy.calls", len(calls))
        mlflow.log_params(_facts(run))
        mlflow.log_metrics(_results(run))
        mlflow.flush_trace_async_logging()
        mlflow.end_run("FINISHED" if run.has("outcome") else "KILLED")

    return tell, close


_KINDS: dict[str, Callable[[Run], tuple[Listen, Callable[[], None]]]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
}


# ------------------------------------------------------------------------------------------------ what is told
def _numbers(event: dict[str, Any]) -> Iterator[tuple[str, float, int]]:
    """Name, value and step of the numbers of an event."""
    if event["kind"] == "epoch":
        for name in ("loss", "score"):
            yield f"{event['attempt']}/{name}", event[name], event["epoch"]
    elif event["kind"] == "trial" and event["score"] is not None:
        yield "trials/score", event["score"], event["number"]


def _facts(run: Run) -> dict[str, Any]:
    """What was asked for, and what was decided."""
    request = run.load("request", Request)
    facts = {name: getattr(request, name) for name in ("text", "data", "lm", "program", "trials", "folds", "seed")}
    facts |= {f"lm of {role}": lm for role, lm in request.routing.items()}
    if run.has("design"):
        facts |= run.load("design", Design).model_dump(exclude={"space"})
    with private.hiding(private.read(run.folder / private.FILE)):
        return private.hidden({name: str(value)[:LONGEST] for name, value in facts.items()})


def _results(run: Run) -> dict[str, float]:
    """The grade, and what the language models cost."""
    calls = _calls(run)
    found = {"calls": float(len(calls)), "dollars": sum(call["cost"] or 0.0 for call in calls)}
    found["tokens"] = float(sum(call["input_tokens"] + call["output_tokens"] for call in calls))
    grade = run.load("outcome", Outcome).grade if run.has("outcome") else None
    if grade:
        compared = {"score": grade.score, "floor": grade.floor, "control": grade.control}
        found |= {f"test/{name}": score.value for name, score in compared.items() if score}
        found |= {"test/score low": grade.score.low, "test/score high": grade.score.high}
        found |= {"test/S1": float(grade.s1), "test/S2": float(grade.s2)}
    return found


def _calls(run: Run) -> list[dict[str, Any]]:
    return list(read_ledger(run.folder / "lm.jsonl"))


def _as_markdown(call: dict[str, Any]) -> str:
    messages = call["messages"]
    asked = messages if isinstance(messages, str) else "\n\n".join(f"{m['role']}: {m['content']}" for m in messages)
    answer = "\n\n".join(map(str, call["answer"]))
    return (
        f"{call['model']}, {call['input_tokens']} + {call['output_tokens']} tokens\n\n{asked}\n\n**Answer**\n\n{answer}"
    )
