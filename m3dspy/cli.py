"""The command line: thin commands; what is heavy is imported inside them."""

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from m3dspy import __version__
from m3dspy.errors import M3Error, Stopped, UsageError

app = typer.Typer(
    name="m3dspy",
    help="A free-text request and a folder of medical images in; a trained, tuned, graded model out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
data = typer.Typer(help="See a dataset folder; make phantoms of the M3Bench datasets.", no_args_is_help=True)
app.add_typer(data, name="data")

Json = Annotated[bool, typer.Option("--json", help="print JSON for machines, and nothing else, on stdout")]
Runs = Annotated[Path, typer.Option(help="the folder that holds the runs")]
Lm = Annotated[str, typer.Option(help="rules (built in, no key), gpt-4o, anthropic/..., ollama_chat/..., openai/<any>")]
ApiBase = Annotated[str | None, typer.Option(help="an OpenAI-compatible server, e.g. http://127.0.0.1:8000/v1")]
Trials = Annotated[int, typer.Option(help="Optuna trials before the final training; 0: the design as it is", min=0)]
Time = Annotated[str | None, typer.Option(help="stop tuning after, e.g. 30m, 2h")]
Budget = Annotated[float | None, typer.Option(help="dollars for language models; the run stops there", min=0)]
MaxCalls = Annotated[int | None, typer.Option(help="calls to language models; the run stops there", min=0)]
Seed = Annotated[int, typer.Option(help="of split, tuning and training")]
Unsafe = Annotated[bool, typer.Option(help="run LM-written code uncontained where there is no sandbox")]


def main() -> None:
    """The console script: every error of the user's is one line, and an exit status that says what kind."""
    try:
        app()
    except (M3Error, Stopped) as error:
        _end(str(error), error.exit_status)
    except KeyboardInterrupt:
        _end("Interrupted. What was finished is kept; go on with: m3dspy resume", 1)
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(1) from None


def _end(line: str, status: int) -> None:
    if "--json" in sys.argv:
        import json

        print(json.dumps({"error": line, "exit": status}))
    print(f"m3dspy: {line}", file=sys.stderr)
    raise SystemExit(status)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"m3dspy {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    """A free-text request and a folder of medical images in; a trained, tuned, graded model out."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="where the phantom and the runs go")] = Path("runs"),
    trials: Trials = 3,
    json: Json = False,
) -> None:
    """The whole job on a small phantom with the built-in rules; about a minute on 2 cores."""
    from m3dspy import job

    request = job.demo_request(out, trials)
    _carry_on(job.start(request, out), json)


@app.command()
def run(
    request: Annotated[str, typer.Argument(help="what you want, in your own words")],
    folder: Annotated[Path, typer.Option("--data", help="the folder of images")],
    lm: Lm = "rules",
    api_base: ApiBase = None,
    trials: Trials = 10,
    time: Time = None,
    budget: Budget = None,
    max_calls: MaxCalls = None,
    seed: Seed = 0,
    runs: Runs = Path("runs"),
    unsafe: Unsafe = False,
    json: Json = False,
) -> None:
    """Build, tune and grade a model for a request on a folder of images."""
    from m3dspy import job
    from m3dspy.signatures.values import Request

    if not request.strip():
        raise UsageError("The request is empty. Say what the model should do, e.g. 'segment the liver on CT'.")
    wanted = Request(
        text=request,
        data=str(folder.resolve()),
        lm=lm,
        api_base=api_base,
        trials=trials,
        minutes=_minutes(time),
        seed=seed,
        budget=budget,
        max_calls=max_calls,
        unsafe=unsafe,
    )
    _carry_on(job.start(wanted, runs), json)


@app.command()
def resume(
    run: Annotated[str, typer.Argument(help="a run's name or folder")],
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Go on with a run from its last finished stage, epoch and trial."""
    from m3dspy.workspace.runs import Run

    _carry_on(Run.open(run, runs), json)


@app.command()
def tune(
    run: Annotated[str, typer.Argument(help="a run's name or folder")],
    trials: Annotated[int, typer.Option(help="further Optuna trials", min=1)] = 10,
    time: Time = None,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Search on for better settings of a run's script; if there are any, train and grade anew."""
    from m3dspy import job
    from m3dspy.workspace.runs import Run

    found = Run.open(run, runs)
    job.more_trials(found, trials, _minutes(time))
    _carry_on(found, json)


@app.command()
def predict(
    run: Annotated[str, typer.Argument(help="a finished run's name or folder")],
    images: Annotated[Path, typer.Argument(help="an image, or a folder of images")],
    out: Annotated[Path, typer.Option(help="where the predictions go; must be new or empty")],
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Apply a run's model to new images."""
    from m3dspy import job
    from m3dspy.workspace.runs import Run

    found = job.predict(Run.open(run, runs), images, out)
    _say(json, {"out": str(out), **found}, f"{found['cases']} predictions in {out}")


@app.command()
def doctor(json: Json = False) -> None:
    """What this machine can do: sandbox, GPU, versions, keys."""
    from m3dspy import machine

    found = machine.checkup()
    _say(json, found, machine.as_text(found))


@app.command()
def bench(
    tasks: Annotated[
        list[str] | None, typer.Option("--tasks", help="a dataset; repeat for more (default: all)")
    ] = None,
    lm: Lm = "rules",
    api_base: ApiBase = None,
    rounds: Annotated[int, typer.Option(help="runs a dataset, each with its own seed", min=1)] = 1,
    trials: Trials = 4,
    budget: Budget = None,
    max_calls: MaxCalls = None,
    out: Annotated[Path, typer.Option(help="where phantoms, runs and results go; an unfinished bench goes on")] = Path(
        "runs/bench"
    ),
    unsafe: Unsafe = False,
    json: Json = False,
) -> None:
    """Run M3Bench datasets and count S1 (a valid answer for every case) and S2 (beats floor and shuffled control)."""
    from m3dspy import job
    from m3dspy.m3bench.bench import markdown
    from m3dspy.screen import Screen
    from m3dspy.signatures.values import Request

    how = Request(
        text="-", data=".", lm=lm, api_base=api_base, trials=trials, budget=budget, max_calls=max_calls, unsafe=unsafe
    )
    with Screen(quiet=json) as screen:
        found = job.bench(tasks, how, rounds, out, listen=screen)
    _say(json, found.model_dump(mode="json"), markdown(found))


@data.command("list")
def data_list(json: Json = False) -> None:
    """The M3Bench datasets, and where to get the real ones."""
    from m3dspy.m3bench import task

    rows = [{"name": t.name, "task": t.task, "source": t.source, "licence": t.licence} for t in task.tasks()]
    _say(json, rows, "\n".join(f"{row['name']:<12}{row['task']:<16}{row['source']}" for row in rows))


@data.command("make")
def data_make(
    name: Annotated[str, typer.Argument(help="a dataset of `m3dspy data list`")],
    folder: Annotated[Path, typer.Argument(help="where to; must be new or empty")],
    size: Annotated[int | None, typer.Option(help="patients or volumes (default: the dataset's own)", min=1)] = None,
    seed: Annotated[int, typer.Option(help="another seed, another phantom")] = 0,
    json: Json = False,
) -> None:
    """Make a phantom of an M3Bench dataset: its real layout and quirks, made-up images."""
    from m3dspy.m3bench import task

    task.make(name, folder, size=size, seed=seed)
    _say(json, {"name": name, "folder": str(folder)}, f"{name} phantom in {folder}")


@data.command("look")
def data_look(
    folder: Annotated[Path, typer.Argument(help="a folder of images")],
    json: Json = False,
) -> None:
    """What a folder holds: images, tables, labels, patients, and what is wrong with them."""
    from m3dspy.screen import folder_as_text
    from m3dspy.workspace.look import look

    notices: list[str] = []
    found = look(folder, notice=notices.append)
    _say(json, {**found.model_dump(mode="json"), "notices": notices}, folder_as_text(found, notices))


def _carry_on(run: Any, json: bool) -> None:
    from m3dspy import job
    from m3dspy.screen import Screen, as_json, verdict

    with Screen(quiet=json) as screen:
        run.listen = screen
        try:
            outcome = job.carry_on(run)
        except KeyboardInterrupt:
            raise M3Error(f"Interrupted. What was finished is kept; go on with: m3dspy resume {run.folder}") from None
    if json:
        print(as_json(run.id, str(run.folder), outcome))
    else:
        print(f"{verdict(outcome)}\nReport: {run.folder / 'report.md'}")


def _say(json: bool, found: Any, text: str) -> None:
    if json:
        from json import dumps

        text = dumps(found)
    print(text)


def _minutes(time: str | None) -> float | None:
    """`90s`, `30m`, `2h` or plain minutes."""
    if time is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", time.strip())
    if not match or not float(match.group(1)):
        raise UsageError(f"--time is a length of time above 0 such as 90s, 30m or 2h; got {time!r}.")
    return float(match.group(1)) * {"s": 1 / 60, "m": 1, "": 1, "h": 60}[match.group(2)]
