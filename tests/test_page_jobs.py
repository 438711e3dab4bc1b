"""Results of jobs, found by what the jobs were."""

import numpy as np
import pytest

from companion.page.jobs import by_job, on_grid, side_by_side
from companion.page.unfinished import unfinished


def test_results_are_found_by_their_jobs_and_a_job_runs_once():
    done = []
    work = lambda job: done.append(job) or {"sum": sum(job), "both": np.array(job)}
    found = by_job(work, [(1, 2), (0, 5), (1, 2)], "jobs")
    assert sorted(done) == [(0, 5), (1, 2)] and list(found) == [(1, 2), (0, 5)]
    assert found[0, 5]["sum"] == 5


def test_results_are_laid_out_by_the_choices_of_each_axis():
    rows, columns, deep = ("a", "b"), (1, 2, 3), range(2)
    value = lambda name, number, k: ord(name) + 10 * number + 100 * k
    found = {
        (n, c, k): {"value": value(n, c, k), "curve": np.full(5, value(n, c, k))}
        for k in deep
        for c in columns
        for n in rows
    }
    grid = on_grid(found, "value", rows, columns, deep)
    assert grid.shape == (2, 3, 2) and grid[1, 2, 0] == value("b", 3, 0)
    assert on_grid(found, "value", iter(["b"]), [3], [1]).item() == value("b", 3, 1)
    curves = on_grid(found, "curve", rows, columns, deep)
    assert curves.shape == (2, 3, 2, 5) and (curves == grid[..., None]).all()
    with pytest.raises(KeyError):
        on_grid(found, "value", rows, [4], deep)


def test_a_training_that_is_not_done_lies_beside_the_jobs_that_are(monkeypatch, tmp_path):
    monkeypatch.delenv("COMPANION_PARTS", raising=False)
    assert unfinished("PSGAN 1") is None
    monkeypatch.setenv("COMPANION_PARTS", str(tmp_path))
    one, two = unfinished("PSGAN 1"), unfinished("PSGAN 2")
    assert one != two
    assert {one.parent, two.parent} == {tmp_path}
    one.write_bytes(b"state")
    assert side_by_side(lambda job: 2 * job, [1, 2], "PSGAN 1") == [2, 4]
    assert side_by_side(lambda job: 0, [1, 2], "PSGAN 1") == [2, 4]  # kept, and the state left be
    assert one.read_bytes() == b"state"
