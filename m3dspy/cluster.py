"""Where work is carried out: in this process, in a few processes of this machine, or on a Dask cluster.

    with cluster.executor("tcp://head:8786", jobs=None, home=out, sees=[data]) as pool:
        future = pool.submit(function, value)         # a function at a module's top level, values that can be pickled

The layers below see a `concurrent.futures.Executor` and no more. A future that raises BrokenExecutor was lost with its
worker, and whoever sent the work may send it again; where `submit` raises it, nothing can be carried out any more.

Dask by itself begins work anew, up to three times, when its worker is lost. Not so here: every beginning is booked in a
folder below `home`, which all machines share, and a second one is told as WorkLost.
"""

import logging
import os
import platform
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Any

import m3dspy
from m3dspy.errors import M3Error, UsageError

_SECONDS = 10  # to reach the scheduler, and to reach it again


class WorkLost(M3Error, BrokenExecutor):
    """The worker that carried it out was lost."""

    def __init__(self) -> None:
        super().__init__("Its worker was lost (killed, out of memory, or the machine is gone). See the workers' logs.")

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(self), ()


class ClusterLost(M3Error, BrokenExecutor):
    """The scheduler is gone: whatever is not done will not be."""


@contextmanager
def executor(address: str | None, jobs: int | None, home: Path, sees: Sequence[Path] = ()) -> Iterator[Executor | None]:
    """What carries out work; None: this process is to do it itself, one piece after another.

    Args: address: of a Dask scheduler; None: this machine.  jobs: pieces of work at a time; None: one on this machine,
          as many as the workers have threads (or GPUs) on a cluster.  home: a folder that the work writes to.  sees:
          what it reads. Every worker must see both under the same path.
    Raises: UsageError: no such address.  M3Error: the cluster cannot be used; or, at the end, it or a process was lost.
    """
    if address is not None:
        with _connected(address, jobs, home.resolve(), [path.resolve() for path in sees]) as cluster:
            yield cluster
    elif jobs in (None, 1):
        yield None
    else:
        with _processes(jobs) as pool:
            yield pool


@contextmanager
def _processes(jobs: int) -> Iterator[Executor]:
    """Processes, not threads: a run sets the warnings and the random state of its process."""
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_end_with_parent)
    try:
        yield pool
    except BrokenProcessPool:
        raise M3Error(
            "A process of this machine was killed at its work (out of memory?). What was finished is kept: the same "
            "command goes on; with fewer --jobs it needs less memory."
        ) from None
    except BaseException:
        for process in list((pool._processes or {}).values()):  # work in progress is resumed later, not waited for now
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """End this process at once when the one that started it is gone."""
    parent = parent_process()

    def watch() -> None:
        if parent:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# ------------------------------------------------------------------------------------------------ a Dask cluster
@contextmanager
def _connected(address: str, jobs: int | None, home: Path, sees: Sequence[Path]) -> Iterator[Executor]:
    client = _client(address)
    home.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(prefix=".cluster-", dir=home, ignore_cleanup_errors=True) as book:
            slots, needs = _slots(address, client)
            _check(client, Path(book), sees)
            pool = Cluster(client, address, jobs or slots, needs, Path(book))
            try:
                yield pool
            finally:
                pool.shutdown(cancel_futures=True)
    finally:
        with suppress(Exception):
            client.close(timeout=2)


def _client(address: str) -> Any:
    try:
        import distributed
        from distributed.comm import get_address_host_port
    except ImportError:
        raise UsageError("--cluster needs the package distributed. Install it: pip install 'm3dspy[cluster]'") from None
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what it has to say is said in the messages here
    try:
        _knock(address, get_address_host_port(address))
        return distributed.Client(address, timeout=_SECONDS, set_as_default=False, name="m3dspy")
    except Exception as error:  # whatever may answer at a port
        raise UsageError(
            f"No Dask scheduler answers at {address} ({type(error).__name__}: {error}). Start one (`dask scheduler`) "
            "and give the address that it prints, such as tcp://head:8786. For a run without: resume RUN --cluster ''"
        ) from None


def _knock(address: str, place: tuple[str, int]) -> None:
    """A scheduler greets whoever comes, unless it is asked for TLS first; a Client would wait for that without end.

    Raises: OSError: nobody is there, or says nothing.
    """
    with socket.create_connection(place, timeout=_SECONDS) as door:
        if not address.startswith("tls:"):
            door.recv(1)


def _slots(address: str, client: Any) -> tuple[int, dict[str, float]]:
    """How much can be done at a time, and what each piece of work needs: a GPU where the workers declare any."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if not workers:
        raise UsageError(f"The cluster at {address} has no workers. Start some: dask worker {address} --nthreads 1")
    gpus = sum(worker["resources"].get("GPU", 0) for worker in workers)
    if gpus:
        return int(gpus), {"GPU": 1}
    return sum(worker["nthreads"] for worker in workers), {}


def _check(client: Any, book: Path, sees: Sequence[Path]) -> None:
    """Every worker has this m3dspy and this Python, and sees the same files.

    Raises: M3Error: naming the first that does not.
    """
    (book / "token").touch()
    ours = _seen([])
    for worker, found in client.run(_seen, [book / "token", *sees], on_error="return").items():
        if isinstance(found, BaseException):
            raise M3Error(
                f"Worker {worker} cannot do our work ({type(found).__name__}: {found}). Install m3dspy "
                f"{m3dspy.__version__} there, in the Python that its `dask worker` runs in."
            )
        for part in ("m3dspy", "Python"):
            if found[part] != ours[part]:
                raise M3Error(f"Worker {worker} has {part} {found[part]}, here it is {ours[part]}. Make them the same.")
        if found["missing"]:
            path = Path(found["missing"][0])
            raise M3Error(
                f"Worker {worker} does not see {book.parent if path.parent == book else path}. A cluster works on "
                "files that all machines see under the same path: put data and output on a shared file system."
            )


def _seen(paths: Sequence[Path]) -> dict[str, Any]:
    """What a worker has, and which of the paths it does not see."""
    version = ".".join(platform.python_version_tuple()[:2])
    return {"m3dspy": m3dspy.__version__, "Python": version, "missing": [str(p) for p in paths if not p.exists()]}


@dataclass(frozen=True)
class _Work:
    """A call, and the name under which its beginning is booked."""

    name: str
    book: Path
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]

    def __call__(self) -> Any:
        try:
            (self.book / self.name).touch(exist_ok=False)
        except FileExistsError:
            raise WorkLost from None
        return self.function(*self.arguments, **self.keywords)


class Cluster(Executor):
    """A Dask cluster as an Executor with at most `jobs` pieces of work at a time; the others wait here, in order.

    What waits at a worker that is lost would count as its victim with Dask; here it waits with nobody.
    """

    def __init__(self, client: Any, address: str, jobs: int, needs: dict[str, float], book: Path):
        self._client, self._needs, self._book = client, needs, book
        self._free = jobs
        self._waiting: deque[tuple[Future[Any], _Work]] = deque()
        self._lock = threading.Lock()
        self._gone = False
        self._lost = ClusterLost(
            f"The Dask scheduler at {address} is gone. What was finished is kept: bring it back, and the same command "
            "(for a run: m3dspy resume) goes on."
        )

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As any Executor. The future raises what `fn` raised, or WorkLost, or ClusterLost.

        Raises: ClusterLost: the scheduler was lost before.
        """
        if self._gone:
            raise self._lost
        near: Future[Any] = Future()
        work = _Work(f"{getattr(fn, '__name__', 'work')}-{token_hex(8)}", self._book, fn, args, kwargs)
        with self._lock:
            self._waiting.append((near, work))
        self._go_on()
        return near

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing more is begun if `cancel_futures`; what a worker has begun it brings to its end, in any case."""
        with self._lock:
            waiting = list(self._waiting) if cancel_futures else []
        for near, _ in waiting:
            near.cancel()

    def _go_on(self) -> None:
        """Begin what waits, as far as there is room."""
        begun = []
        with self._lock:
            while self._waiting and self._free:
                near, work = self._waiting.popleft()
                if near.set_running_or_notify_cancel():
                    self._free -= 1
                    begun.append((near, work))
        for near, work in begun:
            try:
                far = self._client.submit(work, key=work.name, pure=False, resources=self._needs)
            except Exception:  # the client closes itself when the scheduler stays away
                self._end(near, self._scheduler_lost())
            else:
                far.add_done_callback(partial(self._told, near))

    def _told(self, near: Future[Any], far: Any) -> None:
        """How a piece of work ended, as the scheduler tells it."""
        try:
            if far.status == "finished":
                self._end(near, None, far.result(timeout=_SECONDS))
            elif far.status == "error":
                error = far.exception(timeout=_SECONDS)
                self._end(near, WorkLost() if type(error).__name__ == "KilledWorker" else error)
            else:
                self._end(near, self._scheduler_lost())
        except Exception:  # the result went away while it was fetched
            self._end(near, self._scheduler_lost() if self._client.status != "running" else WorkLost())
        self._go_on()

    def _end(self, near: Future[Any], error: BaseException | None, result: Any = None) -> None:
        with self._lock:
            self._free += 1
        if error is None:
            near.set_result(result)
        else:
            near.set_exception(error)

    def _scheduler_lost(self) -> ClusterLost:
        self._gone = True
        return self._lost
