"""A script gets what it needs, nothing else, and ends when it should: contained, and without a sandbox."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections import deque
from contextlib import closing
from pathlib import Path

import pytest

from m3dspy import machine
from m3dspy.errors import M3Error, NoSandbox, RunFailed
from m3dspy.workspace import execute, sandbox
from m3dspy.workspace.execute import Limits


def levels():
    """Every level, the missing ones to be skipped with the reason."""
    box = execute.probe()
    lacks = {
        "bwrap": "" if box.level == "bwrap" else box.why,
        "landlock": sandbox.trial(sandbox.Containment("landlock")),
    }
    marks = {name: [pytest.mark.skip(reason=f"no {name}: {why}")] if why else [] for name, why in lacks.items()}
    return [*(pytest.param(name, marks=mark) for name, mark in marks.items()), pytest.param("none")]


pytestmark = [
    pytest.mark.filterwarnings("ignore:No sandbox here"),
    pytest.mark.filterwarnings("ignore:m3dspy runs as root"),
]
LEVELS = levels()
WALLED = [level for level in LEVELS if level.values[0] != "none"]
MIB = 1 << 20


def force(monkeypatch, name):
    box = execute.probe() if name == "bwrap" else execute.Containment(name, why="a test of this level")
    monkeypatch.setattr(execute, "probe", lambda: box)
    return name


@pytest.fixture(params=LEVELS)
def level(request, monkeypatch):
    """Every promise that does not need walls must hold with and without them."""
    return force(monkeypatch, request.param)


@pytest.fixture(params=WALLED)
def walled(request, monkeypatch):
    return force(monkeypatch, request.param)


@pytest.fixture(params=LEVELS[:1])
def bwrap(request, monkeypatch):
    return force(monkeypatch, request.param)


@pytest.fixture
def script(tmp_path):
    """Start the text of a script; `script(text)` is the stream of its lines."""

    def start(text, *arguments, data=None, **options):
        for folder in ("code", "out"):
            (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / "code" / "train.py").write_text(text)
        settings = {"log": tmp_path / "train.log", "seconds": 20, "trusted": True, "unsafe": False, **options}
        mounts = {"data": data} if data else {}
        return execute.stream(tmp_path / "code", "train.py", arguments, out=tmp_path / "out", mounts=mounts, **settings)

    return start


def processes(word):
    """How many processes have `word` on their command line."""
    lines = [path.read_bytes() for path in map(Path, Path("/proc").glob("[0-9]*/cmdline")) if path.exists()]
    return sum(word.encode() in line for line in lines)


# ------------------------------------------------------------------------------------------------ streaming
def test_lines_come_while_the_script_still_runs(script, level):
    with closing(script("import time\nprint('one')\ntime.sleep(10)")) as lines:
        start = time.monotonic()
        assert next(lines) == "one"
        assert time.monotonic() - start < 5


def test_names_in_braces_become_the_paths_that_the_script_sees(script, level, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.txt").write_text("seen")
    text = """
import sys
data, out, json = sys.argv[1:]
open(out + "/b.txt", "w").write(open(data + "/a.txt").read() + json)
"""
    assert list(script(text, "{data}", "{out}", '{"lr": 1}', data=tmp_path / "set")) == []
    assert (tmp_path / "out" / "b.txt").read_text() == 'seen{"lr": 1}'


def test_modules_beside_the_script_are_importable_and_the_folder_of_work_is_out(script, level, tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "network.py").write_text("NAME = 'cnn'")
    assert list(script("import network; open('here', 'w'); print(network.NAME)")) == ["cnn"]
    assert (tmp_path / "out" / "here").exists()


def test_the_log_holds_both_streams_and_only_stdout_is_yielded(script, level, tmp_path):
    assert list(script("import sys; print('out'); print('err', file=sys.stderr)")) == ["out"]
    assert sorted((tmp_path / "train.log").read_text().split()) == ["err", "out"]


def test_a_long_line_is_cut_and_bytes_that_are_no_text_are_replaced(script, level):
    long, odd, last = script(
        "import sys; print('x' * 200_000); sys.stdout.buffer.write(b'\\xff\\n'); print('end', end='')"
    )
    assert (len(long), odd, last) == (64 * 1024, "\N{REPLACEMENT CHARACTER}", "end")


def test_the_number_of_threads_reaches_the_script(script, level):
    assert list(script("import os; print(os.environ['OMP_NUM_THREADS'])", threads=3)) == ["3"]


def test_a_script_can_be_told_lines_while_it_runs(script, level):
    tell = []
    with closing(script("import sys\nfor line in sys.stdin: print(line.strip() * 2)", listen=tell.append)) as lines:
        said = filter(None, lines)  # an empty line is half a second of silence, which a busy machine may need
        threading.Timer(0.5, lambda: tell[0]("ab")).start()
        assert next(said) == "abab"
        tell[0]("c")
        assert next(said) == "cc"
    tell[0]("too late")


# ------------------------------------------------------------------------------------------------ endings
def test_a_failed_script_is_told_with_its_status_and_last_words(script, level):
    with pytest.raises(
        RunFailed, match=r"^train\.py ended with status 1\. Log: .*\n(.*\n)*.*ValueError: no such label"
    ):
        list(script("raise ValueError('no such label')"))


def test_a_killed_script_is_told_with_its_signal(script, level):
    with pytest.raises(RunFailed, match=r"^train\.py was killed \(signal 9\); out of memory\?"):
        list(script("import os; os.kill(os.getpid(), 9)"))
    with pytest.raises(RunFailed, match=r"^train\.py was killed \(signal 11\)\."):
        list(script("import os; os.kill(os.getpid(), 11)"))


def stopped(reason):
    return pytest.raises(RunFailed, match=rf"^train\.py was stopped: {reason}\. Log: ")


def test_the_time_limit_ends_a_silent_script(script, level):
    start = time.monotonic()
    with stopped(r"time, 0\.[56] of 0\.5 s") as failed:
        list(script("import time; time.sleep(60)", seconds=0.5))
    assert time.monotonic() - start < 3
    assert failed.value.cut


def test_at_the_time_limit_a_script_may_still_save_its_work(script, level, tmp_path):
    text = """
import signal, sys, time
def leave(*_):
    open("saved", "w").close()
    sys.exit()
signal.signal(signal.SIGTERM, leave)
time.sleep(60)
"""
    with stopped(r"time, 1\.\d of 1\.0 s"):
        list(script(text, seconds=1))
    assert (tmp_path / "out" / "saved").exists()


def test_a_script_that_does_nothing_is_stopped_however_much_it_prints(script, level):
    with stopped(r"idle, [12]\.\d of 1\.0 s"):
        list(script("import time\nwhile True: print('wait'); time.sleep(0.2)", limits=Limits(idle=1)))
    with stopped(r"time, 2\.\d of 2\.0 s"):
        list(script("while True: pass", limits=Limits(idle=1), seconds=2))


def test_a_flood_of_output_is_stopped(script, level):
    with stopped(r"output, \d of 1 MiB"):
        list(script("import sys\nwhile True: sys.stderr.write('x' * 4000)", limits=Limits(output=MIB)))


def test_a_long_log_keeps_its_head_and_its_tail(script, level, tmp_path):
    deque(script("print('first')\nfor n in range(120): print('x' * 100_000)\nprint('last')"), maxlen=0)
    log = (tmp_path / "train.log").read_text()
    assert (log[:6], log[-5:], len(log) < 9.1 * MIB) == ("first\n", "last\n", True)
    left_out = 6 + 120 * 100_001 + 5 - 9 * MIB
    assert f"\n[{left_out:,} bytes left out]\n" in log


def test_the_memory_limit_holds_for_all_processes_together(script, level):
    text = """
import os, time
for _ in range(5): 
    if os.fork() == 0: break
held = bytearray(b"x") * (60 << 20)
time.sleep(20)
"""
    with stopped(r"memory, 0\.[2345] of 0\.2 GiB"):
        list(script(text, limits=Limits(memory=200 * MIB)))


def test_memory_that_processes_share_counts_once(script, level):
    text = """
import mmap, os, time
held = mmap.mmap(-1, 150 << 20)
held.write(b"x" * (150 << 20))
for _ in range(4):
    if os.fork() == 0:
        sum(held[::4096])
        time.sleep(1.5)
        os._exit(0)
time.sleep(1.5)
"""
    assert list(script(text, limits=Limits(memory=400 * MIB))) == []


def test_memory_in_nameless_files_counts(script, level):
    text = """
import os, time
file = os.memfd_create("m")
for _ in range(300): os.write(file, b"x" * (1 << 20))
time.sleep(20)
"""
    with stopped(r"memory, 0\.[23] of 0\.2 GiB"):
        list(script(text, limits=Limits(memory=200 * MIB, largest=1 << 30)))


def test_memory_in_temporary_folders_counts(script, bwrap):
    text = """
import time
for name in ("/tmp/a", "/dev/shm/b"):
    with open(name, "wb") as file:
        for _ in range(60): file.write(b"x" * (1 << 20))
time.sleep(20)
"""
    with stopped(r"memory, 0\.1 of 0\.1 GiB"):
        list(script(text, limits=Limits(memory=100 * MIB, tmp=80 * MIB, shm=80 * MIB)))


def test_the_number_of_processes_is_limited(script, level):
    text = "import os, time\nfor _ in range(60):\n    if os.fork() == 0: break\ntime.sleep(20)"
    with stopped(r"processes, \d\d of 50"):
        list(script(text, limits=Limits(processes=50)))


def test_the_disk_limit_counts_deleted_files_too(script, level):
    text = "import os, time; f = open('big', 'wb', 0); os.unlink('big'); f.write(b'x' * (30 << 20)); time.sleep(20)"
    with stopped(r"disk, 0\.0 of 0\.0 GiB"):
        list(script(text, limits=Limits(disk=20 * MIB, largest=1 << 30)))


def test_the_disk_limit_also_holds_for_a_script_that_has_ended(script, level):
    with stopped(r"disk, 0\.0 of 0\.0 GiB"):
        list(script("open('big', 'wb').write(b'x' * (30 << 20))", limits=Limits(disk=20 * MIB, largest=1 << 30)))


def test_the_number_of_files_is_limited(script, level):
    with stopped("files, 1?01 of 100"):
        list(script("for n in range(101): open(str(n), 'w')", limits=Limits(files=100)))


def test_what_lies_too_deep_to_be_counted_is_told_and_can_be_removed(script, level, tmp_path):
    text = "import os, time\nfor _ in range(60): os.mkdir('d' * 200); os.chdir('d' * 200)\ntime.sleep(20)"
    with stopped("files, in a folder closed or too deep to be counted"):
        list(script(text))
    shutil.rmtree(tmp_path / "out")


def test_one_file_cannot_grow_beyond_its_limit(script, level, tmp_path):
    with pytest.raises(RunFailed, match="File too large"):
        list(script("f = open('big', 'wb', 0)\nwhile f.write(b'x' * 4096): pass", limits=Limits(largest=MIB)))
    assert (tmp_path / "out" / "big").stat().st_size == MIB


def test_nothing_it_leaves_is_set_uid_or_writable_for_others(script, level, tmp_path):
    text = "import os\nos.mkdir('d'); open('d/f', 'w'); os.chmod('d/f', 0o6777); os.chmod('d', 0o2777)"
    assert list(script(text)) == []
    assert [oct((tmp_path / "out" / name).stat().st_mode & 0o7777) for name in ("d", "d/f")] == ["0o755", "0o755"]


def test_what_it_closed_to_its_owner_can_be_read_and_removed(script, level, tmp_path):
    assert list(script("import os\nos.mkdir('d'); open('d/f', 'w'); os.chmod('d/f', 0); os.chmod('d', 0)")) == []
    assert (tmp_path / "out" / "d" / "f").read_text() == ""


GRANDCHILDREN = """
import os, subprocess, sys, time
sleeper = [sys.executable, "-c", "import time; time.sleep(60)", sys.argv[1]]
subprocess.Popen(sleeper)
subprocess.Popen(sleeper, process_group=0)
print("started", flush=True)
"""


def test_closing_ends_the_script_and_its_grandchildren_at_once(script, level):
    word = f"closing-{level}-{os.getpid()}"
    with closing(script(GRANDCHILDREN + "time.sleep(60)", word)) as lines:
        assert next(lines) == "started"
        while processes(word) < 3:
            time.sleep(0.01)
        start = time.monotonic()
    assert time.monotonic() - start < 1
    assert processes(word) == 0


def test_what_a_finished_script_left_running_is_ended_too(script, level):
    word = f"left-{level}-{os.getpid()}"
    start = time.monotonic()
    assert list(script(GRANDCHILDREN, word)) == ["started"]
    assert time.monotonic() - start < 5
    assert processes(word) == 0


def test_the_script_dies_with_the_process_that_runs_it(level, tmp_path):
    word = f"orphan-{level}-{os.getpid()}"
    (tmp_path / "out").mkdir()
    (tmp_path / "train.py").write_text("import time; print('started'); time.sleep(60)")
    runner = f"""
import os
from pathlib import Path
from m3dspy.workspace import execute
here = Path({str(tmp_path)!r})
if {level!r} != "bwrap":
    execute.probe = lambda: execute.Containment({level!r}, why="test")
rest = dict(out=here / "out", log=here / "log", seconds=60, trusted=True, unsafe=False)
lines = execute.stream(here, "train.py", [{word!r}], **rest)
print(next(lines))
os.kill(os.getpid(), 9)
"""
    done = subprocess.run(
        [sys.executable, "-c", runner], cwd=Path(__file__).parent.parent, capture_output=True, text=True
    )
    assert (done.returncode, processes("never " + word)) == (-9, 0)
    deadline = time.monotonic() + 3
    while processes(word) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert processes(word) == 0


def test_a_full_disk_is_one_line(script, level):
    with pytest.raises(M3Error, match=r"^The disk that holds /dev/full is full\. Free some space"):
        list(script("print('hello')", log=Path("/dev/full")))


# ------------------------------------------------------------------------------------------------ permission
def test_untrusted_code_is_refused_where_nothing_contains_it(script, monkeypatch):
    monkeypatch.setattr(execute, "probe", lambda: execute.Containment("none", why="bubblewrap needs Linux"))
    with pytest.raises(NoSandbox, match=r"nothing here can contain it \(bubblewrap needs Linux\)\. .* --unsafe"):
        next(script("print(1)", trusted=False))


def test_uncontained_code_runs_with_one_warning(script, monkeypatch):
    monkeypatch.setattr(execute, "probe", lambda: execute.Containment("none", why="said once"))
    with pytest.warns(UserWarning, match=r"No sandbox here \(said once\): m3dspy's own scripts run with your rights"):
        assert list(script("print(1)", trusted=True)) == ["1"]
    with pytest.warns(UserWarning, match=r"UNSAFE: no sandbox here \(said once\)\. .* look at the test labels"):
        assert list(script("print(1)", trusted=False, unsafe=True)) == ["1"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(script("print(1)", trusted=True)) == ["1"]


def test_the_environment_is_clean(script, level, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert list(script("import os; print([v for v in os.environ.values() if 'secret' in v])")) == ["[]"]


# ------------------------------------------------------------------------------------------------ walls
def test_the_dataset_and_the_code_cannot_be_written_to(script, bwrap, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.txt").write_text("truth")
    text = """
import sys
for path in (sys.argv[1] + "/a.txt", sys.argv[1] + "/new", sys.argv[2] + "/train.py", "/m3/new", "/usr/new", "/new"):
    try: open(path, "a")
    except OSError as error: print(error.strerror)
"""
    assert list(script(text, "{data}", "{code}", data=tmp_path / "set")) == ["Read-only file system"] * 6
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["a.txt"]


def test_home_other_processes_and_the_environment_cannot_be_seen(script, bwrap, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    beside = tmp_path / "index.json"
    beside.write_text("labels")
    text = f"""
import glob, os
print(os.path.exists({str(beside)!r}), os.environ["HOME"], sorted(os.listdir("/m3")))
print(any(b"secret-key" in open(name, "rb").read() for name in glob.glob("/proc/[0-9]*/environ")))
print(len(glob.glob("/proc/[0-9]*")))
print(os.path.exists({str(Path.home() / ".bashrc")!r}), os.path.exists("/etc/passwd"))
"""
    assert list(script(text)) == ["False /tmp ['code', 'launcher.py', 'lib', 'out']", "False", "2", "False False"]


def test_the_network_cannot_be_reached(script, walled):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        text = f"import socket; socket.create_connection(('127.0.0.1', {port}))"
        own = "Connection refused" if walled == "bwrap" else "Address family not supported"
        with pytest.raises(RunFailed, match=own):  # a loopback of its own, or none
            list(script(text))


def test_kernel_settings_cannot_be_changed(script, bwrap):
    text = "print(open('/proc/sys/kernel/core_pattern', 'w'))"
    with pytest.raises(RunFailed, match="Read-only file system"):
        list(script(text))


def test_workspace_and_signatures_are_importable_inside_and_programs_are_not(script, walled):
    text = """
import m3dspy.workspace.runs, m3dspy.signatures.values, m3dspy.registry
print(m3dspy.workspace.runs.__file__)
import m3dspy.programs
"""
    lines = script(text)
    assert next(lines).endswith("/lib/m3dspy/workspace/runs.py")
    with pytest.raises(RunFailed, match=r"ModuleNotFoundError: No module named 'm3dspy\.programs'"):
        list(lines)


@pytest.mark.slow
def test_torch_trains_inside_with_worker_processes(script, walled):
    text = """
import torch
from torch.utils.data import DataLoader
if __name__ == "__main__":
    batches = DataLoader(torch.arange(8.), batch_size=4, num_workers=2)
    print(sum(batch.sum().item() for batch in batches))
"""
    assert list(script(text, seconds=120)) == ["28.0"]


def test_the_doctor_tells_the_level_and_why_it_is_not_the_best(monkeypatch):
    def told(box):
        monkeypatch.setattr(execute, "probe", lambda: box)
        return next(line for line in machine.as_text(machine.checkup()).splitlines() if line.startswith("sandbox: "))

    why = "bwrap: No permissions to create a new namespace"
    assert told(execute.Containment("bwrap", Path("/usr/bin/bwrap"))).startswith(
        "sandbox: bubblewrap works (/usr/bin/bwrap); seccomp "
    )
    assert told(execute.Containment("landlock", why=why)).endswith(
        f". Weaker than bubblewrap, which does not work here: {why}"
    )
    assert told(execute.Containment("none", why=why)).startswith(f"sandbox: NONE ({why}); seccomp no, Landlock ")
