"""The command line: thin commands; what is heavy is imported inside them."""

import re
import signal
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from m3dspy import __version__, completion
from m3dspy.errors import M3Error, Stopped, UsageError

app = typer.Typer(
    name="m3dspy",
    help="A free-text request and a folder of medical images in; a trained, tuned, graded model out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
data = typer.Typer(help="See a dataset folder; make phantoms of the M3Bench datasets.", no_args_is_help=True)
app.add_typer(data, name="data")
program = typer.Typer(help="See compiled programs: what made them, what they change.", no_args_is_help=True)
app.add_typer(program, name="program")

Json = Annotated[bool, typer.Option("--json", help="print JSON for machines, and nothing else, on stdout")]
Runs = Annotated[Path, typer.Option(help="the folder that holds the runs")]
Program = Annotated[
    str | None,
    typer.Option(
        help="a compiled program: its folder, or a name of `program list`", autocompletion=completion.programs
    ),
]
Force = Annotated[bool, typer.Option(help="use the program even if it was compiled for other code or was edited")]
Lm = Annotated[
    str | None,
    typer.Option(
        help="rules (built in, no key), gpt-4o, anthropic/..., ollama_chat/..., openai/<any>, NAME@URL "
        "(default: what the program was compiled for, else rules)"
    ),
]
ApiBase = Annotated[
    str | None,
    typer.Option(help="an OpenAI-compatible server, e.g. http://127.0.0.1:8000/v1, for LMs that name none"),
]
Trials = Annotated[int, typer.Option(help="Optuna trials before the final training; 0: the design as it is", min=0)]
Jobs = Annotated[int, typer.Option(help="trials at a time, each by a worker of its own", min=1)]
Time = Annotated[str | None, typer.Option(help="stop tuning after, e.g. 30m, 2h")]
Budget = Annotated[float | None, typer.Option(help="dollars for language models; the run stops there", min=0)]
MaxCalls = Annotated[int | None, typer.Option(help="calls to language models; the run stops there", min=0)]
Minutes = Annotated[float | None, typer.Option(help="wall time from this start on", min=0)]
Threads = Annotated[int, typer.Option(help="exercises at a time; scripts that train take a core each", min=1)]
Practice = Annotated[Path, typer.Option(help="exercises, and scripts that were tried; may be shared")]
Weights = Annotated[
    str | None,
    typer.Option(
        help="to start from: for anomaly detection a CLIP's file, or a name of open_clip such as openai (default: "
        "random); for diagnosis a name of timm, resnet50=FILE of a network of timm, or medicalnet_resnet18=FILE; for "
        "reports a language model of the hub, or gpt2=FOLDER"
    ),
]
Track = Annotated[
    Literal["tensorboard", "mlflow"] | None,
    typer.Option(
        help="tell TensorBoard (files in the run folder) or MLflow (MLFLOW_TRACKING_URI, else mlflow.db here)"
    ),
]
Folds = Annotated[
    int,
    typer.Option(
        help="train as many models, each checked on another part of the training and validation patients; the mean of "
        "their probabilities counts",
        min=1,
        max=20,
    ),
]
Seed = Annotated[int, typer.Option(help="of split, tuning and training")]
Cluster = Annotated[
    str | None,
    typer.Option(help="address of a Dask scheduler, e.g. tcp://head:8786, whose workers see the same files"),
]
Storage = Annotated[
    str | None,
    typer.Option(help="the study's database, e.g. postgresql://user@host/name (default: a file in the run folder)"),
]
Unsafe = Annotated[bool, typer.Option(help="run LM-written code uncontained where there is no sandbox")]


def main() -> None:
    """The console script: every error of the user's is one line, and an exit status that says what kind."""
    signal.signal(signal.SIGTERM, _terminated)
    warnings.formatwarning = lambda message, *_, **__: f"m3dspy: {message}\n"  # one line, without the code behind it
    try:
        app()
    except (M3Error, Stopped) as error:
        _end(str(error), error.exit_status)
    except KeyboardInterrupt as ended:
        error = _interrupted(ended, "the same command, or m3dspy resume for a run, goes on.")
        _end(str(error), error.exit_status)
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(1) from None


class Terminated(KeyboardInterrupt):
    """SIGTERM, of a scheduler that wants the machine or a container that is stopped: like Ctrl-C."""


def _terminated(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: what ends now must not be cut short
    raise Terminated


def _interrupted(ended: KeyboardInterrupt, how: str) -> M3Error:
    """How to go on after Ctrl-C or SIGTERM."""
    terminated = isinstance(ended, Terminated)
    error = M3Error(f"{'Terminated' if terminated else 'Interrupted'}. What was finished is kept; {how}")
    if terminated:
        error.exit_status = 128 + signal.SIGTERM
    return error


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
    program: Program = None,
    lm: Lm = None,
    api_base: ApiBase = None,
    trials: Trials = 10,
    time: Time = None,
    budget: Budget = None,
    max_calls: MaxCalls = None,
    folds: Folds = 1,
    seed: Seed = 0,
    weights: Weights = None,
    runs: Runs = Path("runs"),
    jobs: Jobs = 1,
    cluster: Cluster = None,
    storage: Storage = None,
    track: Track = None,
    unsafe: Unsafe = False,
    force: Force = False,
    show_prompts: Annotated[
        bool, typer.Option("--show-prompts", help="print what language models would be sent, send nothing, and stop")
    ] = False,
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
        **job.asked_of(program, lm, force=force),
        api_base=api_base,
        trials=trials,
        minutes=_minutes(time),
        folds=folds,
        seed=seed,
        weights=_weights(weights),
        budget=budget,
        max_calls=max_calls,
        unsafe=unsafe,
        jobs=jobs,
        cluster=cluster,
        storage=_storage(storage),
        track=track,
    )
    if show_prompts:
        from m3dspy.screen import prompts_as_text

        asked = job.prompts(wanted)
        records = [{"role": role, "messages": messages} for role, messages in asked]
        _say(json, {"prompts": records}, prompts_as_text(asked, wanted))
        return
    _carry_on(job.start(wanted, runs, force=force), json)


@app.command()
def resume(
    run: Annotated[str, typer.Argument(help="a run's name or folder", autocompletion=completion.runs)],
    folder: Annotated[Path | None, typer.Option("--data", help="where the dataset lies now, if it was moved")] = None,
    runs: Runs = Path("runs"),
    cluster: Annotated[str | None, typer.Option(help="another Dask scheduler; '': this machine")] = None,
    storage: Annotated[str | None, typer.Option(help="where the study's database is now")] = None,
    json: Json = False,
) -> None:
    """Go on with a run from its last finished stage, epoch and trial."""
    from m3dspy import job
    from m3dspy.workspace.runs import Run

    found = Run.open(run, runs)
    job.change(found, cluster=cluster, storage=_storage(storage))
    _carry_on(found, json, folder)


@app.command()
def tune(
    run: Annotated[str, typer.Argument(help="a run's name or folder", autocompletion=completion.runs)],
    trials: Annotated[int, typer.Option(help="further Optuna trials", min=1)] = 10,
    time: Time = None,
    runs: Runs = Path("runs"),
    jobs: Annotated[int | None, typer.Option(help="trials at a time (default: as before)", min=1)] = None,
    cluster: Annotated[str | None, typer.Option(help="another Dask scheduler; '': this machine")] = None,
    storage: Annotated[str | None, typer.Option(help="where the study's database is now")] = None,
    json: Json = False,
) -> None:
    """Search on for better settings of a run's script; if there are any, train and grade anew."""
    from m3dspy import job
    from m3dspy.workspace.runs import Run

    found = Run.open(run, runs)
    job.change(found, jobs=jobs, cluster=cluster, storage=_storage(storage))
    job.more_trials(found, trials, _minutes(time))
    _carry_on(found, json)


@app.command()
def predict(
    run: Annotated[str, typer.Argument(help="a finished run's name or folder", autocompletion=completion.runs)],
    images: Annotated[Path, typer.Argument(help="an image, or a folder of images")],
    out: Annotated[Path, typer.Option(help="where the predictions go; those it holds of this model are kept")],
    dicom_seg: Annotated[
        bool, typer.Option("--dicom-seg", help="of DICOM series: write each mask as DICOM-SEG, too")
    ] = False,
    weights: Weights = None,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Apply a run's model to new images. Interrupted, the same command goes on."""
    from m3dspy import job
    from m3dspy.screen import Screen
    from m3dspy.workspace.runs import Run

    found = Run.open(run, runs)
    with Screen(quiet=json) as found.listen:
        told = job.predict(found, images, out, clip=_weights(weights), dicom_seg=dicom_seg)
    _say(json, {"out": str(out), **told}, f"{told['cases']} predictions in {out}, {told['new']} of them new")


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="a finished run's name or folder", autocompletion=completion.runs)],
    to: Annotated[str, typer.Option(help="bundle (of MONAI), onnx or torchscript")],
    out: Annotated[Path, typer.Option(help="where it goes; must be new or empty")],
    weights: Weights = None,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Write a run's model for other software, compared with the model itself on held-out cases."""
    from m3dspy import job
    from m3dspy.workspace.runs import Run

    compared = job.export(Run.open(run, runs), to, out, clip=_weights(weights))
    _say(json, {"out": str(out), "form": to, "compared": compared}, f"{to} in {out}\n{compared}")


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="a run's name or folder, finished or not", autocompletion=completion.runs)],
    open_it: Annotated[bool, typer.Option("--open", help="show it in the browser")] = False,
    live: Annotated[bool, typer.Option("--live", help="serve it on this machine alone while the run goes on")] = False,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Write a run's report page anew, or watch a run that goes on."""
    from m3dspy.workspace.report import page, report
    from m3dspy.workspace.reporting import listing
    from m3dspy.workspace.reporting import live as living
    from m3dspy.workspace.runs import Run

    found = Run.open(run, runs)
    if live:

        def going_on() -> bool:
            return listing.status(found) in ("unfinished", "failed")

        with living.server(lambda: page(found.folder), going_on) as (server, address):
            _say(json, {"run": found.id, "page": address}, f"{address}\nCtrl-C ends it.")
            sys.stdout.flush()
            if open_it:
                typer.launch(address)
            with suppress(KeyboardInterrupt):
                server.serve_forever()
        return
    with found.lock():
        path = report(found.folder)
    _say(json, {"run": found.id, "page": str(path)}, str(path))
    if open_it:
        typer.launch(path.as_uri())


@app.command("runs")
def list_runs(runs: Runs = Path("runs"), json: Json = False) -> None:
    """The runs in a folder, the newest first: when, what was asked, how it went, and the report page."""
    from m3dspy.screen import runs_as_text
    from m3dspy.workspace.reporting.listing import listing

    found = listing(runs)
    _say(json, found, runs_as_text(found, runs))


@app.command("compile")
def compile_program(
    teacher: Annotated[str, typer.Option(help="a strong language model, which is only needed now")],
    student: Annotated[str, typer.Option(help="the cheaper one that the program is to run on")] = "gpt-4o-mini",
    optimizer: Annotated[
        str, typer.Option(help="bootstrap, random-search, mipro or gepa", autocompletion=completion.optimizers)
    ] = "gepa",
    api_base: ApiBase = None,
    tasks: Annotated[
        list[str] | None, typer.Option("--tasks", help="a training layout or dataset; repeat for more (default: all)")
    ] = None,
    exercises: Annotated[int, typer.Option(help="for training, as many for validation and held out", min=4)] = 24,
    rollouts: Annotated[int, typer.Option(help="how often the search may run a role, about", min=1)] = 120,
    budget: Budget = None,
    max_calls: Annotated[int | None, typer.Option(help="calls to language models; it stops there", min=0)] = 10_000,
    minutes: Minutes = None,
    seed: Annotated[int, typer.Option(help="of exercises and search", min=0)] = 0,
    threads: Threads = 2,
    out: Annotated[Path, typer.Option(help="the program's folder is made in it")] = Path("runs/programs"),
    practice: Practice = Path("runs/practice"),
    cluster: Cluster = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what it would cost, and spend nothing")] = False,
    unsafe: Unsafe = False,
    json: Json = False,
) -> None:
    """Compile the agents' prompts against M3Bench training tasks. Interrupted, the same command goes on."""
    from m3dspy import cluster as clusters
    from m3dspy import program as programs
    from m3dspy.optimizers.compile import Order, compile_program
    from m3dspy.optimizers.estimate import estimate
    from m3dspy.optimizers.session import Limits
    from m3dspy.screen import Screen

    order = Order(
        teacher=teacher,
        student=student,
        optimizer=optimizer,
        tasks=tuple(tasks or ()),
        exercises=exercises,
        rollouts=rollouts,
        seed=seed,
        api_base=api_base,
        unsafe=unsafe,
    )
    limits = Limits(max_calls=max_calls, budget=budget, minutes=minutes)
    if dry_run:
        _say(json, *programs.costs(estimate(order, practice), limits))
        return
    with Screen(quiet=json) as screen, clusters.executor(cluster, None, practice) as pool:
        folder, manifest = compile_program(order, limits, out, practice, threads, screen, pool)
    _say(json, *programs.compiled(folder, manifest))
    if problem := programs.problem(manifest, folder):
        print(f"m3dspy: {problem}", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def compare(
    program: Annotated[
        str,
        typer.Argument(
            help="a compiled program: its folder, or a name of `program list`", autocompletion=completion.programs
        ),
    ],
    lm: Annotated[list[str], typer.Option(help="a language model, as in `run`; repeat for more")],
    api_base: ApiBase = None,
    route: Annotated[
        bool, typer.Option("--route", help="find the cheapest LMs for the roles, at equal success")
    ] = False,
    exercises: Annotated[int, typer.Option(help="held out, on which all are measured", min=1)] = 24,
    budget: Budget = None,
    max_calls: MaxCalls = None,
    minutes: Minutes = None,
    seed: Annotated[int, typer.Option(help="of the exercises", min=0)] = 0,
    threads: Threads = 2,
    out: Annotated[Path | None, typer.Option(help="default: a folder of its own in runs/compare")] = None,
    practice: Practice = Path("runs/practice"),
    cluster: Cluster = None,
    unsafe: Unsafe = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Swap the language model under a compiled program: success and cost. Interrupted, the same command goes on."""
    from m3dspy import cluster as clusters
    from m3dspy.optimizers.compare import Contest
    from m3dspy.optimizers.compare import compare as run_comparison
    from m3dspy.optimizers.session import Limits
    from m3dspy.optimizers.standings import markdown
    from m3dspy.programs import artifact
    from m3dspy.screen import Screen

    loaded = artifact.load(program, force=force)
    contest = Contest(lms=tuple(lm), exercises=exercises, seed=seed, route=route, api_base=api_base, unsafe=unsafe)
    limits = Limits(max_calls=max_calls, budget=budget, minutes=minutes)
    folder = out or Path("runs/compare") / contest.id(loaded)
    with Screen(quiet=json) as screen, clusters.executor(cluster, None, practice) as pool:
        found = run_comparison(loaded, contest, limits, folder, practice, threads, screen, pool)
    _say(json, {"folder": str(folder), **found.model_dump(mode="json")}, f"{markdown(found)}\nComparison: {folder}")
    if found.problem:
        print(f"m3dspy: Ended early: {found.problem} What was measured is in {folder}.", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def doctor(json: Json = False) -> None:
    """What this machine can do: sandbox, GPU, versions, keys."""
    from m3dspy import machine

    found = machine.checkup()
    _say(json, found, machine.as_text(found))


@app.command()
def bench(
    tasks: Annotated[
        list[str] | None,
        typer.Option("--tasks", help="a dataset; repeat for more (default: all)", autocompletion=completion.datasets),
    ] = None,
    program: Program = None,
    lm: Lm = None,
    api_base: ApiBase = None,
    rounds: Annotated[int, typer.Option(help="runs a dataset, each with its own seed", min=1)] = 1,
    zero_shot: Annotated[
        bool, typer.Option("--zero-shot", help="anomaly detection on each dataset by what is learnt from the others")
    ] = False,
    candidate: Annotated[
        str | None,
        typer.Option(
            help="in place of m3dspy: dummy, blind, oracle, cheater, shuffled, leaky, or a command line, run in the "
            "sandbox: 'agent/run.sh {request} {data} {out}'"
        ),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="real datasets, as `data fetch` puts them; phantoms stand in for the others")
    ] = None,
    weights: Weights = None,
    trials: Trials = 4,
    budget: Budget = None,
    max_calls: MaxCalls = None,
    time: Annotated[str | None, typer.Option(help="of a round, e.g. 30m; what takes longer has failed")] = None,
    out: Annotated[Path, typer.Option(help="where phantoms, runs and results go; an unfinished bench goes on")] = Path(
        "runs/bench"
    ),
    jobs: Annotated[
        int | None, typer.Option(help="rounds at a time (default: 1; on a cluster, all that its workers take)", min=1)
    ] = None,
    cluster: Cluster = None,
    unsafe: Unsafe = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Run M3Bench datasets and count S1 (a valid answer for every case) and S2 (beats floor and shuffled control)."""
    from m3dspy import cluster as clusters
    from m3dspy import job, rivals
    from m3dspy import zero_shot as zero_shots
    from m3dspy.m3bench import task as datasets
    from m3dspy.m3bench.bench import bench as run_bench
    from m3dspy.m3bench.bench import markdown
    from m3dspy.m3bench.candidate import Limits
    from m3dspy.m3bench.fetch import real
    from m3dspy.screen import Screen
    from m3dspy.signatures.values import Request

    how = Request(
        text="-",
        data=".",
        **job.asked_of(program, lm, force=force),
        api_base=api_base,
        trials=trials,
        weights=_weights(weights),
        budget=budget,
        max_calls=max_calls,
        unsafe=unsafe,
    )
    limits = Limits(minutes=_minutes(time), dollars=budget, calls=max_calls)
    chosen = [datasets.find(name) for name in tasks] if tasks else datasets.tasks()
    shared: dict[str, Any] = {"data": real(root, chosen) if root else {}, "limits": limits}
    with Screen(quiet=json) as screen, clusters.executor(cluster, jobs, out) as pool:
        shared |= {"listen": screen, "executor": pool}
        if candidate:
            rival = rivals.find(candidate, how, screen, force=force, unsafe=unsafe)
            found = run_bench(rival, chosen, rounds, out.resolve(), name=candidate, **shared)
        else:
            run = zero_shots.bench if zero_shot else job.bench
            found = run(tasks, how, rounds, out, force=force, **shared)
    _say(json, found.model_dump(mode="json"), markdown(found))


@app.command()
def leaderboard(
    benches: Annotated[list[Path], typer.Argument(help="folders of `bench`")],
    against: Annotated[str | None, typer.Option(help="a row to compare with (default: M3Builder)")] = None,
    out: Annotated[Path, typer.Option(help="where leaderboard.md, .json and .png go")] = Path("runs/leaderboard"),
    json: Json = False,
) -> None:
    """Put benchmarks side by side: success, cost and significance, beside what is published."""
    from m3dspy.m3bench import leaderboard as boards

    board = boards.leaderboard(benches, against)
    files = boards.write(board, out)
    told = {"files": list(map(str, files)), **board.model_dump(mode="json")}
    _say(json, told, f"{boards.markdown(board)}\nLeaderboard: {out}")


@data.command("list")
def data_list(json: Json = False) -> None:
    """The M3Bench datasets, and where to get the real ones."""
    from m3dspy.m3bench import task

    rows = [{"name": t.name, "task": t.task, "source": t.source, "licence": t.licence} for t in task.tasks()]
    _say(json, rows, "\n".join(f"{row['name']:<14}{row['task']:<20}{row['source']}" for row in rows))


@data.command("make")
def data_make(
    name: Annotated[
        str, typer.Argument(help="a dataset of `m3dspy data list`, or ALL", autocompletion=completion.datasets)
    ],
    folder: Annotated[Path, typer.Argument(help="where to; must be new or empty; ALL: a folder for them")],
    size: Annotated[int | None, typer.Option(help="patients or volumes (default: the dataset's own)", min=1)] = None,
    seed: Annotated[int, typer.Option(help="another seed, another phantom")] = 0,
    json: Json = False,
) -> None:
    """Make a phantom of an M3Bench dataset: its real layout and quirks, made-up images."""
    from m3dspy.m3bench import task

    if name != "ALL":
        task.make(name, folder, size=size, seed=seed)
        _say(json, {"name": name, "folder": str(folder)}, f"{name} phantom in {folder}")
        return
    if size is not None:
        raise UsageError("--size is of one dataset: what it counts differs. Leave it out with ALL.")
    made = [found.name for found in task.make_all(folder, seed=seed)]
    _say(json, {"names": made, "folder": str(folder)}, f"{len(made)} phantoms in {folder}: {', '.join(made)}")


@data.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="a dataset of `m3dspy data list`", autocompletion=completion.datasets)],
    source: Annotated[Path, typer.Option("--from", help="the folder of the download")],
    root: Annotated[
        Path | None, typer.Option("--to", help="link it into this folder, for bench --root (default: verify only)")
    ] = None,
    json: Json = False,
) -> None:
    """Verify a real download by its layout and checksums; says what is missing, and how to ask for access."""
    from m3dspy.m3bench import task
    from m3dspy.m3bench.fetch import as_text, fetch

    found = fetch(task.find(name), source, root)
    _say(json, found.model_dump(mode="json"), as_text(found))


@data.command("pull")
def data_pull(
    name: Annotated[str, typer.Argument(help="of a dataset on the Hugging Face Hub, organisation/dataset")],
    folder: Annotated[Path, typer.Argument(help="where to; for --data of a run")],
    config: Annotated[str | None, typer.Option(help="one of the configurations that it has")] = None,
    limit: Annotated[int | None, typer.Option(help="first rows of each split (default: all)", min=1)] = None,
    json: Json = False,
) -> None:
    """Fetch a dataset of the Hugging Face Hub as Parquet files; interrupted, the same command goes on."""
    from m3dspy.workspace.hub import pull

    rows = pull(name, folder, config, limit)
    told = ", ".join(f"{count} in {split}" for split, count in rows.items())
    _say(json, {"folder": str(folder), "rows": rows}, f"{name} in {folder}: {told}")


@data.command("export")
def data_export(
    name: Annotated[str, typer.Argument(help="a dataset of `m3dspy data list`", autocompletion=completion.datasets)],
    folder: Annotated[Path, typer.Argument(help="the task's folder is made in it")],
    source: Annotated[Path, typer.Option("--from", help="the dataset: real, or a phantom of `data make`")],
    json: Json = False,
) -> None:
    """Write a dataset as a task folder in MLE-bench's layout, for other agents' harnesses."""
    from m3dspy.m3bench import task
    from m3dspy.m3bench.export import export

    made = export(task.find(name), source, folder)
    _say(json, {"folder": str(made)}, f"Task folder: {made}")


@data.command("look")
def data_look(
    folder: Annotated[Path, typer.Argument(help="a folder of images")],
    json: Json = False,
) -> None:
    """What a folder holds: images, tables, labels, patients, and what is wrong with them."""
    from m3dspy.screen import folder_as_text
    from m3dspy.workspace import unpack
    from m3dspy.workspace.looking import contained
    from m3dspy.workspace.private import Private

    notices: list[str] = []
    with unpack.aside(folder) as (root, unpacked):
        found = contained.look(root, notice=notices.append, private=Private())
    found = found.model_copy(update={"unpacked": unpacked})
    _say(json, {**found.model_dump(mode="json"), "notices": notices}, folder_as_text(found, notices))


@program.command("list")
def program_list(runs: Runs = Path("runs"), json: Json = False) -> None:
    """The compiled programs that come with m3dspy, and those below the folder of runs."""
    from m3dspy.program import listing

    _say(json, *listing(runs))


@program.command("show")
def program_show(
    name: Annotated[
        str, typer.Argument(help="a compiled program: its folder or name", autocompletion=completion.programs)
    ],
    json: Json = False,
) -> None:
    """What compiled a program, scores before and after, what it cost, and its prompts."""
    from m3dspy.program import show

    _say(json, *show(name))


@program.command("diff")
def program_diff(
    name: Annotated[
        str, typer.Argument(help="a compiled program: its folder or name", autocompletion=completion.programs)
    ],
    other: Annotated[str | None, typer.Argument(help="another one (default: against the prompts as written)")] = None,
    json: Json = False,
) -> None:
    """How a program's prompts differ from those as written, or from another program's."""
    from m3dspy.program import diff

    _say(json, *diff(name, other))


def _carry_on(run: Any, json: bool, data: Path | None = None) -> None:
    from m3dspy import job
    from m3dspy.screen import Screen, as_json, verdict
    from m3dspy.tracking import tracked

    with Screen(quiet=json) as screen, tracked(run, screen) as run.listen:
        try:
            outcome = job.carry_on(run, data)
        except KeyboardInterrupt as ended:
            raise _interrupted(ended, f"go on with: m3dspy resume {run.folder}") from None
    if json:
        print(as_json(run.id, str(run.folder), outcome))
    else:
        print(f"{verdict(outcome)}\nReport: {run.folder / 'report.html'}")


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


def _storage(url: str | None) -> str | None:
    """The URL without its password, which no run folder may hold."""
    if not url:
        return url
    from m3dspy.optimizers.storage import keep_password

    return keep_password(url)


def _weights(given: str | None) -> str | None:
    """A file by its full path; a name as it is."""
    from m3dspy.workspace import weights

    return weights.full(given) if given else given
