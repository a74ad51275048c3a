"""Where Optuna's studies are kept: a journal in the run folder, or a database that is named by its URL.

The journal is Optuna's, made to survive `kill -9` of whoever writes it. Optuna's own locks are files, which a killed
holder leaves behind; and a last line that it tore ruins the journal at the next append. Here the kernel holds the lock,
and whoever gets it cuts off a torn line first.
"""

import fcntl
import os
import time
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy import URL, event, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    OperationalError,
    ProgrammingError,
)

from m3dspy.errors import M3Error, UsageError
from m3dspy.workspace.runs import heal

PASSWORD = "M3DSPY_STORAGE_PASSWORD"  # environment variable: what a URL without a password is opened with
_SECONDS = 10  # to reach a database
_DRIVERS = {
    "postgresql": "pip install 'm3dspy[postgresql]'",
    "mysql": "pip install pymysql, and write mysql+pymysql://",
}


class HealingLock(JournalFileOpenLock):
    """A kernel lock on `<journal>.lock` under which the journal always ends with a whole line."""

    def __init__(self, journal: Path):
        self.journal, self.file = journal, -1

    def acquire(self) -> bool:
        self.file = os.open(f"{self.journal}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(self.file, fcntl.LOCK_EX)  # FileLock would ask again and again, and be many times slower
        heal(self.journal)
        return True

    def release(self) -> None:
        os.close(self.file)


def storage_of(place: str | Path) -> BaseStorage:
    """A storage for Optuna studies: a path is a journal, a URL such as postgresql://user@host/name a database.

    Every later call raises an M3Error too when the database is gone.

    Raises: UsageError: no such database, driver or address.  M3Error: it cannot be reached, or lets nobody in.
    """
    return _database(str(place)) if "://" in str(place) else journal_storage(Path(place))


def journal_storage(path: Path) -> JournalStorage:
    """A storage for Optuna studies in one file; the folder is made if need be."""
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(path), HealingLock(path)))


def keep_password(url: str) -> str:
    """The URL as a run folder may hold it: a password in it goes into the environment of this process.

    Raises: UsageError: it is no URL of a database.
    """
    parsed = _parsed(url)
    if password := parsed.password or parsed.query.get("password"):
        os.environ[PASSWORD] = str(password)
    return parsed._replace(password=None).difference_update_query(["password"]).render_as_string()


# ------------------------------------------------------------------------------------------------ a database
def _database(text: str) -> RDBStorage:
    url = _parsed(text)
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg2")
    if url.password is None and url.username and PASSWORD in os.environ:
        url = url.set(password=os.environ[PASSWORD])
    name = _shown(url)
    connect = {"connect_timeout": _SECONDS} if url.get_backend_name() in _DRIVERS else {}
    engine = {"pool_pre_ping": True, "connect_args": connect}
    storage, tries = None, 3  # several may make the tables at the same time, and all but one fail
    while storage is None:
        try:
            storage = RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=engine)
        except ImportError as error:
            fix = _DRIVERS.get(url.get_backend_name(), "install it")
            raise UsageError(f"{name} needs a driver that is not here ({error.__cause__ or error}). {fix}.") from None
        except NoSuchModuleError:
            raise UsageError(f"{name}: Optuna cannot use such a database. Give {_EXAMPLE}.") from None
        except (IntegrityError, ProgrammingError) as error:
            tries -= 1
            if not tries:
                raise M3Error(f"The storage {name} cannot hold studies: {_first_line(error)}.") from None
            time.sleep(0.2)
        except OperationalError as error:
            raise M3Error(
                f"The storage {name} does not let us in: {_first_line(error)}. Start the database, or mend --storage; "
                f"the password may also stand in {PASSWORD}."
            ) from None
    event.listen(storage.engine, "handle_error", lambda context: _gone(context, name))
    return storage


_EXAMPLE = "postgresql://user@host/name, mysql+pymysql://user@host/name or sqlite:////folder/file"


def _gone(context: Any, name: str) -> None:
    """In place of the driver's error, when the database went away."""
    if context.is_pre_ping or not (context.is_disconnect or isinstance(context.sqlalchemy_exception, OperationalError)):
        return
    why = _first_line(context.sqlalchemy_exception or context.original_exception)
    raise M3Error(f"The storage {name} is gone ({why}). Bring it back, and: m3dspy resume RUN") from None


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        raise UsageError(f"--storage is the URL of a database: {_EXAMPLE}.") from None


def _shown(url: URL) -> str:
    """Without the password, and without the options, which may hold one too."""
    return url.set(query={}).render_as_string(hide_password=True)


def _first_line(error: BaseException) -> str:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0].rstrip(".")
