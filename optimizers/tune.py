"""Optuna over the search space of an emitted script.

One controller asks and tells, the defaults first. The trials are carried out through a `concurrent.futures.Executor`:
by default by warm workers in threads of this process; by a pool of other processes or machines where one is given,
which must see the run folder. They read the study from its storage, report each epoch to it and prune themselves.

One trial at a time, killed at any moment and started again, it finds what it would have found undisturbed: the k-th
trial is suggested by a sampler seeded with k from the trials before it, and an interrupted one is asked again and
resumed from its checkpoint. With several at a time that holds of each trial, but which trials are asked for depends on
which end first.
"""

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from platform import node
from queue import SimpleQueue
from statistics import fmean
from typing import Any, Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    json_to_distribution,
)
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from m3dspy.errors import DataError, M3Error, RunFailed
from m3dspy.optimizers.storage import storage_of
from m3dspy.signatures.values import Design, Request, Trial, Tuned
from m3dspy.workspace import private, training, untrusted
from m3dspy.workspace.runs import Run, disk
from m3dspy.workspace.workers import Worker

STARTUP = 4  # trials before TPE and the pruner have a say; the first of them is the design as it stands
RATE = 3  # of the trials that come to a rung, one in so many goes on
State = Literal["complete", "pruned", "failed"]
STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Order:
    """A trial to carry out, in words that another machine understands too.

    number: Optuna's.  k: ours, in the order of asking, which names the folder.  threads: for OpenMP and BLAS.
    """

    folder: str
    storage: str
    number: int
    k: int
    settings: dict[str, Any]
    resume: bool
    trusted: bool
    unsafe: bool
    threads: int | None = None

    @property
    def name(self) -> str:
        return f"trial-{self.k:03d}"


@dataclass(frozen=True)
class Ended:
    """How a trial ended: scores of its epochs; the reason if it failed; seconds by a clock that does not jump."""

    state: State
    scores: tuple[float, ...]
    reason: str = ""
    seconds: float = 0.0


def tune(
    run: Run,
    trials: int,
    minutes: float | None = None,
    *,
    trusted: bool,
    unsafe: bool,
    jobs: int = 1,
    executor: Executor | None = None,
    storage: str | None = None,
) -> Tuned:
    """Bring the run's study to `trials` trials, and commit what it found.

    The first trial has the script's defaults. Each trains for a third of the design's epochs, two at least, unless
    `Halving` ends it before, within a step; one that fails is kept with its reason, and the next begins.

    Args:
        minutes: wall time of all trials together, after which none is begun; the first always is.
        jobs: trials at a time.
        executor: carries them out where the run folder is seen, too; a trial whose future raises BrokenExecutor was
            lost with its worker, and is carried out once more. None: threads of this process.
        storage: URL of the database that keeps the study; None: a file in the run folder.

    Raises: M3Error: every trial failed.  DataError: the script's search space cannot be used.
    """
    tuned = Tuned()
    space, defaults = _space(run, trusted, unsafe) if trials else ({}, {})
    if space:
        place = storage or str(run.folder / "study" / "journal.log")
        with disk(run.folder):
            study = _study(run, place)
            _ask_again(study, space)
            if executor is None:
                _warn(jobs)
            threads = None if executor or jobs == 1 else max(1, _cores() // jobs)
            how = Order(str(run.folder), place, 0, 0, {}, False, trusted, unsafe, threads)
            limit = minutes * 60 if minutes else float("inf")
            inbox: SimpleQueue[tuple[int, Any]] = SimpleQueue()
            with _crew(run, how, jobs, inbox) if executor is None else _far(executor) as submit:
                _search(run, study, space, defaults, how, trials, limit, jobs, inbox, submit)
            done = _done(study)
        tuned = _told(study, done)
    run.commit("tuned", tuned)
    return tuned


# ------------------------------------------------------------------------------------------------ carrying out
def carry_out(order: Order) -> Ended:
    """Carry out a trial in this process, wherever it is: the thread's warm worker stays for the next.

    Raises: M3Error: the run folder is not here, the disk is full, or the study's storage does not let this machine in.
    """
    run = _seen(order)
    found: Worker | None = getattr(_here, "worker", None)
    if found and (found.run.folder, found.trusted, found.unsafe) != (run.folder, order.trusted, order.unsafe):
        found.close()
        found = None
    _here.worker = found or Worker(run, trusted=order.trusted, unsafe=order.unsafe, threads=order.threads)
    try:
        return _carried_out(order, _here.worker, lambda epoch: None)
    except M3Error as error:
        raise M3Error(f"The worker on {node()}: {error}") from None


_here = threading.local()


def _seen(order: Order) -> Run:
    run = Run(Path(order.folder))
    if not run.has("request"):
        raise M3Error(
            f"The worker on {node()} does not see the run folder {order.folder}. Put the runs on a file system that "
            "all machines share."
        )
    return run


def _carried_out(order: Order, worker: Worker, tell: Tell) -> Ended:
    """Train the trial, report its epochs to the study, and prune it. Args: tell: called with each epoch."""
    run, began = worker.run, time.monotonic()
    scores, state, reason = [], "complete", ""
    with private.hiding(private.read(run.folder / private.FILE)), disk(run.folder):  # in a thread, or far away
        study = _opened(run, order.storage)
        frozen = next(trial for trial in study.get_trials(deepcopy=False) if trial.number == order.number)
        trial = optuna.Trial(study, frozen._trial_id)
        try:
            with closing(worker.epochs(order.name, order.settings, resume=order.resume)) as epochs:
                for epoch in epochs:
                    scores.append(epoch["score"])
                    if epoch["epoch"] not in frozen.intermediate_values:  # of one who was lost
                        trial.report(epoch["score"], epoch["epoch"])
                    tell(epoch)
                    if trial.should_prune():
                        state = "pruned"
                        break
            if not scores:
                raise RunFailed(f"{training.SCRIPT} printed no epoch.", run.log(order.name))
        except RunFailed as failure:
            state, reason = "failed", str(failure)
        except UpdateFinishedTrialError:  # the controller is another by now, and counts it as lost
            state, reason = "failed", "Nobody waits for this trial any more."
    return Ended(state, tuple(scores), reason, time.monotonic() - began)


Submit = Callable[[Order], "Future[Ended]"]


@contextmanager
def _crew(run: Run, how: Order, jobs: int, inbox: SimpleQueue) -> Iterator[Submit]:
    """Threads of this process, a warm worker each; epochs come to the inbox as they end."""
    crew = [Worker(run, trusted=how.trusted, unsafe=how.unsafe, threads=how.threads) for _ in range(jobs)]
    spare: SimpleQueue[Worker] = SimpleQueue()
    for worker in crew:
        spare.put(worker)

    def carried_out(order: Order) -> Ended:
        worker = spare.get()
        try:
            return _carried_out(order, worker, lambda epoch: inbox.put((order.k, epoch)))
        finally:
            spare.put(worker)

    pool = ThreadPoolExecutor(jobs, thread_name_prefix="trial")
    try:
        yield lambda order: pool.submit(carried_out, order)
    finally:
        for worker in crew:
            worker.cancelled = True
        pool.shutdown(cancel_futures=True)
        for worker in crew:
            worker.close()


@contextmanager
def _far(executor: Executor) -> Iterator[Submit]:
    def submit(order: Order) -> "Future[Ended]":
        try:
            return executor.submit(carry_out, order)
        except BrokenExecutor as broken:
            if isinstance(broken, M3Error):
                raise
            raise M3Error(f"No worker is left to carry out trials: {broken}. Start some, and resume the run.") from None

    yield submit


# ------------------------------------------------------------------------------------------------ asking and telling
def _search(
    run: Run,
    study: optuna.Study,
    space: dict[str, BaseDistribution],
    defaults: dict[str, Any],
    how: Order,
    trials: int,
    limit: float,
    jobs: int,
    inbox: SimpleQueue,
    submit: Submit,
) -> None:
    """Ask for trials and tell how they ended until there are enough, or `limit` seconds are over."""
    seed, began = run.load("request", Request).seed, time.monotonic() - sum(map(_seconds, _done(study)))
    flying: dict[int, tuple[optuna.Trial, Order]] = {}
    lost: set[int] = set()
    known: set[tuple[str, int]] = set()

    def send(order: Order) -> None:
        future = submit(order)
        future.add_done_callback(lambda future: inbox.put((order.k, future)))

    while True:
        while len(flying) < jobs and (begun := len(_done(study)) + len(flying)) < trials:
            if begun and time.monotonic() - began >= limit:
                break
            trial = _ask(study, space, defaults, seed)
            resume, k = "lost" in trial.user_attrs, trial.user_attrs["k"]
            settings = {"epochs": _epochs(run), **trial.params}
            order = replace(how, number=trial.number, k=k, settings=settings, resume=resume)
            if resume:
                known |= {(event["attempt"], event["epoch"]) for event in run.events() if event["kind"] == "epoch"}
            flying[k] = trial, order
            send(order)
        if not flying:
            return
        k, said = inbox.get()
        trial, order = flying[k]
        if not isinstance(said, Future):
            if (order.name, said["epoch"]) not in known:
                known.add((order.name, said["epoch"]))
                run.event("epoch", attempt=order.name, epochs=order.settings["epochs"], **said)
            continue
        try:
            ended = said.result()
        except BrokenExecutor as error:
            if k not in lost:
                lost.add(k)
                run.event("warning", text=f"{order.name} lost its worker and is carried out once more.")
                send(replace(order, resume=True))
                continue
            ended = Ended("failed", (), f"{order.name} lost its worker twice: {str(error) or type(error).__name__}.")
        _tell(run, study, trial, order, ended)
        del flying[k]


def _ask(study: optuna.Study, space: dict[str, BaseDistribution], defaults: dict[str, Any], seed: int) -> optuna.Trial:
    """The next trial; its user attribute k is its number among ours.

    The k-th is a function of the seed and of the trials before it. TPE pays no heed to failed ones, and takes those
    that still run for bad ones, so that two at a time are not alike.
    """
    trials = study.get_trials(deepcopy=False)
    counted = (trial for trial in trials if not _interrupted(trial))
    taken = {trial.user_attrs.get("k", trial.number if trial.state.is_finished() else None) for trial in counted}
    k = next(k for k in range(len(trials) + 1) if k not in taken)
    if k == 0 and not any(trial.state == TrialState.WAITING for trial in trials):
        study.enqueue_trial(defaults)
    study.sampler = optuna.samplers.TPESampler(seed=seed * 1000 + k, n_startup_trials=STARTUP, constant_liar=True)
    trial = study.ask(fixed_distributions=space)
    if "k" not in trial.user_attrs:
        trial.set_user_attr("k", k)
    return trial


def _tell(run: Run, study: optuna.Study, trial: optuna.Trial, order: Order, ended: Ended) -> None:
    best = _best(ended.scores) if ended.scores else None
    trial.set_user_attr("seconds", ended.seconds)
    if ended.state == "failed":
        trial.set_user_attr("reason", ended.reason)
    state = next(theirs for theirs, ours in STATES.items() if ours == ended.state)
    study.tell(trial, best if state == TrialState.COMPLETE else None, state=state)
    run.event("trial", number=order.k, state=ended.state, score=best)
    for left in (order.name, f"{order.name}.lock"):
        untrusted.remove(run.folder / "attempts" / left)


def _opened(run: Run, storage: str, create: bool = False) -> optuna.Study:
    """The run's study. Args: storage: the path of a journal, or a database that other runs may share."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    name = run.id if "://" in storage else "tune"
    pruner = Halving(_epochs(run))
    place = storage_of(storage)
    if create:
        return optuna.create_study(
            study_name=name, storage=place, direction="maximize", pruner=pruner, load_if_exists=True
        )
    return optuna.load_study(study_name=name, storage=place, pruner=pruner)


def _study(run: Run, storage: str) -> optuna.Study:
    return _opened(run, storage, create=True)


def _ask_again(study: optuna.Study, space: dict[str, BaseDistribution]) -> None:
    """Put what still runs, and so was interrupted, back into the queue, if a crash amid this did not let it through."""
    waiting = {trial.user_attrs.get("k") for trial in study.get_trials(states=(TrialState.WAITING,))}
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        params, k = trial.system_attrs.get("fixed_params") or trial.params, trial.user_attrs.get("k")
        if "reason" not in trial.user_attrs and k is not None and k not in waiting and set(params) == set(space):
            lost = trial.user_attrs.get("lost", 0) + 1
            study.enqueue_trial(params, user_attrs={"k": k, "lost": lost})
        study.tell(trial.number, state=TrialState.FAIL)


class Halving(optuna.pruners.BasePruner):
    """Asynchronous successive halving: after a ninth and a third of the epochs only the best third goes on.

    A trial is compared, by its `_best` so far, with all that have come as far, if they are STARTUP or more. Unlike
    Optuna's SuccessiveHalvingPruner it counts no interrupted trial, which is there once more since it was begun again,
    so that a study that was killed ends as one that was not.

    Source: Li et al. 2020, arXiv:1810.05934.
    """

    def __init__(self, epochs: int):
        self.rungs = {ceil(epochs / RATE**2), ceil(epochs / RATE)}

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial, which has just reported an epoch, is to end."""
        reached = len(trial.intermediate_values)
        if reached not in self.rungs:
            return False
        rivals = [
            _best(_curve(other)[:reached])
            for other in study.get_trials(deepcopy=False)
            if other.number != trial.number and len(other.intermediate_values) >= reached and not _interrupted(other)
        ]
        own = _best(_curve(trial))
        better = sum(rival > own for rival in rivals)
        return len(rivals) >= STARTUP and better >= (len(rivals) + 1) // RATE


def _best(scores: Sequence[float]) -> float:
    """The best mean of an epoch's score and of the two before it, by which a script keeps an epoch, too."""
    return max(fmean(scores[max(0, end - 3) : end]) for end in range(1, len(scores) + 1))


def _curve(trial: FrozenTrial) -> tuple[float, ...]:
    """Its validation score an epoch."""
    return tuple(score for _, score in sorted(trial.intermediate_values.items()))


def _interrupted(trial: FrozenTrial) -> bool:
    """It failed without a reason: it was begun again, or was never begun."""
    return trial.state == TrialState.FAIL and "reason" not in trial.user_attrs


def _done(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that came to an end of their own, in the order of asking."""
    ended = study.get_trials(states=tuple(STATES), deepcopy=False)
    return sorted((t for t in ended if not _interrupted(t)), key=lambda t: t.user_attrs.get("k", t.number))


def _told(study: optuna.Study, done: list[FrozenTrial]) -> Tuned:
    """The trials as values, numbered as they were begun, and the settings of the best."""
    trials = [
        Trial(
            number=k,
            state=STATES[trial.state],
            score=_best(_curve(trial)) if trial.intermediate_values else None,
            settings=trial.params,
            curve=_curve(trial),
            seconds=_seconds(trial),
        )
        for k, trial in enumerate(done)
    ]
    complete = [trial for trial in trials if trial.state == "complete"]
    if not complete:
        optuna.delete_study(study_name=study.study_name, storage=study._storage)  # a resumed run tries them again
        raise M3Error(f"All {len(done)} trials failed. The last: {done[-1].user_attrs['reason']}")
    best = max(complete, key=lambda trial: trial.score or 0.0)
    return Tuned(trials=tuple(trials), settings=best.settings)


def _seconds(trial: FrozenTrial) -> float:
    return trial.user_attrs.get("seconds", 0.0)


def _epochs(run: Run) -> int:
    return max(2, ceil(run.load("design", Design).epochs / 3))


def _warn(jobs: int) -> None:
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    if jobs > _cores() or 0 < gpus < jobs:
        has = f"{_cores()} cores" + (f" and {gpus} GPUs" if gpus else "")
        warnings.warn(f"--jobs {jobs} is more than this machine has, {has}: trials share them.", stacklevel=2)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ------------------------------------------------------------------------------------------------ the space
def _space(run: Run, trusted: bool, unsafe: bool) -> tuple[dict[str, BaseDistribution], dict[str, Any]]:
    """The script's search space, and its defaults there.

    Raises: DataError: something that is no distribution, a choice that is no plain value, or a default outside.
    """
    texts, defaults = training.space(run, trusted=trusted, unsafe=unsafe)
    space = {}
    for name, text in texts.items():
        try:
            space[name] = json_to_distribution(text)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"The script's SPACE[{name!r}] is no Optuna distribution: {error}.") from None
        for choice in getattr(space[name], "choices", ()):
            if not isinstance(choice, str | int | float):
                raise DataError(
                    f"The script's SPACE[{name!r}] offers {choice!r}; a choice must be a text, a number, true or false."
                )
        if not _allows(space[name], defaults[name]):
            raise DataError(
                f"The script's default {name}={defaults[name]!r} lies outside its own SPACE: {space[name]}."
            )
    return space, defaults


def _allows(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    if not isinstance(distribution, IntDistribution | FloatDistribution):
        return False
    kind = int if isinstance(distribution, IntDistribution) else int | float
    return isinstance(value, kind) and distribution.low <= value <= distribution.high
