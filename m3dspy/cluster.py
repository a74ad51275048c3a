"""Where work is carried out: in this process, in a few processes of this machine, or on a Dask cluster.

    with cluster.executor("tcp://head:8786", jobs=None, home=out, sees=[data]) as pool:
        future = pool.submit(function, value)         # a function at a module's top level, values that can be pickled

The layers below see a `concurrent.futures.Executor` and no more. Dask begins work anew when its worker is lost, three
times by default; here it is begun once more, and lost again it is given up (`WorkLost`): what brings down two workers
would bring down the third. Every beginning is booked in a folder below `home`, which all machines have to share.
"""

import logging
import os
import platform
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Any

import m3dspy
from m3dspy.errors import M3Error, UsageError

BEGINNINGS = 2  # of the same work: the first, and once more when its worker was lost
_SECONDS = 10  # to reach the scheduler, and to reach it again


class WorkLost(M3Error):
    """The workers that carried it out were lost."""


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
    try:
        import distributed
    except ImportError:
        raise UsageError("--cluster needs the package distributed. Install it: pip install 'm3dspy[cluster]'") from None
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what it has to say is said in the messages here
    home.mkdir(parents=True, exist_ok=True)
    client = None
    try:
        client = distributed.Client(address, timeout=_SECONDS, set_as_default=False, name="m3dspy")
        with TemporaryDirectory(prefix=".cluster-", dir=home) as book:
            slots, needs = _slots(address, client)
            _check(client, Path(book), sees)
            pool = Cluster(client, address, jobs or slots, needs, Path(book))
            try:
                yield pool
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
    except (OSError, TimeoutError, ValueError, ImportError) as error:
        if client is not None:
            raise
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f"No Dask scheduler answers at {address} ({why}). Start one (`dask scheduler`) and give the address that "
            "it prints, such as tcp://head:8786."
        ) from None
    finally:
        if client is not None:
            with suppress(Exception):
                client.close(timeout=2)


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
    """A call, and a name under which its beginnings are booked."""

    name: str
    book: Path
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]

    def __call__(self) -> Any:
        for beginning in range(BEGINNINGS):
            try:
                (self.book / f"{self.name}-{beginning}").touch(exist_ok=False)
            except FileExistsError:
                continue
            return self.function(*self.arguments, **self.keywords)
        raise WorkLost(_LOST)


_LOST = (
    "Its worker was lost, and so was the one that began it anew (killed, out of memory, or the machine is gone). "
    "See the workers' logs."
)


class Cluster(Executor):
    """A Dask cluster as an Executor with at most `jobs` pieces of work at a time; the others wait here, in order.

    What waits at a worker that is lost would count as its victim with Dask; here it waits with nobody.
    """

    def __init__(self, client: Any, address: str, jobs: int, needs: dict[str, float], book: Path):
        self._client, self._address, self._needs, self._book = client, address, needs, book
        self._free = jobs
        self._waiting: deque[tuple[Future[Any], _Work]] = deque()
        self._lock = threading.Lock()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As any Executor. The future raises WorkLost, ClusterLost, or what `fn` raised."""
        near: Future[Any] = Future()
        work = _Work(f"{getattr(fn, '__name__', 'work')}-{token_hex(8)}", self._book, fn, args, kwargs)
        with self._lock:
            self._waiting.append((near, work))
        self._go_on(0)
        return near

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing is begun any more; what a worker has begun it brings to its end."""
        with self._lock:
            waiting = list(self._waiting) if cancel_futures else []
            self._waiting.clear()
        for near, _ in waiting:
            near.cancel()

    def _go_on(self, freed: int) -> None:
        """Begin what waits, as far as there is room."""
        with self._lock:
            self._free += freed
            begun = []
            while self._waiting and self._free:
                near, work = self._waiting.popleft()
                if near.set_running_or_notify_cancel():
                    self._free -= 1
                    begun.append((near, work))
        for near, work in begun:
            try:
                far = self._client.submit(work, key=work.name, pure=False, resources=self._needs)
            except Exception:  # the client closes itself when the scheduler stays away
                near.set_exception(self._gone())
                continue
            far.add_done_callback(lambda far, near=near: self._told(near, far))

    def _told(self, near: Future[Any], far: Any) -> None:
        try:
            if far.status == "finished":
                near.set_result(far.result(timeout=_SECONDS))
            elif far.status == "error":
                error = far.exception(timeout=_SECONDS)
                near.set_exception(WorkLost(_LOST) if type(error).__name__ == "KilledWorker" else error)
            else:
                near.set_exception(self._gone())
        except Exception:  # the scheduler went away with the result
            near.set_exception(self._gone())
        self._go_on(1)

    def _gone(self) -> ClusterLost:
        return ClusterLost(
            f"The Dask scheduler at {self._address} is gone. What was finished is kept: bring it back, and the same "
            "command goes on."
        )
