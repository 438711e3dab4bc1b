"""Run independent jobs of a notebook side by side."""

import hashlib
import itertools
import os
import pickle
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from tqdm import tqdm

from companion.files import read_sealed, write_sealed

Job = TypeVar("Job", bound=Hashable)


def side_by_side(
    work: Callable[..., Any], jobs: Sequence[Any], label: str, steps: int | None = None
) -> list[Any]:
    """Apply a function to every job, on as many threads as torch has, with a progress bar.

    On shared cores the threads of one small product mostly wait for each other, so each job gets
    one torch thread. The order and the results do not depend on the number of threads, provided
    that no two jobs share a random generator.

    work: function of one job; with `steps`, of (job, tick), calling tick() that many times: the bar
        then counts steps, and says how many jobs are done. jobs: list.
    label: text of the bar, once a notebook. Where `companion run` runs the notebook, finished jobs
        are kept under it until the run is whole: an interrupted run takes up where it was.
    Returns the list of results in the order of the jobs; raises what a job raised.
    """

    workers, done, parts = torch.get_num_threads(), 0, os.environ.get("COMPANION_PARTS")
    name = re.sub("[^a-z0-9]+", "-", label.lower())
    name += f"-{hashlib.sha256(label.encode()).hexdigest()[:8]}"  # letters alone may be another's
    torch.set_num_threads(1)
    try:
        with (
            tqdm(total=len(jobs) * (steps or 1), desc=label) as bar,
            ThreadPoolExecutor(workers) as pool,
        ):

            def once(index):
                nonlocal done
                path = parts and Path(parts) / f"{name}-{index}"
                if path and (kept := read_sealed(path)) is not None:
                    result = pickle.loads(kept)
                    bar.update(steps or 1)
                else:
                    result = work(jobs[index], *([bar.update] if steps else []))
                    if not steps:
                        bar.update()
                    if path:
                        write_sealed(path, pickle.dumps(result))
                done += 1
                bar.set_postfix_str(f"{done}/{len(jobs)} done", refresh=False)
                return result

            return list(pool.map(once, range(len(jobs))))
    finally:
        torch.set_num_threads(workers)


def by_job(work: Callable[[Job], Any], jobs: Iterable[Job], label: str) -> dict[Job, Any]:
    """Run `side_by_side` and tell whose result is whose; a job that comes twice runs once.

    work, label: as there. jobs: what a dictionary takes as keys.
    Returns {job: result} in the order of the jobs; raises what a job raised.
    """
    once = list(dict.fromkeys(jobs))
    return dict(zip(once, side_by_side(work, once, label), strict=True))


def on_grid(
    found: Mapping[tuple, Mapping[str, Any]], what: str, *axes: Iterable[Hashable]
) -> np.ndarray:
    """Lay out one of the results of jobs that cross several choices.

    found: {(a choice of each axis, ...): {what: number or array}}, as `by_job` gives it. axes: the
        choices, at least one each.
    Returns an array (len(axis), ..., and the result's own axes). Raises KeyError for a job that is
    not found.
    """
    choices = [list(axis) for axis in axes]
    values = np.array([found[job][what] for job in itertools.product(*choices)])
    return values.reshape(*map(len, choices), *values.shape[1:])
