import asyncio
import contextlib
import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pyarrow.parquet
import pytest

from companion import build as book
from companion import cluster, kernels, keys, slurm, sweep_page
from companion import sweep as sweeps
from companion.cli import main
from companion.errors import UsageError
from companion.run import RunFailed, finished, run
from companion.start import INTERRUPTED

HERE = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def client():
    """Two workers for all tests that do not kill them."""
    with cluster.local(2, 2, gpu=False) as made:
        yield made


@pytest.fixture
def sweep(project, client):
    """Run a sweep over the toy notebook; return its folder and points."""

    def run(*axes, name="toy", out=None, **options):
        grid, plans = sweeps.points(name, axes, **options)
        return sweeps.sweep(grid, plans, lambda gpu: contextlib.nullcontext(client), out)

    return run


def command(capsys, *arguments):
    """Run the command; return its exit code and the lines of stdout and of stderr."""
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    out, err = capsys.readouterr()
    return caught.value.code, out.splitlines(), err.splitlines()


# ---- the grid


def test_the_points_are_the_product_of_the_axes(project):
    grid, plans = sweeps.points("toy", ["eps=1,inf", "sizes=[1, 2],[3]", "label=a,"], seeds=2)
    assert grid == {
        "eps": [1.0, float("inf")],
        "sizes": [[1, 2], [3]],
        "label": ["a", ""],
        "seed": [0, 1],
    }
    assert len(plans) == len({todo.key for todo in plans}) == 16
    assert plans[-1].parameters == {
        **plans[0].parameters,
        **{"eps": float("inf"), "sizes": [3], "label": "", "seed": 1},
    }
    assert {todo.parameters["rho"] for todo in plans} == {float("inf")}


RANGED = "seed: int = 0\neps: float = 1  # temperature; > 0\nshares: list = []  # of all; 0 to 1"


def test_all_mistakes_of_a_grid_are_listed_together_and_nothing_starts(project, capsys):
    project.notebook("toy", "x = 1", parameters=RANGED)
    axes = ["eps=1,small,-1", "shares=[0.5, 2],[1]", "ep=1,2", "seed=1,1", "seed=2", "eps"]
    code, out, err = command(capsys, "sweep", "toy", *[f"--grid={axis}" for axis in axes])
    assert (code, out, len(err)) == (2, [], 1)
    for mistake in (
        "parameter 'eps' of toy: 'small', expected float > 0",
        "parameter 'eps' of toy: '-1', expected float > 0",
        "parameter 'shares' of toy: '[0.5, 2]', expected list 0 to 1",
        "unknown parameter of toy 'ep': did you mean 'eps'?",
        "parameter 'seed' has a value twice: 1,1",
        "parameter 'seed' is given twice",
        "'eps' is not PARAMETER=VALUE,VALUE",
    ):
        assert err[0].count(mistake) == 1
    assert not (project.root / ".companion").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tov", "--seeds", "2"], "unknown notebook 'tov': did you mean 'toy'?"),
        (["toy"], "a sweep needs --grid"),
        (["toy", "--seeds", "0"], "--seeds"),
        (["toy", "--seeds", "2", "--profile", "smok"], "did you mean 'smoke'?"),
        (["toy", "--seeds", "2", "--workers", "0"], "--workers"),
        (["toy", "--seeds", "2", "--dry-run"], "needs --slurm"),
        (["toy", "--seeds", "2", "--workers", "1", "--scheduler", "x"], "exclude each other"),
        (["toy", "--seeds", "2", "--out", "notebooks/toy.md"], "'notebooks/toy.md': File exists"),
        (["bare", "--seeds", "2"], "notebook 'bare': 0 cells are tagged `parameters`"),
    ],
)
def test_wrong_use_is_one_line_and_runs_nothing(project, capsys, arguments, message):
    project.write("notebooks/bare.md", "# Bare\n")
    code, out, err = command(capsys, "sweep", *arguments)
    assert (code, out, len(err)) == (2, [], 1)
    assert message in err[0]
    assert not (project.root / ".companion/runs").exists()


def test_a_notebook_without_a_seed_has_no_seeds(project):
    project.notebook("toy", "x = 1", parameters="a: int = 1")
    with pytest.raises(UsageError, match="unknown parameter of toy 'seed'"):
        sweeps.points("toy", ["a=1,2"], seeds=2)


# ---- results


def test_a_sweep_keeps_a_notebook_and_a_json_a_point_and_one_table(project, sweep):
    out, points = sweep("eps=1e-3,1e-2", "label=a,b", seeds=2, out=project.root / "out")
    told = json.loads((out / "sweep.json").read_text())
    assert told["points"] == points
    assert told["grid"] == {"eps": [1e-3, 1e-2], "label": ["a", "b"], "seed": [0, 1]}
    assert (told["notebook"], told["profile"]) == ("toy", "laptop")
    for point in points:
        assert point["status"] == "done"
        folder = out / "points" / point["key"][:16]
        assert sorted(path.name for path in folder.iterdir()) == ["toy.ipynb", "toy.json"]
        assert json.loads((folder / "toy.json").read_text())["parameters"] == point["parameters"]
    with (out / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    parquet = pyarrow.parquet.read_table(out / "table.parquet").to_pylist()
    names = "seed eps rho fast label sizes draw eps_recorded rho_is_infinite"
    assert list(rows[0]) == list(parquet[0]) == names.split()
    assert [float(row["draw"]) for row in rows] == [row["draw"] for row in parquet]
    assert [row["eps_recorded"] for row in parquet] == [row["eps"] for row in parquet]
    assert parquet[0]["rho"] == float("inf")
    # the draw follows the seed and nothing else
    assert len({(row["seed"], row["draw"]) for row in parquet}) == 2


def test_a_failed_point_is_kept_and_listed_and_only_it_is_run_again(project, client, capsys):
    log = project.root / "log"
    project.notebook("toy", f"open({str(log)!r}, 'a').write(f'{{seed}} ')\n1 / (seed - 1)")
    address = client.scheduler.address
    arguments = ("sweep", "toy", "--seeds", "3", "--scheduler", address, "--out", "out")
    code, out, err = command(capsys, *arguments)
    assert code == 1
    assert out == ["out/sweep.json", "out/table.csv", "out/table.parquet"]
    (line,) = [line for line in err if line.startswith("failed")]
    assert line.startswith("failed at seed=1: toy: cell 4 `open(")
    assert line.endswith("failed: ZeroDivisionError: division by zero")
    bar = "\n".join(err)
    assert "3/3" in bar
    assert "1 failed" in bar
    done, failed, _ = json.loads((project.root / "out/sweep.json").read_text())["points"]
    assert (done["status"], failed["status"]) == ("done", "failed")
    kept = project.root / "out/points" / failed["key"][:16]
    assert [path.name for path in kept.iterdir()] == ["toy.ipynb"]
    assert "ZeroDivisionError" in (kept / "toy.ipynb").read_text()
    assert len((project.root / "out/table.csv").read_text().splitlines()) == 4
    assert sorted(log.read_text().split()) == ["0", "1", "2"]

    code, _, err = command(capsys, *arguments)
    assert code == 1
    assert "toy, 2 of 3 reused" in "\n".join(err)
    assert sorted(log.read_text().split()) == ["0", "1", "1", "2"]


def test_a_sweep_shares_its_results_with_run_and_with_other_sweeps(project, sweep, capsys):
    sweep(seeds=2)
    capsys.readouterr()
    _, _, err = command(capsys, "run", "toy", "-p", "seed", "1")
    assert "toy: already run, reused" in err


@pytest.mark.parametrize("damaged", ["a digit", "half the notebook"])
def test_a_corrupted_result_is_detected_and_done_again(project, sweep, damaged):
    out, points = sweep(seeds=2)
    _, plans = sweeps.points("toy", (), seeds=2)
    whole = finished(plans[0])
    kept = plans[0].folder / ("toy.json" if damaged == "a digit" else "toy.ipynb")
    text = kept.read_text()
    draw = str(whole["records"]["draw"]["value"])
    other = draw[:-1] + ("1" if draw[-1] == "2" else "2")
    changed = text.replace(draw, other) if damaged == "a digit" else text[: len(text) // 2]
    for path in (kept, out / "points" / points[0]["key"][:16] / kept.name):
        path.write_text(changed)
    assert changed != text
    assert finished(plans[0]) is None
    sweep(seeds=2)
    assert finished(plans[0])["records"] == whole["records"]
    again = (out / "points" / points[0]["key"][:16] / "toy.json").read_text()
    assert json.loads(again)["records"] == whole["records"]


# ---- the page

BOOK = {
    "_config.yml": """\
        title: T
        author: A
        execute: {execute_notebooks: "off"}
        only_build_toc_files: true
        """,
    "book/_toc.yml": """\
        format: jb-book
        root: index
        parts:
          - chapters: [{file: sections/toy}]
          - caption: Sweeps
            chapters: [{glob: sections/sweeps/*}]
        """,
    "book/index.md": "# T\n",
    "book/sections/toy.md": "# Toy\n",
}


def test_the_plots_of_a_sweep_are_a_section_of_the_book(project, client, capsys):
    record = "from companion.page.record import record"
    value = "record('loss', (1 + seed % 2) / eps, unit='dB', better='lower')"
    project.notebook("toy", f"{record}\n{value}\nrecord('same', 1)\nrecord('word', label)")
    arguments = ("--grid", "eps=1,10", "--grid", "label=a,b", "--seeds", "2", "--page")
    code, out, err = command(
        capsys, "sweep", "toy", *arguments, "--scheduler", client.scheduler.address
    )
    assert code == 0, err
    page = Path(out[-1])
    assert page.parent == project.root / "book/sections/sweeps"
    text = page.read_text()
    assert "# A toy page: a sweep over eps, label" in text
    assert "8 of 8 points" in text
    again = (
        "companion sweep toy --profile laptop --grid eps=1.0,10.0 --grid label=a,b --seeds 2 --page"
    )
    assert again in text
    assert "| `1.0` | `b` | 1.5 | 0.5 | 2 |" in text
    assert "| `10.0` | `a` | 0.15 | 0.05 | 2 |" in text
    assert "loss, dB (lower is better)" in text
    assert text.endswith("The same at every point, or no number: `same`, `word`.\n")
    assert "label=b" in (page.with_suffix("") / "loss.svg").read_text().replace("<!-- ", "")

    for name, content in BOOK.items():
        project.write(name, content)
    site = book.sphinx(project.root).parent
    assert f"sections/sweeps/{page.stem}.html" in (site / "index.html").read_text()
    built = (site / f"sections/sweeps/{page.stem}.html").read_text()
    assert "loss.svg" in built
    assert "0.15" in built


def test_infinite_records_of_a_sweep_are_told_and_drawn_as_a_gap(project, sweep):
    code = "from companion.page.record import record\nrecord('psnr', {}, 'dB', 'higher')"
    project.notebook("toy", code.format("float('inf') if eps > 1 and seed == 0 else eps + seed"))
    out, _ = sweep("eps=1,2", seeds=2, out=project.root / "out")
    text = sweep_page.write(project.root, out).read_text()
    assert "| `1.0` | 1.5 | 0.5 | 2 |" in text
    assert "| `2.0` | ∞, 3 | – | 2 |" in text
    assert "Where a value is infinite the line has a gap." in text
    assert pyarrow.parquet.read_table(out / "table.parquet")["psnr"].to_pylist()[2] == math.inf
    assert len(list(csv.DictReader((out / "table.csv").open()))) == 4


# ---- what goes wrong

# Says that it runs and from which worker; a seed above 1 then waits for the file `go`.
GATED = """
import os, pathlib, time
from companion.page.record import record
with open("log", "a") as file:
    file.write(f"{seed} {os.getppid()}\\n")
while seed > 1 and not pathlib.Path("go").exists():
    time.sleep(0.02)
record("seed", seed)
"""


def started(project):
    """The seeds of the points that were started so far, and the parents of their kernels."""
    log = project.root / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [tuple(map(int, line.split())) for line in lines]


def wait_for(condition, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


@contextlib.contextmanager
def driver(project, *arguments):
    """A sweep in a process of its own; killed at the end."""
    start = "from companion.cli import main\nif __name__ == '__main__': main()"
    project.write("start.py", start)  # a worker imports the program that started it
    process = subprocess.Popen(
        [sys.executable, "start.py", "sweep", *arguments],
        cwd=project.root,
        env={**os.environ, "PYTHONPATH": f"{HERE}:{os.environ.get('PYTHONPATH', '')}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def whole(project, seeds):
    _, plans = sweeps.points("toy", (), seeds=seeds)
    return [todo.parameters["seed"] for todo in plans if finished(todo) is not None]


def test_a_killed_worker_and_a_killed_driver_lose_nothing(project, sweep):
    project.notebook("toy", GATED)
    with driver(project, "toy", "--seeds", "4", "--workers", "2") as process:
        wait_for(lambda: len(started(project)) == 4 and whole(project, 4) == [0, 1])
        again, forker = started(project)[-1]
        worker = psutil.Process(forker).parent()
        assert process.pid in [parent.pid for parent in worker.parents()]
        worker.kill()
        wait_for(lambda: len(started(project)) == 5)
        assert started(project)[4][0] == again
        children = psutil.Process(process.pid).children(recursive=True)
        kernels = [child for child in children if child.ppid() in dict(started(project)).values()]
        assert len(kernels) == 2
        process.send_signal(signal.SIGKILL)
        wait_for(lambda: not any(child.is_running() for child in children))
    assert whole(project, 4) == [0, 1]
    (project.root / "go").touch()
    _, points = sweep(seeds=4)
    assert [point["status"] for point in points] == ["done"] * 4
    assert sorted(seed for seed, _ in started(project)) == sorted([0, 1, 2, 3, 2, 3, again])
    assert not list((project.root / ".companion/runs").glob(".*"))


@pytest.mark.parametrize("when", ["starting", "running"])
def test_ctrl_c_ends_a_sweep_and_all_it_started_in_one_line(project, when):
    """A terminal sends it to every process of the group, workers too."""
    project.notebook("toy", GATED)
    start = "from companion.start import main\nif __name__ == '__main__': main()"
    project.write("start.py", start)
    process = subprocess.Popen(
        [sys.executable, "start.py", "sweep", "toy", "--seeds", "4", "--workers", "2"],
        cwd=project.root,
        env={**os.environ, "PYTHONPATH": f"{HERE}:{os.environ.get('PYTHONPATH', '')}"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    below = psutil.Process(process.pid)
    wait_for(lambda: len(below.children()) >= 2)
    if when == "running":
        wait_for(lambda: len(started(project)) == 4)
    children = below.children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err.replace("\r", "\n").strip().splitlines()[-1] == INTERRUPTED
    assert "Traceback" not in err
    wait_for(lambda: not any(child.is_running() for child in children))


def test_two_sweeps_at_once_do_nothing_twice(project, sweep):
    project.notebook("toy", GATED)
    out = project.root / "out"
    with driver(project, "toy", "--seeds", "5", "--workers", "1", "--out", "out") as other:
        wait_for(lambda: len(started(project)) == 3)  # it has begun, and waits at seed 2
        with ThreadPoolExecutor(1) as pool:
            here = pool.submit(sweep, seeds=5, out=out)
            wait_for(lambda: len(started(project)) == 4)  # seed 3; seed 2 is the other's
            (project.root / "go").touch()
            _, points = here.result(120)
        assert other.wait(120) == 0
    assert [point["status"] for point in points] == ["done"] * 5
    assert sorted(seed for seed, _ in started(project)) == [0, 1, 2, 3, 4]
    assert json.loads((out / "sweep.json").read_text())["points"] == points


@contextlib.contextmanager
def mounted(folder, options):
    """A small filesystem in memory."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a filesystem needs rights that this user has not")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_stops_a_sweep_and_the_next_call_goes_on(project, client, capsys):
    talk = "print(seed, 200_000 * 'x')\nopen('log', 'a').write(f'{seed} 0\\n')"
    project.notebook("toy", talk)
    folder = project.root / ".companion"
    arguments = ("sweep", "toy", "--seeds", "6", "--scheduler", client.scheduler.address)
    with mounted(folder, "size=2M"):
        code, out, err = command(capsys, *arguments)
        assert (code, out) == (1, [])
        assert err[-1].startswith("companion: [Errno 28] No space left on device")
        before = whole(project, 6)
        assert 0 < len(before) < 6
        subprocess.run(["mount", "-o", "remount,size=50M", str(folder)], check=True)
        code, _, _ = command(capsys, *arguments)
        assert code == 0
        assert whole(project, 6) == [0, 1, 2, 3, 4, 5]
        seeds = [seed for seed, _ in started(project)]
        assert all(seeds.count(seed) == 1 for seed in before)


def test_a_read_only_folder_is_refused_before_anything_runs(project, capsys):
    with mounted(project.root / "out", "ro"):
        code, out, err = command(capsys, "sweep", "toy", "--seeds", "2", "--out", "out")
        assert (code, out) == (2, [])
        assert err == ["companion: cannot write into 'out': Read-only file system"]
        code, out, err = command(capsys, "run", "toy", "--out", "out/below")
        assert (code, out) == (2, [])
        assert err == ["companion: cannot write into 'out/below': Read-only file system"]


# ---- clusters


def test_an_unreachable_scheduler_is_told_in_one_line(project, capsys, monkeypatch):
    monkeypatch.setattr(cluster, "_PATIENCE", 1)
    for address in ("tcp://127.0.0.1:1", "nonsense"):
        code, out, err = command(capsys, "sweep", "toy", "--seeds", "2", "--scheduler", address)
        assert (code, out) == (2, [])
        assert err[-1].startswith(f"companion: --scheduler '{address}': no Dask scheduler answers")


def test_a_worker_with_other_code_is_refused_by_name(project, client, capsys, tmp_path):
    shutil.copytree(HERE / "otlib", tmp_path / "other/otlib")
    with (tmp_path / "other/otlib/softmin.py").open("a") as file:
        file.write("# changed\n")
    address = client.scheduler.address
    options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--name", "other"]
    known = set(client.scheduler_info()["workers"])
    worker = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_worker", address, *options],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}/other:{HERE}"},
        stderr=subprocess.DEVNULL,
    )
    try:
        client.wait_for_workers(len(known) + 1, timeout=60)
        (other,) = set(client.scheduler_info()["workers"]) - known
        code, _, err = command(capsys, "sweep", "toy", "--seeds", "2", "--scheduler", address)
    finally:
        worker.kill()
        worker.wait()
    assert code == 2
    assert err[-1].startswith("companion: other code than here (")
    assert other in err[-1]
    assert not any(name in err[-1] for name in known)
    assert not list((project.root / ".companion/runs").iterdir())
    # one that joins during the sweep
    _, (todo,) = sweeps.points("toy", (), seeds=1)
    with pytest.raises(RunFailed, match="other code on worker tcp://"):
        client.submit(cluster.perform, todo, project.root, "0").result()
    client.submit(cluster.perform, todo, project.root, keys.whole()).result()
    assert finished(todo)


def test_threads_are_shared_out_and_a_point_on_a_gpu_waits_for_one(project, monkeypatch):
    names = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"]
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("dask.system.CPU_COUNT", 6)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    names.append("CUDA_VISIBLE_DEVICES")
    with cluster.local(None, 9, gpu=True) as client:
        found = client.run(lambda: [os.environ[name] for name in names])
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        assert [worker["resources"] for worker in workers] == [{"GPU": 1}] * 2
        assert [worker["nthreads"] for worker in workers] == [1, 1]
    assert sorted(found.values()) == [["3", "3", "3", "3"], ["3", "3", "3", "5"]]


def test_without_a_gpu_a_point_that_needs_one_is_refused(project, client, capsys):
    project.notebook("toy", "x = 1", parameters='device: str = "cpu"')
    arguments = ("sweep", "toy", "--grid", "device=cpu,cuda")
    code, _, err = command(capsys, *arguments, "--scheduler", client.scheduler.address)
    assert code == 2
    assert "no worker offers a GPU; start one with --resources GPU=1" in err[-1]
    project.write("cpu.yaml", "{cores: 1, memory: 1GB}")
    code, out, err = command(capsys, *arguments, "--slurm", "cpu.yaml", "--dry-run")
    assert (code, out, len(err)) == (2, [], 1)
    assert "needs worker_extra_args: [--resources GPU=1]" in err[0]


def test_the_job_script_of_the_example_is_shown_and_nothing_submitted(project, capsys):
    arguments = ("--slurm", str(HERE / "book/slurm.yaml"), "--dry-run")
    code, out, err = command(capsys, "sweep", "toy", "--seeds", "3", *arguments)
    assert (code, err) == (0, ["3 points, 4 of these jobs; nothing was submitted"])
    for line in ("#SBATCH -p gpu", "#SBATCH -t 02:00:00", "#SBATCH --gres=gpu:1"):
        assert line in out
    (worker,) = [line for line in out if "distributed.cli.dask_worker tcp://" in line]
    assert worker.endswith("--nthreads 1 --resources GPU=1")
    assert not list((project.root / ".companion").glob("runs"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file or directory"),
        ("a: [", "while parsing"),
        ("cores", "is no list of `name: value`"),
        ("{cores: 1, memory: 1GB, jobs: many}", "jobs: 'many', expected a whole number from 1"),
        ("{cores: 1, memory: 1GB, ques: gpu}", "unknown key 'ques': did you mean 'queue'?"),
        ("{memory: 1GB}", "cores: nothing, expected a whole number from 1"),
        ("{cores: 1, memory: 32}", "memory: '32', expected a number with its unit"),
        ("{cores: 0, memory: 1GB}", "cores: 0, expected a whole number from 1"),
        ("{cores: yes, memory: 1GB}", "cores: 'yes', expected a whole number from 1"),
        ("{cores: 1, memory: 1GB, nanny: 3}", "nanny: '3', expected true or false"),
        ("{cores: 1, memory: 1GB, walltime: 60}", "walltime: '60', expected HH:MM:SS or D-HH"),
        ("{cores: 1, memory: 1GB, walltime: [1]}", "walltime: ['1'], expected HH:MM:SS"),
        ("{cores: 1, memory: 1GB, account: {a: b}}", "account: {'a': 'b'}, expected a text"),
        ("{cores: 1, memory: 1GB, cores: 2}", "the key 'cores' stands twice"),
        (
            "{cores: 1, memory: 1GB, job_extra_directives: --gres=gpu:1}",
            "job_extra_directives: '--gres=gpu:1', expected a list of texts",
        ),
        ("{cores: 1, memory: 1GB, worker_extra_args: {a: b}}", "expected a list of texts"),
        ("{cores: 1, memory: 0GiB}", "memory: '0GiB', expected a number with its unit"),
        ("{cores: 1, memory: 1GB, job_mem: 1.5G}", "job_mem: '1.5G', expected a whole number"),
        ("{cores: 010, memory: 1GB}", "cores: '010', expected a whole number from 1"),
        ("{cores: 1:30, memory: 1GB}", "cores: '1:30', expected a whole number from 1"),
        ("{cores: 9999999999999999999999, memory: 1GB}", "expected a whole number from 1 to 10000"),
        ("{cores: 2, memory: 1GB, processes: 4}", "processes: 4, expected at most cores, 2"),
        ("{cores: 1, memory: 1GB, queue: ' '}", "queue: ' ', expected a text of one line"),
        ('{cores: 1, memory: 1GB, job_name: "a\\nb"}', r"job_name: 'a\nb', expected a text of one"),
        ("{cores: 1, memory: 1GB, job_extra_directives: [null]}", "[None], expected a list of"),
        ("{cores: 1, memory: 1GB, job_script_prologue: [export A: 1]}", "expected a list of texts"),
        ("{cores: 1, memory: 1GB, interface: none0}", "'none0' is not a valid network interface"),
        ("{cores: x, memory: 1, queu: a}", "from 1 to 1000000; memory: '1', expected"),
    ],
)
def test_a_wrong_slurm_file_is_told_in_one_line(project, capsys, text, message):
    if text is not None:
        project.write("slurm.yaml", text)
    arguments = ("--slurm", "slurm.yaml", "--dry-run")
    code, out, err = command(capsys, "sweep", "toy", "--seeds", "3", *arguments)
    assert (code, out, len(err)) == (2, [], 1)
    assert err[0].startswith("companion: --slurm 'slurm.yaml'")
    assert message in err[0]


def test_texts_of_a_slurm_file_are_taken_as_they_are_written(project):
    """YAML 1.1 reads 1:00:00 as 3600, which SLURM takes for minutes; 0123 as 83; on as true."""
    project.write(
        "slurm.yaml",
        "{cores: 2, memory: 1.5 GiB, walltime: 1:00:00, account: 0123, queue: on, interface: null}",
    )
    found = slurm.read(Path("slurm.yaml"))
    assert (found.walltime, found.account, found.queue) == ("1:00:00", "0123", "on")
    assert (found.memory, found.cores, found.interface) == ("1.5 GiB", 2, None)
    with cluster.slurm_cluster(Path("slurm.yaml"), False) as (made, jobs):
        assert "#SBATCH -t 1:00:00" in made.job_script().splitlines() and jobs == 1


def tool(folder, name, text):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_slurm_runs_the_points_and_its_refusal_is_told(project, capsys, tmp_path, monkeypatch):
    shutil.rmtree(project.root / "otlib")  # a worker finds the folder it is in
    project.write("slurm.yaml", "{cores: 2, processes: 2, memory: 2GB, interface: lo, jobs: 1}")
    arguments = ("sweep", "toy", "--seeds", "2", "--slurm", "slurm.yaml", "--out", "out")
    code, _, err = command(capsys, *arguments)
    assert (code, err) == (
        2,
        ["companion: --slurm: no sbatch on this machine; --dry-run shows the job script"],
    )
    tools = tmp_path / "tools"
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{os.environ.get('PYTHONPATH', '')}")
    tool(tools, "sbatch", "echo invalid partition >&2; exit 1")
    tool(tools, "scancel", "kill -- -$1")
    code, _, err = command(capsys, *arguments)
    assert (code, len(err)) == (2, 1)
    assert err[0].startswith("companion: --slurm 'slurm.yaml': ")
    assert "invalid partition" in err[0]
    # SLURM takes a copy, starts it later, answers with a number
    job = f"cp $1 {tools}/job; setsid sh {tools}/job >{tools}/log 2>&1 &"
    tool(tools, "sbatch", f"{job}\necho Submitted batch job $!")
    code, _, err = command(capsys, *arguments)
    assert code == 0, (err, (tools / "log").read_text())
    assert err[0] == "submitted 1 jobs to SLURM; the sweep starts when one does"
    points = json.loads((project.root / "out/sweep.json").read_text())["points"]
    assert [point["status"] for point in points] == ["done", "done"]


# ---- warm kernels

# `otlib` in the text asks for what is preloaded.
STATE = """
import os, sys, builtins
import numpy
from companion.page.record import record
record("torch", "torch" in sys.modules)
record("otlib", "otlib" in sys.modules)
record("folder", os.getcwd())
record("stained", hasattr(builtins, "stain") or "STAIN" in os.environ)
record("parent", os.getppid())
record("pid", os.getpid())
record("draw", numpy.random.random())
record("cuda", sys.modules["torch"].cuda.is_initialized())
builtins.stain = os.environ["STAIN"] = "x"
os.chdir("/")
"""


def records(seed):
    result = json.loads((run("toy", {"seed": seed}) / "toy.json").read_text())
    return {name: found["value"] for name, found in result["records"].items()}


def test_kernels_share_what_is_imported_and_nothing_else(project):
    project.notebook("toy", STATE)
    one, two = records(1), records(2)
    for found in (one, two):
        assert found["torch"] is True
        assert (found["otlib"], found["cuda"], found["stained"]) == (False, False, False)
        assert found["folder"] == str(project.root)
    assert one["parent"] == two["parent"]
    assert one["pid"] != two["pid"]
    assert one["draw"] != two["draw"]
    server = psutil.Process(one["parent"])
    server.kill()  # the next kernel has another to fork it
    server.wait(10)
    parent = "import os\nfrom companion.page.record import record\nrecord('parent', os.getppid())"
    project.notebook("toy", parent)
    assert records(3)["parent"] != one["parent"]


def test_an_interrupted_request_for_a_kernel_is_not_answered_to_the_next(tmp_path, monkeypatch):
    def request(kernel):  # each its own file: one whose ports another has bound ends by itself
        arguments = ["-f", str(tmp_path / f"{kernel}.json")]
        asked = {"arguments": arguments, "folder": str(tmp_path), "preload": []}
        return asked | {"environment": dict(os.environ)}

    first = psutil.Process(kernels._fork(request("first")))
    server = kernels._server()
    with monkeypatch.context() as patch:
        patch.setattr(server, "stdout", Interrupted(server.stdout))
        with pytest.raises(KeyboardInterrupt):
            kernels._fork(request("interrupted"))
    second = psutil.Process(kernels._fork(request("second")))
    assert second.ppid() == kernels._server().pid != server.pid
    gone, _ = psutil.wait_procs([first], 30)  # nobody else would have ended it
    assert gone == [first]
    second.kill()


class Interrupted:
    """A stream that is interrupted while one waits for a line."""

    def __init__(self, stream):
        self.stream, self.close = stream, stream.close

    def readline(self):
        raise KeyboardInterrupt


def test_a_kernel_that_ended_before_it_is_looked_at_died(tmp_path, monkeypatch):
    def none(identity):
        raise psutil.NoSuchProcess(identity)

    monkeypatch.setattr(kernels, "_kernel", lambda: none)
    file = str(tmp_path / "kernel.json")
    made = kernels.manager(tmp_path, (), {})(kernel_name="python3", connection_file=file)
    with pytest.raises(RuntimeError, match="died before replying"):
        asyncio.run(made.start_kernel())


def test_a_kernel_may_end_between_two_questions(tmp_path, monkeypatch):
    file = str(tmp_path / "kernel.json")
    made = kernels.manager(tmp_path, (), {})(kernel_name="python3", connection_file=file)
    asyncio.run(made.start_kernel())
    kernel = made.provisioner.process
    assert kernel.poll() is None
    kernel.kill()
    kernel.wait(10)
    monkeypatch.setattr(kernel, "is_running", lambda: True)  # asked a moment before
    assert kernel.poll() == 0
    kernel.send_signal(signal.SIGTERM)


FIGURE = """
import matplotlib.pyplot as plt, numpy, sys
# otlib
numpy.random.seed(seed)
print(sys.path[1:], plt.get_backend(), {1, 2})
print("to stderr", file=sys.stderr)
_ = plt.plot(numpy.random.random(9))
"""


def test_a_warm_kernel_gives_what_a_cold_one_does(project, monkeypatch):
    def outputs():
        text = (run("toy") / "toy.ipynb").read_text()
        shutil.rmtree(project.root / ".companion")
        cells = json.loads(text)["cells"]
        return [cell["outputs"] for cell in cells if "FIGURE" in cell["source"][0]]

    project.notebook("toy", "# FIGURE" + FIGURE)
    warm = outputs()
    cold = types.SimpleNamespace(platform="another", executable=sys.executable)
    monkeypatch.setattr(kernels, "sys", cold)
    assert outputs() == warm
    assert any("image/png" in output.get("data", {}) for output in warm[0])


# ---- the notebooks of a book


def test_notebooks_run_side_by_side_give_what_they_give_one_by_one(
    project, client, monkeypatch, capsys
):
    asked = []
    monkeypatch.setattr(
        book, "local", lambda *how: asked.append(how) or contextlib.nullcontext(client)
    )
    for name, number in (("one", 1), ("two", 2)):
        project.notebook(name, f"from companion.page.record import record\nrecord('x', {number})")
    plans = book.plans_of_book(project.root, "laptop", pages=["toy", "one", "two"])
    alone = book.run_all(plans[:1])
    capsys.readouterr()
    runs = book.run_all(plans, workers=2)
    assert list(runs) == ["toy", "one", "two"]
    assert runs["toy"] == alone["toy"]
    assert [runs[name]["records"]["x"]["value"] for name in ("one", "two")] == [1, 2]
    err = capsys.readouterr().err
    assert "[1/3] toy: already run, reused\n" in err
    assert "one: already" not in err and "2/2" in err
    assert book.run_all(plans, workers=2) == runs
    assert asked == [(2, 2, False)]  # what is there asks for no processes


def test_a_notebook_that_fails_beside_others_is_named_and_kept(project, client, monkeypatch):
    monkeypatch.setattr(book, "local", lambda *_: contextlib.nullcontext(client))
    project.notebook("bad", "1 / 0")
    plans = book.plans_of_book(project.root, "laptop", pages=["bad", "toy"])
    with pytest.raises(RunFailed, match=r"bad: cell 3 .* failed: ZeroDivisionError"):
        book.run_all(plans, workers=2)
    assert (project.root / ".companion/failed/bad.ipynb").exists()


def test_a_path_on_an_axis_is_the_one_of_its_points(project, monkeypatch):
    project.notebook("toy", "x = picture", parameters='picture: str = ""  # an image; path\n')
    for name in ("a.png", "b.png"):
        project.write(f"below/{name}", "")
    monkeypatch.chdir(project.root / "below")
    grid, plans = sweeps.points("toy", ["picture=a.png,b.png"], "laptop", root=project.root)
    assert grid["picture"] == [todo.parameters["picture"] for todo in plans]
    assert all(os.path.isabs(path) for path in grid["picture"])
