import contextlib
import csv
import json

import pyarrow.parquet
import pytest

from companion import cluster
from companion import sweep as sweeps
from companion.cli import main
from companion.notebooks import UsageError
from companion.run import finished


@pytest.fixture(scope="module")
def client():
    """Two workers for all tests that do not kill them."""
    with cluster.local(2, gpu=False) as made:
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
    grid, plans = sweeps.points("toy", ["eps=1,inf", "sizes=[1, 2],[]", "label=a,"], seeds=2)
    assert grid == {
        "eps": [1.0, float("inf")],
        "sizes": [[1, 2], []],
        "label": ["a", ""],
        "seed": [0, 1],
    }
    assert len(plans) == len({todo.key for todo in plans}) == 16
    assert plans[-1].parameters == {
        **plans[0].parameters,
        **{"eps": float("inf"), "sizes": [], "label": "", "seed": 1},
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
        (["toy", "--seeds", "2", "--out", "book/claims.yml"], "'book/claims.yml': File exists"),
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
    assert err == ["toy: already run, reused"]


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
