"""A candidate in a process of its own, so that it can be ended hard when its time is over.

    python -m m3dspy.m3bench.limited < pickled

The child takes the candidate and its assignment from its input, and writes what came of them to a file that the parent
names. It leads a group of its own, which is killed as a whole; when its input ends, the parent is gone and it goes too.
What it starts in sandboxes dies with it.
"""

import os
import pickle
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from m3dspy.errors import M3Error
from m3dspy.m3bench.candidate import Assignment, Candidate, Submission


def within(minutes: float, candidate: Candidate, assignment: Assignment) -> Submission:
    """What the candidate makes of its assignment in that time.

    Raises: M3Error: the candidate's own, or its time was over, or it ended without a word.
    """
    with TemporaryDirectory(prefix="m3dspy-limited-") as temporary:
        answer = Path(temporary) / "answer"
        given = pickle.dumps((str(answer), sys.path, pickle.dumps((candidate, assignment))))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-m", "m3dspy.m3bench.limited"]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, env=environment)
        try:
            assert child.stdin
            child.stdin.write(len(given).to_bytes(8, "little") + given)
            child.stdin.flush()
            child.wait(minutes * 60)
        except subprocess.TimeoutExpired:
            raise M3Error(f"The round was ended after {minutes:g} minutes, which was all it had.") from None
        except BrokenPipeError:
            child.wait()
        finally:
            _end(child)
        if not answer.is_file():
            raise M3Error(f"The candidate's process ended with status {child.returncode} and said nothing.")
        found = pickle.loads(answer.read_bytes())
    if isinstance(found, BaseException):
        raise found
    return found


def _end(child: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdin:
        with suppress(BrokenPipeError):
            child.stdin.close()


def main() -> None:
    source = sys.stdin.buffer
    answer, path, work = pickle.loads(source.read(int.from_bytes(source.read(8), "little")))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.path[:] = path
    candidate, assignment = pickle.loads(work)
    try:
        found = candidate(assignment)
    except Exception as error:
        found = error
    Path(answer + ".new").write_bytes(pickle.dumps(found))
    Path(answer + ".new").rename(answer)


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
