"""Work in other processes and on a Dask cluster, and what happens when those who do it are killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from dask_here import ROOT, Dask, Waits, begun, ends_badly, process
from test_tune import make_run, timeless, tuned

from m3dspy import cluster
from m3dspy.errors import M3Error, RunFailed, UsageError
from m3dspy.m3bench import task as datasets
from m3dspy.m3bench.bench import bench
from m3dspy.optimizers.practice import lesson
from m3dspy.optimizers.tune import tune
from m3dspy.optimizers.workshop import Workshop
from m3dspy.workspace import execute

pytest.importorskip("distributed", reason="Dask is not installed: pip install 'm3dspy[cluster]'")
TASKS = [datasets.find("ADNI"), datasets.find("BTCV")]
PROBE = execute.probe()


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A cluster of three workers that no test harms."""
    with Dask(tmp_path_factory.mktemp("dask"), workers=3) as dask:
        yield dask


@pytest.fixture
def dask(tmp_path):
    """A cluster of two workers that may be harmed."""
    (tmp_path / "dask").mkdir()
    with Dask(tmp_path / "dask", workers=2) as dask:
        yield dask


def folders(tmp_path):
    for task in TASKS:
        if not (tmp_path / task.name).is_dir():
            datasets.make(task.name, tmp_path / task.name, size=task.demo)
    return {task.name: tmp_path / task.name for task in TASKS}


def kill(pid):
    os.kill(pid, signal.SIGKILL)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# ------------------------------------------------------------------------------------------------ this machine
def test_one_at_a_time_needs_nobody_else(tmp_path):
    for jobs in (None, 1):
        with cluster.executor(None, jobs, tmp_path) as pool:
            assert pool is None


@pytest.mark.slow
def test_several_at_a_time_are_processes_of_their_own(tmp_path):
    with cluster.executor(None, 2, tmp_path) as pool:
        futures = [pool.submit(process, 2.0) for _ in range(2)]
        assert len({os.getpid(), *(future.result() for future in futures)}) == 3
        table = bench(Waits(), TASKS, 2, tmp_path / "out", data=folders(tmp_path), executor=pool)
    assert table.total.s1.runs == 4
    assert [row.failures for row in table.rows] == [()] * 2


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_benchmark_in_one_line(tmp_path):
    with (
        pytest.raises(M3Error, match=r"^A process of this machine was killed at its work .* the same command goes on"),
        cluster.executor(None, 2, tmp_path) as pool,
    ):
        pool.submit(os._exit, 1).result()


@pytest.mark.slow
def test_when_the_controller_is_killed_its_processes_end_too(tmp_path):
    code = (
        "import sys; from pathlib import Path; from m3dspy import cluster; from dask_here import process\n"
        "if __name__ == '__main__':\n"
        "    with cluster.executor(None, 2, Path('.')) as pool:\n"
        "        print(pool.submit(process).result(), flush=True); pool.submit(process, 100).result()\n"
    )
    (tmp_path / "controller.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [sys.executable, tmp_path / "controller.py"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path) as controller:
        pid = int(controller.stdout.readline())
        assert is_alive(pid)
        controller.kill()
    end = time.monotonic() + 10
    while is_alive(pid):
        assert time.monotonic() < end, f"process {pid} outlived its controller"
        time.sleep(0.05)


# ------------------------------------------------------------------------------------------------ a cluster
@pytest.mark.slow
def test_work_is_spread_over_the_workers_and_comes_back_as_from_any_executor(tmp_path, three):
    with cluster.executor(three.address, None, tmp_path, [tmp_path]) as pool:
        pids = {future.result() for future in [pool.submit(process, 0.5) for _ in range(6)]}
        assert pids == {worker.pid for worker in three.workers}
        with pytest.raises(RunFailed, match=r"^The script ended badly\. Log: ") as told:
            pool.submit(ends_badly).result()
        assert told.value.cut
    assert not list(tmp_path.iterdir())  # the book of beginnings is gone


def test_an_error_of_a_script_travels_whole(tmp_path):
    import pickle

    (tmp_path / "log").write_text("one\ntwo\n")
    error = RunFailed("The script ended badly.", tmp_path / "log", cut=True)
    (tmp_path / "log").unlink()
    there = pickle.loads(pickle.dumps(error))
    assert (str(there), there.tail, there.cut) == (str(error), ["one", "two"], True)


@pytest.mark.slow
def test_no_more_than_jobs_are_under_way_and_what_waits_can_be_taken_back(tmp_path, three):
    with cluster.executor(three.address, 1, tmp_path) as pool:
        first, second = pool.submit(process, 1.0), pool.submit(process)
        assert second.cancel()
        assert not first.cancel()
        assert pool.submit(process).result() in {worker.pid for worker in three.workers}
        assert first.done()


@pytest.mark.slow
def test_where_workers_declare_gpus_work_goes_only_to_those(tmp_path):
    with Dask(tmp_path, 2, "--resources", "GPU=1") as dask:
        dask.add("without")
        dask.registered("without")
        with cluster.executor(dask.address, None, tmp_path) as pool:
            pids = {future.result() for future in [pool.submit(process, 0.3) for _ in range(6)]}
        assert pids == {worker.pid for worker in dask.workers[:2]}


@pytest.mark.slow
def test_a_round_whose_worker_is_killed_is_begun_once_more_elsewhere(tmp_path, dask):
    out, killed, told = tmp_path / "out", [], []

    def kill_first():
        killed.append(begun(out / "ADNI" / "round-00" / "out", 0))
        kill(killed[0])

    killer = threading.Thread(target=kill_first)
    killer.start()
    with cluster.executor(dask.address, None, out) as pool:
        candidate = Waits("ADNI", times=1)
        bench(candidate, TASKS, 2, out, data=folders(tmp_path), executor=pool, listen=told.append)
    killer.join()
    assert sum("once more" in event.get("text", "") for event in told) == 1
    assert begun(out / "ADNI" / "round-00" / "out", 1) not in killed
    files = sorted(str(path.relative_to(out)) for path in out.rglob("begun-*"))
    first = [f"{name}/round-{number:02d}/out/begun-0" for name in ("ADNI", "BTCV") for number in range(2)]
    assert files == sorted([*first, "ADNI/round-00/out/begun-1"])
    assert len(list(out.glob("*/round-*/round.json"))) == 4


@pytest.mark.slow
def test_a_round_that_brings_down_two_workers_has_failed_and_the_others_go_on(tmp_path, dask):
    out = tmp_path / "out"
    dask.add("spare")
    dask.registered("spare")
    killer = threading.Thread(target=lambda: [kill(begun(out / "ADNI" / "round-00" / "out", k)) for k in range(2)])
    killer.start()
    with cluster.executor(dask.address, 1, out) as pool:
        table = bench(Waits("ADNI", times=9), TASKS, 1, out, data=folders(tmp_path), executor=pool)
    killer.join()
    adni, btcv = table.rows
    assert adni.failures[0].startswith("Begun twice, and lost twice. Its worker was lost (killed,")
    assert btcv.failures == ()
    assert not (out / "ADNI" / "round-00" / "out" / "begun-2").exists()


@pytest.mark.slow
def test_when_the_scheduler_dies_the_benchmark_ends_in_one_line_and_goes_on_with_another(tmp_path, dask):
    out, data = tmp_path / "out", folders(tmp_path)

    def kill_scheduler():
        begun(out / "BTCV" / "round-00" / "out", 0)
        dask.scheduler.kill()

    killer = threading.Thread(target=kill_scheduler)
    killer.start()
    with (
        pytest.raises(
            M3Error, match=r"^The Dask scheduler at tcp://127\.0\.0\.1:\d+ is gone\. What was finished is kept"
        ),
        cluster.executor(dask.address, 1, out) as pool,
    ):
        bench(Waits("BTCV", times=1), TASKS, 1, out, data=data, executor=pool)
    killer.join()
    assert (out / "ADNI" / "round-00" / "round.json").is_file()
    assert not (out / "BTCV" / "round-00" / "round.json").is_file()
    dask.end()
    (tmp_path / "again").mkdir()
    with Dask(tmp_path / "again", 1) as other, cluster.executor(other.address, None, out) as pool:
        bench(Waits(), TASKS, 1, out, data=data, executor=pool)
    assert [len(list((out / name).rglob("begun-*"))) for name in ("ADNI", "BTCV")] == [1, 2]


@pytest.mark.slow
def test_a_trial_whose_worker_is_killed_goes_on_from_its_checkpoint_on_another(tmp_path):
    straight = tuned(make_run(tmp_path / "straight"), 3)
    run = make_run(tmp_path / "lost", pause="time.sleep(0.3)")
    with Dask(tmp_path, 1) as dask:

        def kill_amid_the_second():
            while not list(run.folder.glob("attempts/worker-*/trial-001/checkpoint.json")):
                time.sleep(0.01)
            dask.workers[0].kill()
            dask.add("spare")

        killer = threading.Thread(target=kill_amid_the_second)
        killer.start()
        with cluster.executor(dask.address, 1, run.folder, [tmp_path]) as pool:
            found = tune(run, 3, trusted=True, unsafe=False, executor=pool)
        killer.join()
    assert timeless(found) == timeless(straight)
    assert [event["text"] for event in run.events() if event["kind"] == "warning"] == [
        "trial-001 lost its worker and is carried out once more."
    ]
    begun = [line for line in run.log("trial-001").read_text().splitlines() if line.endswith("0 test cases")]
    assert not begun[-1].startswith("0 epochs")


# ------------------------------------------------------------------------------------------------ what is refused
@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense", "tcp://no.such.host.invalid:8786"])
def test_a_scheduler_that_is_not_there_is_one_line_within_ten_seconds(address, tmp_path):
    began = time.monotonic()
    with (
        pytest.raises(UsageError, match=rf"^No Dask scheduler answers at {address} \(.*Start one \(`dask scheduler`\)"),
        cluster.executor(address, None, tmp_path),
    ):
        pass
    assert time.monotonic() - began < 12


def test_without_dask_the_line_to_type_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(UsageError, match=r"^--cluster needs .* pip install 'm3dspy\[cluster\]'$"),
        cluster.executor("tcp://127.0.0.1:8786", None, tmp_path),
    ):
        pass


@pytest.mark.slow
def test_a_cluster_without_workers_is_refused(tmp_path):
    with (
        Dask(tmp_path) as dask,
        pytest.raises(UsageError, match=r"has no workers\. Start some: dask worker tcp://127"),
        cluster.executor(dask.address, None, tmp_path),
    ):
        pass


@pytest.mark.slow
def test_a_worker_with_another_version_is_refused(tmp_path):
    (tmp_path / "old" / "m3dspy").mkdir(parents=True)
    (tmp_path / "old" / "m3dspy" / "__init__.py").write_text('__version__ = "0.0.1"\n')
    for name in ("cluster.py", "errors.py"):
        shutil.copyfile(ROOT / "m3dspy" / name, tmp_path / "old" / "m3dspy" / name)
    with (
        Dask(tmp_path, 1, environment={"PYTHONPATH": str(tmp_path / "old")}) as dask,
        pytest.raises(M3Error, match=r"^Worker tcp://\S+ has m3dspy 0\.0\.1, here it is \S+\. Make them the same\."),
        cluster.executor(dask.address, None, tmp_path / "home"),
    ):
        pass


@pytest.mark.slow
@pytest.mark.skipif(PROBE.bwrap is None, reason=f"no sandbox: {PROBE.why}")
def test_a_worker_that_does_not_see_the_files_is_refused(tmp_path):
    home, data = tmp_path / "home", tmp_path / "data"
    for folder in (home, data / "images", tmp_path / "dask"):
        folder.mkdir(parents=True)
    for hidden, missing in ((home, home), (data, data / "images")):
        with Dask(tmp_path / "dask") as dask:
            dask.add("far", inside=[PROBE.bwrap, "--dev-bind", "/", "/", "--tmpfs", hidden, "--die-with-parent"])
            dask.registered("far")
            with (
                pytest.raises(M3Error, match=rf"^Worker tcp://\S+ does not see {missing}\. .*shared file system\.$"),
                cluster.executor(dask.address, None, home, [data / "images"]),
            ):
                pass


# ------------------------------------------------------------------------------------------------ the sandbox there
@pytest.mark.slow
def test_scripts_of_a_compile_run_in_the_sandbox_of_the_workers(tmp_path, three):
    name = "forge-class-folders-000003"
    with cluster.executor(three.address, None, tmp_path) as pool:
        workshop = Workshop(tmp_path, executor=pool)
        exercise = workshop.exercise(name)
        with workshop.run(exercise, plan=exercise.plan) as run:
            hands, root = workshop.hands(exercise), workshop.root(exercise)
            how = {"trusted": False, "unsafe": False}
            code = "import os, sys\nprint('parent', os.getppid())\nsys.exit('error: no index today')"
            for _ in range(2):
                with pytest.raises(RunFailed, match=r"^no index today\. Log: "):
                    hands.prepare(run, code, exercise.plan, root, **how)
            assert tmp_path in run.folder.parents
        assert (workshop.tried, workshop.known) == (1, 1)
        assert workshop.smoke(exercise, lesson(name, workshop).design)


@pytest.mark.soak
def test_the_bench_command_runs_whole_jobs_on_the_workers(tmp_path, three, m3dspy):
    found = datasets.find("ADNI")
    datasets.make("ADNI", tmp_path / "out" / "data" / "ADNI", size=found.demo)
    words = ("--tasks", "ADNI", "--trials", 0, "--out", "out", "--cluster", three.address)
    status, out, err = m3dspy("bench", *words)
    assert status == 0, err
    assert "| ADNI | 1/1" in out
    assert "ADNI, round 0: done" in err
    (outcome,) = [path.read_text() for path in (tmp_path / "out" / "ADNI" / "round-00").glob("out/*/outcome.json")]
    assert json.loads(outcome)["contained"] == (PROBE.level != "none")
