"""The whole job: a request and a folder in; a trained, tuned, graded model and its report out.

    look -> plan -> index -> design -> script -> tune -> train -> control -> grade -> report

Every stage is committed to the run folder before the next begins, and what is committed is not done again: `carry_on`
is how a run starts and how it resumes.
"""

import csv
import json
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import dspy
from dspy.utils.exceptions import DSPyError
from filelock import FileLock
from pydantic import Field

from m3dspy import cluster
from m3dspy.errors import M3Error, Refused, RunFailed, Stopped, UsageError
from m3dspy.m3bench import task as datasets
from m3dspy.m3bench.bench import Table
from m3dspy.m3bench.bench import bench as run_bench
from m3dspy.m3bench.candidate import Assignment, Limits, Submission
from m3dspy.m3bench.grade import grade, out_of_fold
from m3dspy.optimizers.storage import storage_of
from m3dspy.optimizers.tune import tune
from m3dspy.programs import artifact
from m3dspy.programs.builder import STAGES, Builder, Script
from m3dspy.programs.lms.adapter import Chat
from m3dspy.programs.lms.experts import words
from m3dspy.programs.lms.ledger import Ledger, read_ledger
from m3dspy.programs.lms.model import at_server, distinct, explain, preflight
from m3dspy.signatures.values import AS_WRITTEN, ROLES, Design, Grade, Index, Item, Outcome, Request, Tuned, Value
from m3dspy.workspace import (
    emit,
    execute,
    exporting,
    inventory,
    predicting,
    private,
    public,
    training,
    unpack,
    untrusted,
    weights,
)
from m3dspy.workspace.looking import contained
from m3dspy.workspace.report import NAME as REPORT
from m3dspy.workspace.report import report
from m3dspy.workspace.runs import UNPACKED, Run, dataset, disk

Listen = Callable[[dict[str, Any]], None]
LOOPBACK = ("127.0.0.1", "localhost", "::1")
DRAWS = (1, 2)  # further draws of the few shots, beside the design's own
OUT_OF_FOLD = "the out-of-fold score is a little too good: the epoch that each fold keeps was chosen by it"
CONTROL = "control/model"  # kept until the benchmark's test cases are answered with it
_TRAINED = ("predictions", "model", "control", "single", "untuned", "draws", "grade", "outcome")  # in order of commit


class More(Value):
    """Further trials that a run was asked for and does not have yet; they outlive a crash like any stage."""

    trials: int = Field(description="of the whole study")
    minutes: float | None = Field(description="wall time of all trials together")
    trained: dict[str, Any] = Field(description="the settings that the run's model was trained with")


def asked_of(program: str | None, lm: str | None, *, force: bool = False) -> dict[str, Any]:
    """`program`, `lm` and `routing` of a Request: the LM that was named, else the program's routing and student.

    Raises: UsageError, DataError: there is no such program; or, without `force`, it cannot be used or names a server
            elsewhere.
    """
    if program is None or lm is not None:
        return {"program": program, "lm": lm or "rules"}
    manifest = artifact.load(program, force=force).manifest
    servers = filter(None, (at_server(name)[1] for name in (manifest.student, *manifest.routing.values())))
    if (away := [server for server in servers if urlsplit(server).hostname not in LOOPBACK]) and not force:
        raise UsageError(
            f"The program would send prompts, and your key, to {away[0]}. If you trust that server use --force; else "
            "name a language model with --lm."
        )
    return {"program": program, "lm": manifest.student, "routing": manifest.routing}


def start(request: Request, home: Path, *, force: bool = False) -> Run:
    """A new run for a request; nothing is done yet but to copy its program.

    Args:   force: use the program whatever speaks against it.
    Raises: UsageError: the dataset folder, the program, the weights, nnU-Net or a language model is not there.
            DataError: the program is not to be used here.  M3Error: the storage or the cluster cannot be used.
    """
    if not Path(request.data).is_dir():
        raise UsageError(f"There is no folder {request.data}. Give the dataset folder with --data.")
    if words.wants_nnunet(request.text) and find_spec("nnunetv2") is None:
        raise UsageError("The request asks for nnU-Net, which is not installed: pip install 'm3dspy[nnunet]'")
    if request.weights:
        weights.check(request.weights)
    distinct(_lms(request).values(), Ledger(), request.api_base)
    if request.storage:
        storage_of(request.storage)
    with cluster.executor(request.cluster, None, home, [Path(request.data)]):
        pass  # it is there
    program = artifact.load(request.program, force=force).folder if request.program else None
    run = Run.create(request, home)
    if program:
        _keep(run, program)
    return run


def change(run: Run, **changes: object) -> None:
    """Change a run's request where a value is given: where its scripts run from now on, not what it is about."""
    if given := {name: value or None for name, value in changes.items() if value is not None}:
        with run.lock():
            run.commit("request", run.load("request", Request).model_copy(update=given))


def prompts(request: Request) -> list[tuple[str, list[dict[str, Any]]]]:
    """(role, messages) of every question up to the design, in order, exactly as they would be sent; nothing is sent.

    The answers of the built-in rules stand in for those of a language model, so that only the first is sure to come
    up word for word. Nothing is trained, and no run is left behind.

    Raises: M3Error: as in a run.
    """
    with TemporaryDirectory(prefix="m3dspy-") as home:
        run = start(request.model_copy(update={"lm": "rules", "routing": {}}), Path(home), force=True)
        with run.lock(), private.hiding(private.read(run.folder / private.FILE)) as persons, _told(run.event):
            asked = run.load("request", Request)
            _look(run, asked, persons)
            builder, ledger = _builder(run, asked), Ledger(run.folder / "lm.jsonl")
            builder.set_lm(distinct(["rules"], ledger)["rules"])
            with dspy.context(adapter=Chat()):
                builder(run, stages=STAGES[:-1])
            return [(line["role"], line["messages"]) for line in read_ledger(run.folder / "lm.jsonl")]


def carry_on(run: Run, data: Path | None = None, *, keep_control: bool = False) -> Outcome:
    """Do what is not done yet of a run.

    Args:    data: where the dataset lies now, if it or the run was moved.  keep_control: the control's model, too.
    Returns: how it ended: `done`.
    Raises:  UsageError: the dataset is not there.  DataError: it was changed.  Refused: the data cannot serve the
             request.  M3Error, Stopped: it failed; resuming goes on from there.
    """
    with (
        run.lock(),
        private.hiding(private.read(run.folder / private.FILE)) as persons,
        _told(run.event),
        disk(run.folder),
    ):
        if data:
            _moved(run, data)
        reported = (run.folder / REPORT).is_file() and run.has("outcome") and not run.has("more")
        if reported and (outcome := run.load("outcome", Outcome)).status == "done":
            return outcome
        request = run.load("request", Request)
        if not Path(request.data).is_dir():
            raise UsageError(
                f"The dataset {request.data} is not here. Say where it is: m3dspy resume {run.folder} --data DIR"
            )
        _search_on(run, request)  # if it fails, what the run had come to stands
        ledger = Ledger(run.folder / "lm.jsonl", request.budget, request.max_calls)
        try:
            _look(run, request, persons)
            _build(run, request, ledger)
            _train(run, request, keep_control)
            found = _grade(run, request)
        except (M3Error, Stopped) as error:
            status = "refused" if isinstance(error, Refused) else "failed"
            run.commit("outcome", _outcome(run, ledger, status, reason=private.hidden(str(error))))
            raise
        outcome = _outcome(run, ledger, "done", grade=found)
        (run.folder / REPORT).unlink(missing_ok=True)  # one of the unfinished run
        run.commit("outcome", outcome)
        with run.stage("report"):
            report(run.folder)
        return outcome


def more_trials(run: Run, trials: int, minutes: float | None) -> None:
    """Ask a run for further trials, which `carry_on` does first; better settings take back its model."""
    with run.lock():
        before = run.load("tuned", Tuned)
        spent = sum(trial.seconds for trial in before.trials) / 60
        run.commit(
            "more",
            More(
                trials=len(before.trials) + trials,
                minutes=None if minutes is None else spent + minutes,
                trained=run.load("more", More).trained if run.has("more") else before.settings,
            ),
        )


def predict(run: Run, images: Path, out: Path, *, clip: str | None = None, dicom_seg: bool = False) -> dict[str, Any]:
    """Apply a finished run's model to an image or a folder of images; predictions appear in `out`, named by case.

    What `out` holds of this model's answers already is not done again.

    Args:   clip: weights of the backbone, in place of those that the run was given.  dicom_seg: write it for masks.
    Raises: UsageError: nothing to read, or `out` holds other things.  M3Error: a case was not answered; the others are.
    """
    if (outcome := run.load("outcome", Outcome)).status != "done":
        raise UsageError(f"Run {run.id} has no model: status {outcome.status}. {outcome.reason}")
    if not images.exists():
        raise UsageError(f"There is no {images}. Give an image or a folder of images.")
    predicting.check_out(out, images)
    with unpack.aside(images, annotated=False) as (root, unpacked):
        plain, how = (root / "images", unpacked.how) if unpacked else (root, ())
        return _predict(run, plain, how, out, clip, dicom_seg)


def _predict(
    run: Run, images: Path, unpacked: Sequence[str], out: Path, clip: str | None, dicom_seg: bool
) -> dict[str, Any]:
    """As `predict`, of plain images. `unpacked`: how they were made so, a sentence each."""
    if clip:
        weights.check(clip)
    index, request, script = run.load("index", Index), run.load("request", Request), run.load("script", Script)
    dims, answered = run.load("design", Design).dims, set[str]()

    def tell(kind: str, **what: object) -> None:
        if run.listen:
            run.listen({"kind": kind, **private.hidden(what)})

    def case(told: dict[str, Any]) -> None:
        if "failed" not in told:
            answered.add(told["case"])
        tell("case", **told)

    with private.hiding(private.read(run.folder / private.FILE)), _told(tell):
        for line in unpacked:
            tell("warning", text=line)
        slices = isinstance(index.training[0].image, tuple)
        root, items = predicting.cases(images, dims, slices, lambda line: tell("warning", text=line))
        if dicom_seg:
            predicting.check_dicom_seg(index, dims, items, root)
        how: dict[str, Any] = {"trusted": script.trusted, "unsafe": request.unsafe, "weights": clip}
        failure = None
        try:
            training.predict(run, items, root, out, **how, tell=case)
        except M3Error as error:
            failure = error
        written = predicting.write_dicom_seg(run, items, root, out, answered) if dicom_seg and out.is_dir() else []
        if failure:
            raise failure
    return {"cases": len(items), "ids": [item.id for item in items], "new": len(answered), "dicom_seg": written}


def export(run: Run, form: str, out: Path, *, clip: str | None = None) -> str:
    """Write a finished run's model in a form of `exporting`; how it was compared with the model, in words.

    Args:   clip: weights of the backbone, in place of those that the run was given.
    Raises: UsageError, RunFailed: as there, or the run has no model.
    """
    if (outcome := run.load("outcome", Outcome)).status != "done":
        raise UsageError(f"Run {run.id} has no model: status {outcome.status}. {outcome.reason}")
    if clip:
        weights.check(clip)
    request, script = run.load("request", Request), run.load("script", Script)
    with private.hiding(private.read(run.folder / private.FILE)):
        return exporting.export(run, form, out, trusted=script.trusted, unsafe=request.unsafe, clip=clip)


@dataclass(frozen=True)
class Candidate:
    """The whole job as the benchmark runs it; `request` gives all but the text, the folder, the seed and the limits.

    listen: as of a Run; it stays behind where a round is carried out in another process.
    """

    request: Request
    force: bool
    listen: Listen | None = None

    def __call__(self, given: Assignment) -> Submission:
        asked = self.asked(given, given.request, given.data / "train")
        return submitted(self.taken_up(asked, given.out), given)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"listen": None}

    def asked(self, given: Assignment, text: str, data: Path) -> Request:
        """The request of a round."""
        limits = given.limits
        changed: dict[str, Any] = {"text": text, "data": str(data.resolve()), "seed": given.seed}
        if limits.dollars is not None:
            changed["budget"] = limits.dollars
        if limits.calls is not None:
            changed["max_calls"] = limits.calls
        if named := self.request.weights:
            task = json.loads((given.data / "task.json").read_text())["task"]
            changed["weights"] = named if weights.task_of(named) == task else None
        return self.request.model_copy(update=changed)

    def taken_up(self, asked: Request, folder: Path) -> Run:
        """The run of a round: the last one begun in its folder, else a new one.

        A worker may still be at it, sent there by a benchmark that was interrupted since: that is waited for.
        """
        begun = sorted(folder.glob("[!.]*/request.json"))
        run = Run(begun[-1].parent, self.listen) if begun else start(asked, folder, force=self.force)
        run.listen = self.listen
        if self.listen:
            self.listen({"kind": "warning", "text": f"{folder.parent.parent.name}, {folder.parent.name}: {run.folder}"})
        else:
            with FileLock(run.folder / "run.lock"):
                pass
        return run


def submitted(run: Run, given: Assignment) -> Submission:
    """Carry on with a run, answer the benchmark's test cases with its model and its control's, and say how it went."""
    control = given.out / "control"
    try:
        outcome = carry_on(run, keep_control=True)
        with run.lock():
            _answer(run, given, "model", given.out / "predictions")
            _answer(run, given, CONTROL, control)
            untrusted.remove(run.folder / CONTROL)
    except Stopped as stop:
        return _submission(run, run.load("outcome", Outcome) if run.has("outcome") else None, str(stop))
    except M3Error as error:
        return _submission(run, run.load("outcome", Outcome) if run.has("outcome") else None, str(error))
    return _submission(run, outcome, "").model_copy(update={"control": control})


def _answer(run: Run, given: Assignment, model: str, out: Path) -> None:
    """Apply a model of the run to the benchmark's test cases."""
    if out.is_dir():
        return
    cases = json.loads((given.data / "test.json").read_text())
    items = [Item.model_validate({"patient": case["id"], **case}) for case in cases]
    request, script = run.load("request", Request), run.load("script", Script)
    unborn = out.with_name(f".{out.name}")
    untrusted.remove(unborn)
    training.predict(run, items, given.data, unborn, trusted=script.trusted, unsafe=request.unsafe, model=model)
    labels = json.loads((given.data / "task.json").read_text())["labels"]
    for table in unborn.rglob("predictions.csv"):
        _reorder(table, labels)
    unborn.rename(out)


def _reorder(table: Path, labels: Sequence[str]) -> None:
    """Write the columns of a predictions.csv in the benchmark's order and spelling; the run has its own."""
    with table.open(newline="") as file:
        header, *rows = csv.reader(file)
    spelled = {label.casefold(): label for label in labels}
    names = [spelled.get(name.casefold(), name) for name in header[2:]]
    if set(names) != set(labels):
        return  # other labels than were asked for: the examiner will say so
    places = [2 + names.index(label) for label in labels]
    with table.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "label", *labels])
        for row in rows:
            said = ";".join(spelled.get(name.casefold(), name) for name in row[1].split(";"))
            writer.writerow([row[0], said, *(row[place] for place in places)])


def _submission(run: Run, outcome: Outcome | None, problem: str) -> Submission:
    """Args: outcome: of the run, if it has one.  problem: what ended the round; "": nothing did."""
    done = outcome is not None and outcome.status == "done" and not problem
    status = "done" if done else "refused" if outcome and outcome.status == "refused" else "failed"
    request = run.load("request", Request)
    index, weights = run.folder / "index.json", run.folder / "model" / "model.safetensors"
    reached = {"task_manager": "plan", "data_engineer": "index", "module_architect": "script"}
    return Submission(
        status=status,
        reason=problem,
        checkpoint=weights if done else None,
        claimed=outcome.grade.score if done and outcome and outcome.grade else None,
        index=index if index.is_file() else None,
        roles={role: run.has(stage) for role, stage in reached.items()} | {"model_trainer": done},
        seconds=sum(outcome.seconds.values()) if outcome else 0.0,
        calls=outcome.calls if outcome else 0,
        dollars=outcome.dollars if outcome else None,
        program=outcome.program if outcome else "",
        lm=request.lm,
    )


def bench(
    names: list[str] | None,
    request: Request,
    rounds: int,
    out: Path,
    listen: Listen,
    *,
    force: bool = False,
    data: Mapping[str, Path] | None = None,
    limits: Limits | None = None,
    executor: Executor | None = None,
) -> Table:
    """Run M3Bench datasets through the whole job; `request` gives all but the text, the folder and the seed."""
    tasks = [datasets.find(name) for name in names] if names else datasets.tasks()
    how: dict[str, Any] = {"name": "m3dspy", "data": data, "limits": limits, "executor": executor, "listen": listen}
    return run_bench(Candidate(request, force, listen), tasks, rounds, out.resolve(), **how)


def demo_request(home: Path, trials: int) -> Request:
    """The request of `m3dspy demo`, on a small phantom made below `home`."""
    task = datasets.find("COVID19")
    folder = home / "demo-data" / task.name
    if not folder.is_dir():
        datasets.make(task.name, folder, size=task.demo)
    return Request(text=f"{task.requests[0]}, as a quick try", data=str(folder.resolve()), trials=trials)


# ------------------------------------------------------------------------------------------------ stages
def _moved(run: Run, data: Path) -> None:
    """Let the run read its dataset in another place."""
    if not data.is_dir():
        raise UsageError(f"There is no folder {data}. Give the dataset folder with --data.")
    if run.has("index") and not run.has(UNPACKED):
        inventory.moved(run, data)
    run.commit("request", run.load("request", Request).model_copy(update={"data": str(data.resolve())}))


def _search_on(run: Run, request: Request) -> None:
    """The further trials that were asked for; killed at any moment, they are begun again here."""
    if not run.has("more"):
        return
    more, script = run.load("more", More), run.load("script", Script)
    inventory.check(run, request)
    with run.stage("tune"):
        after = _tune(run, request, more.trials, more.minutes, script.trusted)
    (run.folder / REPORT).unlink(missing_ok=True)
    if after.settings != more.trained:
        run.drop(*reversed(_TRAINED))
        for name in ("final", "control", "single", "untuned", *(f"draw-{draw}" for draw in DRAWS)):
            run.attempt(name)
    else:
        run.drop("outcome")
    run.drop("more")


def _look(run: Run, request: Request, persons: private.Private) -> None:
    """Args: persons: the values that are hidden from now on; they are kept even if the data is of no use."""
    if not run.has("fingerprint"):
        with run.stage("look"):
            notices: list[str] = []
            try:
                root, unpacked = unpack.of_run(run)
                found = contained.look(root, notice=notices.append, private=persons)
            finally:
                persons.protect([request.text])
                private.write(persons, run.folder / private.FILE)
            for line in notices:
                run.event("warning", text=line)
            run.commit("fingerprint", found.model_copy(update={"unpacked": unpacked}))


def _build(run: Run, request: Request, ledger: Ledger) -> None:
    """The four roles, with answers of the language model kept in the run: what was paid for is not asked again."""
    if all(run.has(stage) for stage in STAGES):
        return
    builder, routing = _builder(run, request), _lms(request)
    lms = distinct(routing.values(), ledger, request.api_base)
    for role, name in routing.items():
        getattr(builder, role).set_lm(lms[name])
    for lm in lms.values():
        preflight(lm)
    with dspy.context(adapter=Chat()):
        try:
            builder(run)
        except DSPyError as error:
            failed = next((lm for lm in lms.values() if lm.model == error.model), lms[routing["task_manager"]])
            raise explain(error, failed) from error


def _lms(request: Request) -> dict[str, str]:
    """Role -> name of its LM."""
    return {role: request.routing.get(role, request.lm) for role in ROLES}


def _builder(run: Run, request: Request) -> Builder:
    """The program of a run, from the copy that it keeps; what speaks against it was weighed when the run began."""
    if not request.program:
        return Builder()
    if not run.has("program"):  # a crash between the run's first two steps
        _keep(run, artifact.load(request.program).folder)
    folder = run.folder / "program"
    for difference in artifact.differences(folder):
        run.event("warning", text=f"The compiled program: {difference}")
    for role, name in request.routing.items():
        run.event("warning", text=f"{role} is given {name}, as the compiled program says.")
    return artifact.load(folder, force=True).builder


def _keep(run: Run, program: Path) -> None:
    """Copy a compiled program into the run."""
    folder = run.attempt("program")
    for name in ("program.json", "manifest.json"):
        shutil.copyfile(program / name, folder / name)
    run.adopt(folder, "program")


def _train(run: Run, request: Request, keep_control: bool = False) -> None:
    trusted, unsafe = run.load("script", Script).trusted, request.unsafe
    inventory.check(run, request)
    if not run.has("tuned"):
        with run.stage("tune"):
            _tune(run, request, request.trials, request.minutes, trusted)
    settings = run.load("tuned", Tuned).settings
    inventory.check(run, request)
    if not run.has("model"):
        with run.stage("train"):
            training.fit(run, "final", settings | _folds(run, request), resume=True, trusted=trusted, unsafe=unsafe)
            run.adopt(_adopt(run, "final", "predictions"), "model")
    if not run.has("control/predictions"):
        with run.stage("control"):
            shuffled = {**settings, "shuffled": True}
            training.fit(run, "control", shuffled, resume=True, trusted=trusted, unsafe=unsafe)
            answers, left = public.named_answers(run, "control"), run.attempt("control", resume=True)
            untrusted.remove(left / "predictions")
            if keep_control:
                run.drop(CONTROL)
                run.adopt(left, CONTROL)
            else:
                untrusted.remove(left)
            run.adopt(answers, "control/predictions")
    for attempt, name, changed in _beside(run):
        if not run.has(name):
            with run.stage(attempt), _forgiven(run, attempt):
                training.fit(run, attempt, changed, resume=True, trusted=trusted, unsafe=unsafe)
                untrusted.remove(_adopt(run, attempt, name))
    shutil.rmtree(run.folder / training.CACHE, ignore_errors=True)
    public.forget(run)


def _tune(run: Run, request: Request, trials: int, minutes: float | None, trusted: bool) -> Tuned:
    jobs, data = request.jobs, dataset(run.folder, request)
    with cluster.executor(request.cluster, jobs if request.cluster else None, run.folder, [data]) as executor:
        how = {"trusted": trusted, "unsafe": request.unsafe, "jobs": jobs, "storage": request.storage}
        return tune(run, trials, minutes, **how, executor=executor)


def _folds(run: Run, request: Request) -> dict[str, Any]:
    """The setting that asks for a model of several folds: where the template has it, as many as the patients fill.

    Those of a classification show two classes each.
    """
    if request.folds == 1:
        return {}
    template = run.load("design", Design).template
    if "folds" not in emit.fields(template):
        run.event("warning", text=f"--folds {request.folds}: a model of the template {template} has one fold.")
        return {}
    index = run.load("index", Index)
    pool = (*index.training, *index.validation)
    most = len({item.patient for item in pool})
    if index.task == "classification" and not index.multilabel:
        kinds = Counter(label for label, _ in {(item.label, item.patient) for item in pool})
        most = min(most, *sorted(kinds.values())[-2:])
    if most < request.folds:
        run.event("warning", text=f"--folds {request.folds}: {most} of them, as there are too few patients for more.")
    return {"folds": min(most, request.folds)}


def _beside(run: Run) -> list[tuple[str, str, dict[str, Any]]]:
    """Further trainings, as (attempt, where its predictions go, settings).

    One model alone, where there are several folds; the settings that tuning began with, where it found others; of an
    anomaly detection, other draws of the few shots.
    """
    tuned, few = run.load("tuned", Tuned), run.load("design", Design).shots
    found = [("single", "single", tuned.settings)] if _folded(run).is_dir() else []
    if tuned.trials and tuned.settings != tuned.trials[0].settings:
        found.append(("untuned", "untuned", {}))
    draws = DRAWS if few else ()
    return found + [(f"draw-{draw}", f"draws/{draw}", {**tuned.settings, "draw": draw}) for draw in draws]


def _folded(run: Run) -> Path:
    """Where a model of several folds has its answers to the training and validation cases."""
    return run.folder / "model" / "validation"


@contextmanager
def _forgiven(run: Run, attempt: str) -> Iterator[None]:
    """A training that is only compared with costs the run nothing if it fails; the report says what is missing."""
    try:
        yield
    except RunFailed as failure:
        run.event("warning", text=f"{attempt}: {failure}")


def _adopt(run: Run, attempt: str, name: str) -> Path:
    """Commit the predictions of an attempt under `name`; the folder with all else that it left.

    What a crash let through already is only cleared away.
    """
    if not run.has(name):
        run.adopt(public.named_answers(run, attempt), name)
    left = run.attempt(attempt, resume=True)
    untrusted.remove(left / "predictions")
    return left


def _grade(run: Run, request: Request) -> Grade:
    if not run.has("grade"):
        inventory.check(run, request)
        with run.stage("grade"):
            index, root = run.load("index", Index), dataset(run.folder, request)
            beside = {name: run.folder / name for _, name, _ in _beside(run)}
            found = grade(
                index,
                root,
                run.folder / "predictions",
                checkpoint=run.folder / "model" / "model.safetensors",
                control=run.folder / "control" / "predictions",
                oracle=datasets.oracle(root, index),
                draws=[folder for name, folder in beside.items() if name.startswith("draws/")],
                untuned=beside.get("untuned"),
                single=beside.get("single"),
                seed=request.seed,
            )
            if _folded(run).is_dir():
                others = out_of_fold(index, root, _folded(run), request.seed) | found.others
                found = found.model_copy(update={"others": others, "notes": (*found.notes, OUT_OF_FOLD)})
            run.commit("grade", found)
    return run.load("grade", Grade)


def _outcome(run: Run, ledger: Ledger, status: Any, reason: str = "", grade: Grade | None = None) -> Outcome:
    tuned = run.load("tuned", Tuned) if run.has("tuned") else Tuned()
    data = Path(run.load("request", Request).data)
    seconds: dict[str, float] = {}
    for event in run.events():
        if event["kind"] == "stage" and event["status"] == "done":
            seconds[event["name"]] = round(seconds.get(event["name"], 0.0) + event["seconds"], 1)
    return Outcome(
        status=status,
        reason=reason,
        grade=grade,
        settings=tuned.settings,
        trials=len(tuned.trials),
        seconds=seconds,
        calls=ledger.calls,
        dollars=ledger.dollars,
        program=artifact.read_manifest(run.folder / "program").title if run.has("program") else AS_WRITTEN,
        contained=execute.probe().level != "none",
        phantom=data.is_dir() and datasets.is_phantom(data),  # it may have vanished, which is why the run ends
    )


@contextmanager
def _told(event: Callable[..., object]) -> Iterator[None]:
    """Warnings of ours become events."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *rest, **more: event("warning", text=str(message))
        yield
