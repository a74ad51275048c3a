"""Scripts that attack, each at every level of this machine; the verdict comes from outside.

Around the script lie a dataset, hidden test labels, another run, a canary, a secret file, listeners on the loopback and
on Unix sockets, and a process of the same user with a key on its command line; a key is in the environment of this
process, and a file with one is open and inheritable. An attack's own word counts only where it claims a breach.

`M3DSPY_ATTACKS=DIR` tries further scripts. They get M3_DATA, M3_OUT, ATK_OUTSIDE, ATK_PORT, ATK_DECOY, ATK_AGENT.
"""

import hashlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_execute import LEVELS, MIB, force

from m3dspy.errors import DataError, RunFailed
from m3dspy.workspace import execute
from m3dspy.workspace.execute import Limits

HERE = Path(__file__).parent / "attacks"
MORE = Path(os.environ["M3DSPY_ATTACKS"]) if "M3DSPY_ATTACKS" in os.environ else None
ATTACKS = sorted(HERE.glob("[a-e]*.py")) + (sorted(MORE.glob("*.py")) if MORE else [])
LEFTOVERS = sorted(HERE.glob("[fg]*.py"))
KEY = "M3SECRET-6d1f"
SECONDS = 12.0
LIMITS = Limits(
    memory=512 * MIB,
    processes=64,
    disk=100 * MIB,
    files=2000,
    largest=1024 * MIB,
    output=16 * MIB,
    idle=4.0,
    tmp=96 * MIB,
    shm=256 * MIB,
)
ENDS = {  # these go on until they are stopped, by one of these limits
    "d01_fork_bomb": {"processes"},
    "d03_many_hogs": {"memory"},
    "d04_disk_fill": {"disk"},
    "d05_inode_fill": {"files"},
    "d06_deep_folders": {"disk", "files"},
    "d07_infinite_loop": {"time"},
    "d08_infinite_output": {"output"},
    "d09_ignore_sigterm": {"time", "idle"},
    "d13_sigstop_self": {"time", "idle"},
    "d14_nameless_memory": {"memory", "disk"},
    "d15_hidden_disk": {"disk", "files"},
    "d16_idle": {"idle"},
}
OPEN = {  # what Landlock cannot prevent
    "a03_argv": "/proc shows the command lines of other processes",
    "b01_write_dataset": "the owner of a file may change its mode, times and attributes",
    "c03_unix_sockets": "Unix sockets can be reached by path before version 9 of Landlock",
}
PROMISED_WITHOUT_WALLS = {*ENDS, "d02_memory_hog", "d10_daemonise", "d11_hold_pipe", "b06_set_uid"}
WRAPPER = """
import os, runpy, sys
names = ("M3_DATA", "M3_OUT", "ATK_OUTSIDE", "ATK_PORT", "ATK_DECOY", "ATK_AGENT")
os.environ.update(zip(names, sys.argv[1:]))
runpy.run_path(os.path.join(os.path.dirname(__file__), "attack.py"), run_name="__main__")
"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:No sandbox here"),
    pytest.mark.filterwarnings("ignore:m3dspy runs as root"),
]


def state_of(folder):
    """Everything about a folder that an attack might change; not the times of access."""
    for path in [folder, *sorted(folder.rglob("*"))]:
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        yield str(path), status.st_mode, status.st_mtime_ns, status.st_nlink, os.listxattr(path), content


def alive(word):
    """Processes with this word on their command line, this one apart."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if word.encode() in path.read_bytes() and path.parent.name != str(os.getpid()):
                found.append(path.parent.name)
    return found


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """The world around a script; `stage.run(attack)` runs one and tells how."""
    monkeypatch.setenv("M3DSPY_TEST_KEY", KEY)
    files = {
        "data/train.csv": "id,label\n1,a\n",
        "data/img0.bin": "pixels",
        "private/labels.csv": "9,M3TESTLABEL\n",
        "outside/canary.txt": "alive",
        "outside/secret.txt": KEY,
        "runs/other/plan.json": "{}",
        "code/train.py": WRAPPER,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "out").mkdir()
    outside, code, out = tmp_path / "outside", tmp_path / "code", tmp_path / "out"
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0)))]
        port = listeners[0].getsockname()[1]
        for name in (str(outside / "socket"), f"\0m3-attack-{port}"):
            listeners.append(stack.enter_context(socket.socket(socket.AF_UNIX)))
            try:
                listeners[-1].bind(name)
            except OSError:  # a path of more than 107 characters
                os.chdir(outside)
                listeners[-1].bind("socket")
            listeners[-1].listen()
        sleep = [sys.executable, "-c", "import time; time.sleep(120)", f"--key={KEY}"]
        decoy = stack.enter_context(subprocess.Popen(sleep))
        stack.callback(decoy.kill)
        secret = stack.enter_context((outside / "secret.txt").open())
        os.set_inheritable(secret.fileno(), True)
        guarded = [tmp_path / name for name in ("data", "private", "outside", "runs", "code")]

        def run(attack, limits=LIMITS):
            shutil.copy(attack, code / "attack.py")
            seconds = 5.0 if ENDS.get(attack.stem) == {"time"} else SECONDS  # those go on for as long as they may
            before = [list(state_of(folder)) for folder in guarded]
            start, lines, failure = time.monotonic(), [], None
            words = ["{data}", "{out}", str(outside), str(port), str(decoy.pid), str(os.getpid())]
            settings = {"log": tmp_path / "log", "seconds": seconds, "trusted": True, "unsafe": False}
            try:
                lines += execute.stream(
                    code, "train.py", words, out=out, mounts={"data": tmp_path / "data"}, limits=limits, **settings
                )
            except RunFailed as error:
                failure = error
            took = time.monotonic() - start
            log = (tmp_path / "log").read_text(errors="replace")
            told = [line.removeprefix("ATTACK ") for line in log.splitlines() if line.startswith("ATTACK {")]
            claims = [json.loads(line) for line in told]
            return SimpleNamespace(
                failure=failure, took=took, seconds=seconds, claims=claims, lines=lines, out=out, before=before
            )

        def breaches(run):
            """What is not as it should be. Of a fork bomb, the ending `processes` is as safe as a fork that fails."""
            bomb = "fork_bomb" if "was stopped: processes, " in str(run.failure) else None
            claims = [claim for claim in run.claims if claim["breach"] and claim["attack"] != bomb]
            found = [f"it says so: {claim['detail']}" for claim in claims]
            for folder, before in zip(guarded, run.before, strict=True):
                if list(state_of(folder)) != before:
                    found.append(f"{folder.name} has changed")
            for listener in listeners:
                listener.setblocking(False)
                with suppress(BlockingIOError):
                    listener.accept()[0].close()
                    found.append("a listener was reached")
            if decoy.poll() is not None:
                found.append("the decoy is dead")
            if left := alive(str(outside)):
                found.append(f"still alive: {left}")
            if run.took > run.seconds + 4:
                found.append(f"it took {run.took:.1f} s")
            if (tmp_path / "log").stat().st_size > 10 * MIB:
                found.append("the log is too long")
            for path in run.out.rglob("*"):
                if not path.is_symlink() and stat.S_IMODE(path.lstat().st_mode) & 0o6022:
                    found.append(f"{path.name} has mode {path.lstat().st_mode:o}")
            return found

        yield SimpleNamespace(run=run, breaches=breaches, outside=outside, folder=tmp_path)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda path: path.stem)
def test_an_attack_fails(attack, level, stage, monkeypatch, request):
    if level == "none" and attack.stem not in PROMISED_WITHOUT_WALLS:
        pytest.skip("nothing but the limits is promised without walls")
    if level == "landlock" and attack.stem in OPEN:
        request.applymarker(pytest.mark.xfail(reason=OPEN[attack.stem], strict=True))
    if level == "none" and attack.stem == "d14_nameless_memory":
        pytest.skip("/dev/shm is the machine's own without walls")
    force(monkeypatch, level)
    run = stage.run(attack)
    heartbeat = run.out / "heartbeat"
    before = heartbeat.read_text() if heartbeat.exists() else ""
    time.sleep(0.3)
    assert not stage.breaches(run)
    assert before == (heartbeat.read_text() if heartbeat.exists() else "")
    if attack.stem in ENDS:
        reasons = "|".join(ENDS[attack.stem])
        assert run.failure
        assert any(f"was stopped: {name}, " in run.failure.happened for name in ENDS[attack.stem]), (
            reasons,
            run.failure,
        )
    if attack.stem == "d11_hold_pipe":
        assert run.took < 5


def test_an_attack_that_succeeds_is_seen(stage, monkeypatch):
    """Without walls the same harness must find what the walls prevent, or it proves nothing."""
    force(monkeypatch, "none")
    for name in ("a01_env_secret", "a02_read_outside", "a05_test_labels", "c01_loopback", "b03_symlink_escape"):
        assert stage.breaches(stage.run(HERE / f"{name}.py")), name
        shutil.rmtree(stage.folder / "out")
        (stage.folder / "out").mkdir()


# ------------------------------------------------------------------------------------------------ what they leave
@pytest.fixture
def untrusted():
    return pytest.importorskip("m3dspy.workspace.untrusted", reason="reads what scripts leave; not in this tree")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("attack", LEFTOVERS, ids=lambda path: path.stem)
def test_what_an_attack_leaves_or_prints_does_no_harm(attack, level, stage, untrusted, monkeypatch):
    force(monkeypatch, level)
    run = stage.run(attack)
    assert not stage.breaches(run)
    for name in ("predictions.csv", "predictions/answers.csv", "result.json", "metrics.json"):
        try:
            said = untrusted.strict_json(untrusted.read(run.out, name, MIB), name)
        except DataError as error:
            assert "\n" not in str(error)
        else:  # a claim, which no grade is made of
            assert isinstance(said, dict)
            assert name in ("result.json", "metrics.json")
    assert not stage.breaches(run)


@pytest.mark.parametrize("level", LEVELS)
def test_bad_metrics_are_refused_in_one_line(level, stage, untrusted, monkeypatch):
    force(monkeypatch, level)
    run = stage.run(HERE / "f03_metrics_bad.py")
    well_formed = {
        "neg",
        "big",
        "pct",
        "str",
        "bool",
        "null",
        "list",
        "missing",
        "inject",
        "many",
    }  # bad by their meaning
    for path in sorted(run.out.glob("metrics_*.json")):
        if path.stem.removeprefix("metrics_") in well_formed:
            continue
        with pytest.raises(DataError) as refused:
            untrusted.strict_json(untrusted.read(run.out, path.name, MIB), path.name)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["g01_terminal_escapes", "g02_non_utf8", "g03_prompt_injection"])
def test_what_a_script_prints_is_clean_when_it_is_shown(name, stage, untrusted):
    run = stage.run(HERE / f"{name}.py")
    for line in run.lines:
        shown = untrusted.clean(line)
        assert shown.isprintable() or set(shown) <= {"\n", "\t"} | set(filter(str.isprintable, shown))
        assert "[[ ##" not in shown


@pytest.mark.parametrize("level", LEVELS)
def test_code_that_a_script_plants_does_not_run_in_the_next_script(level, stage, monkeypatch):
    """The next one works in the folder that the first filled with json.py, sitecustomize.py and the like."""
    force(monkeypatch, level)
    assert not stage.breaches(stage.run(HERE / "b09_plant_code.py"))
    honest = stage.folder / "honest.py"
    honest.write_text("import csv, json, zipfile; print(csv.__file__, json.__file__, zipfile.__file__)")
    run = stage.run(honest)
    assert not stage.breaches(run)
    assert len(run.lines[0].split()) == 3
    assert str(run.out) not in run.lines[0]


# ------------------------------------------------------------------------------------------------ who runs it
@pytest.mark.skipif(os.geteuid() != 0, reason="this is an ordinary user already")
def test_all_of_this_holds_for_an_ordinary_user(tmp_path_factory):
    if not shutil.which("setpriv"):
        pytest.skip("setpriv is not installed")
    as_nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", sys.executable]
    tree = Path(__file__).parent.parent
    environment = {**os.environ, "HOME": "/nonexistent", "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    how = {"cwd": tree, "env": environment, "capture_output": True, "text": True}
    ready = subprocess.run([*as_nobody, "-c", "from m3dspy.workspace import execute; execute.probe()"], **how)
    if ready.returncode:
        pytest.skip(f"another user cannot start this Python: {(ready.stderr.strip().splitlines() or [''])[-1]}")
    home = Path("/tmp", f"m3dspy-attacks-{os.getpid()}")
    home.mkdir()
    os.chown(home, 65534, 65534)
    try:
        words = ["-m", "pytest", "-q", "-m", "", "-p", "no:cacheprovider", f"--basetemp={home}/t", __file__]
        done = subprocess.run([*as_nobody, *words], **how)
        assert done.returncode == 0, done.stdout[-4000:]
    finally:
        shutil.rmtree(home)
