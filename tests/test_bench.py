"""The benchmark at toy size: what it writes, and that otlib is right in it. Speed is not tested."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from benchmarks import minimisers, published, sweep, wpp
from benchmarks.peers import SOFTMIN, SOLVE
from companion.page import minimised
from otlib.assets.pairs import Pair

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "new" / "solver-cpu.json"
    command = [sys.executable, "-m", "benchmarks.bench", "--smoke", "--out", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # nothing left aside

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_every_peer_has_a_row_and_a_reason(result):
    assert [row["peer"] for row in result["softmin"]] == ["torch.mm", *SOFTMIN]
    assert [row["peer"] for row in result["solve"]] == list(SOLVE)
    for row in result["softmin"] + result["solve"]:
        assert row["status"] in ("ok", "not installed", "error")
        assert row["status"] == "ok" or row["message"]


def test_provenance_says_what_ran_where(result):
    facts = result["provenance"]
    assert {"commit", "dirty", "date", "code", "device", "versions"} <= facts.keys()
    assert (facts["kind"], facts["size"], facts["threads"]) == ("cpu", "smoke", 1)


def test_softmin_rows_hold_time_error_and_memory(result):
    rows = {row["peer"]: row for row in result["softmin"] if row["status"] == "ok"}
    assert rows["otlib"]["error_over_eps"] < 0.05
    for row in rows.values():
        assert row["cpu_seconds"] > 0 and row["over_mm"] > 0 and row["repeats"] >= 5
        assert row["extra_mib"] >= 0
    assert rows["torch.mm"]["over_mm"] == 1


def test_otlib_reaches_every_target_of_a_checked_reference(result):
    assert result["reference"]["converged"]
    assert result["reference"]["error_of_g_over_eps_at_most"] < 1e-3
    ours = next(row for row in result["solve"] if row["peer"] == "otlib")
    assert all(seconds > 0 for seconds in ours["reached"].values())
    assert ours["ladder"][-1]["gradient_error"] <= 0.001
    assert ours["ladder"][-1]["repeats"] == 5


def test_pot_is_wrong_and_the_table_says_so(result):
    row = next(row for row in result["solve"] if row["peer"].startswith("POT"))
    assert row["status"] == "ok" and not any(row["reached"].values())
    assert "mass of the plan" in row["note"] and "Numerical errors" in row["note"]


def test_scaling_covers_the_five_parameters(result):
    assert [row["over"] for row in result["scaling"]] == ["N", "M", "d", "eps", "rho"]
    for row in result["scaling"]:
        assert len(row["values"]) == len(row["cpu_seconds"]) >= 3
        assert isinstance(row["exponent"], float)


def test_the_cost_of_a_sweep_is_told_with_its_points_and_memory(project):
    result = sweep.bench("toy", 10, 2, project.root)
    assert (result["notebook"], result["points"], result["workers"]) == ("toy", 10, 2)
    assert 0 < result["seconds_in_its_cells"] < result["seconds_a_point"]
    assert set(result["memory_mib"]) == {"driver", "workers", "warm"}
    assert not (project.root / ".companion").exists()


def test_the_minimisers_are_compared_at_one_energy():
    result = minimisers.bench("smoke")
    assert result["last_energy_over_mm"] > 0.98
    assert result["seconds_over_mm"] > 0 and result["updates_over_mm"] > 0
    assert result["provenance"]["size"] == "smoke"


@pytest.fixture
def two_pairs(monkeypatch):
    """In place of the published images, which cannot be passed on: smooth noise."""
    random = torch.Generator().manual_seed(0)
    blurred = torch.nn.AvgPool2d(5, stride=1, padding=2)
    images = [blurred(torch.rand(1, 66, 66, generator=random)) for _ in range(6)]
    made = [Pair("noise", *three, ("", "", ""), None) for three in (images[:3], images[3:])]
    monkeypatch.setattr(published.data, "published", lambda folder, count, size: made[:count])


@pytest.mark.parametrize("bench", [published, wpp])
def test_both_minimisers_go_down_on_a_published_pair(two_pairs, bench):
    for way in (next(iter(bench.WAYS)), "Adam"):
        told = bench.run("", "smoke", 1, way)
        looks = told["looks"]
        assert (told["image"], told["way"], len(looks)) == ("noise 1", way, published.LOOKS)
        assert looks[-1]["energy"] < looks[0]["energy"]
        assert 0 < looks[0]["seconds"] < looks[-1]["seconds"]
        assert 0 < looks[0]["updates"] < looks[-1]["updates"]
        assert all(0 < look["psnr"] < 60 and 0 < look["lpips"] < 1 for look in looks)


def test_the_dual_steps_of_wpp_go_on_from_their_mean(monkeypatch):
    """Four steps of size 1 from 0, the last two averaged, then four from there; one value."""
    monkeypatch.setattr(wpp, "DUAL_STEPS", 4)
    monkeypatch.setattr(wpp.published, "PATCH", 1)
    prior, image = wpp.averaged(torch.tensor([[0.0], [1.0]])), torch.full((1, 1, 4), 0.2)
    costs, g = torch.tensor([0.04, 0.64]), torch.zeros(2)
    for _ in range(2):
        steps = []
        for _ in range(4):
            chosen = torch.nn.functional.one_hot((costs - g).argmin(), 2)
            g = g + 0.5 - chosen
            steps.append(g)
        g = (steps[2] + steps[3]) / 2
        height = (costs - g).min() + g.mean()
        # torch's ASGD shrinks its variable by 1e-4 a step
        torch.testing.assert_close(prior(image), height, rtol=0, atol=1e-3)


def test_an_interrupted_run_on_published_pairs_goes_on(monkeypatch, tmp_path, capsys):
    asked, out = [], tmp_path / "minimisers-toy.json"
    monkeypatch.setattr(published, "ProcessPoolExecutor", lambda *_, **__: ThreadPoolExecutor(1))

    def run(folder, size, index, way):
        asked.append((index, way))
        if len(asked) == 3:
            raise KeyboardInterrupt
        energy = 2.0 if way == "Adam" else 2.1
        look = dict(step=1, seconds=4.0, updates=3, energy=energy, psnr=20.0, lpips=0.5)
        return {"image": f"noise {index}", "way": way, "most_mib": 1.0, "looks": [look]}

    with pytest.raises(KeyboardInterrupt):
        published.bench("", out, "smoke", pairs=2, workers=1, run=run)
    done = json.loads(out.read_text())["runs"]
    assert 0 < len(done) < 3
    before, jobs = len(asked), 2 * len(published.WAYS)
    result = published.bench("", out, "smoke", pairs=2, workers=1, run=run)
    assert len(asked) - before == jobs - len(done)
    assert len({(one["pair"], one["way"]) for one in result["runs"]}) == jobs
    assert minimised.kept(str(out), "other") == {}
    runs = minimised.kept(str(out), "toy")
    minimised.table(runs, "toy")
    assert "smoke size" in capsys.readouterr().out and len(runs) == jobs
