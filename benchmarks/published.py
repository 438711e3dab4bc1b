"""Adam's 500 steps beside majorisation on published pairs of Table I, at their size, to keep.

    python -m benchmarks.published --mvtec FOLDER \\
        --out book/archive/super_resolution-minimisers-256px.json

The semi-unbalanced form, defective references, settings of the authors' later code, one thread a
restoration. What is done is written at once; the same command goes on after an interruption.
"""

import argparse
import functools
import inspect
import json
import math
import multiprocessing
import os
import resource
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import torch
from tqdm import tqdm

from companion import keys, provenance
from companion.files import write_aside
from companion.page import facts, pictures, scores
from otlib import operators, patches, sinkhorn
from otlib.assets import pairs as data
from otlib.restore import majorise, patch_ot, restore

SIZES = {
    "full": dict(side=256, samples=10000, adam=500),
    "smoke": dict(side=66, samples=100, adam=20),
}
EPS, RHO, PATCH, NOISE, LR = 1e-4, 0.01, 6, 0.01, 0.01
SOLVER = dict(eps=EPS, rho=(math.inf, RHO), tol=0.05, max_iter=20, thin=4)
LAM = 0.006 * (600 / 256) ** 2  # for 256 x 256 pixels: the data term is a sum over them
COARSE = (5, 5, 5, 2)  # grids of the first steps of majorisation, a fifth of them each
LOOKS = 5  # at each way
# name: steps of majorisation, or None for Adam
WAYS = {f"majorisation, {steps} steps": steps for steps in (10, 20, 40)} | {"Adam": None}


def run(folder, size, index, way):
    """Restore one pair by one minimiser; return what the JSON file holds of it.

    The energy at a look is of further solves on all patches, to 1 % of the mass: the same for each
    way.
    """
    at, steps = SIZES[size], WAYS[way]
    pair, observed, degrade, start, clouds, lam = problem(folder, at, index)
    updates, calls, count = [], [], steps or at["adam"]
    seen = lambda solution, _: updates.append(solution.iterations)
    # each as it measures best: a step of majorisation moves the potentials far
    warm = dict(start_eps=32 * EPS, scaling=0.4) if steps else {}
    priors = [patch_ot(cloud, PATCH, observe=seen, **SOLVER, **warm) for cloud in clouds]
    strict = SOLVER | dict(tol=0.01, max_iter=100, thin=1, start_eps=32 * EPS, scaling=0.4)
    exact = [patch_ot(cloud, PATCH, **strict) for cloud in clouds]

    def prior(u):
        calls.append(1)
        grids = [*COARSE, 1] if steps else [1]
        return over_scales(priors, u, grids[(len(calls) - 1) * len(grids) // count])

    def reached(u):
        term = lam / 2 * (degrade(u) - observed).square().sum()
        psnr, lpips = scores.quality(u, pair.target, border=6)[:2]
        energy = float(term + over_scales(exact, u, 1))
        return dict(updates=sum(updates), energy=energy, psnr=psnr, lpips=lpips)

    image = f"{pair.category} {index}"
    look, rows = looks(count, reached, f"{image}, {way}", index)
    minimise = majorise if steps else functools.partial(restore, lr=LR)
    minimise(observed, degrade, [prior], lam=lam, start=start, steps=count, callback=look)
    return {"image": image, "way": way, "most_mib": most_mib(), "looks": rows}


def problem(folder, at, index):
    """A pair, what is seen of it and by what, the first image, both reference clouds, lambda."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", sinkhorn.ConvergenceWarning)
    pair = data.published(folder, index + 1, at["side"])[index]
    kernel = operators.gaussian_kernel(16, 2.0)
    degrade = lambda u: operators.blur(u, kernel, stride=4)
    observed = operators.gaussian_noise(degrade(pair.target), NOISE, drawn())
    start = pictures.enlarge(observed, 4, at["side"], before=6)
    levels = [patches.extract(level, PATCH) for level in patches.pyramid(pair.defective, 2)]
    clouds = [patches.draw(level, at["samples"], drawn()) for level in levels]
    return pair, observed, degrade, start, clouds, LAM * (256 / at["side"]) ** 2


def drawn():
    return torch.Generator().manual_seed(0)


def over_scales(priors, u, grid):
    """The mean of the priors, each of its level of the image's pyramid."""
    return sum(ot(v, grid) for ot, v in zip(priors, patches.pyramid(u, 2), strict=True)) / 2


def looks(count, reached, label, position):
    """A callback of a minimiser that fills rows with what an image has reached, and these rows.

    reached: function image -> entries of a row; LOOKS times in `count` steps, outside the clock,
    which begins here.
    """
    rows, spent, began = [], 0.0, time.process_time()
    bar = tqdm(total=count, desc=label, position=position)

    def look(step, u):
        nonlocal spent, began
        spent += time.process_time() - began
        bar.update()
        if (step + 1) % (count // LOOKS) == 0:
            rows.append({"step": step + 1, "seconds": spent} | reached(u))
        began = time.process_time()

    return look, rows


def most_mib():
    """What this process held at most, the looks' too."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def bench(folder, out, size="full", pairs=2, workers=None, run=run, ways=WAYS):
    """Run each way on the first pairs, write each as it is done; return what the file holds.

    folder: of MVTec AD. out: JSON file; runs in it that the present code made here are kept. size:
    one of SIZES. workers: processes, by default one a core. run, ways: what is run, as here.
    """
    checkout = provenance.commit(Path(__file__).parents[1])
    about = {
        **checkout,
        "code": keys.imported("otlib.restore", "otlib.assets.pairs", "companion.page.scores"),
        "bench": [keys.digest(Path(file)) for file in (__file__, inspect.getfile(run))],
        "size": size,
        **facts.kernel_facts(),
    }
    kept = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {}
    same = ("code", "bench", "size", "device")
    if any(kept.get("provenance", {}).get(name) != about[name] for name in same):
        kept = {}  # of other code, or on another processor
    runs = kept.get("runs", [])
    done = {(one["pair"], one["way"]) for one in runs}
    jobs = [job for job in product(range(pairs), ways) if job not in done]
    spawn = multiprocessing.get_context("spawn")
    workers = workers or len(os.sched_getaffinity(0))
    failed, order = [], lambda one: (one["pair"], list(ways).index(one["way"]))
    with ProcessPoolExecutor(workers, spawn, max_tasks_per_child=1) as pool:
        asked = {pool.submit(run, folder, size, *job): job for job in jobs}
        try:
            for ended in as_completed(asked):
                if isinstance(error := ended.exception(), Exception):
                    failed.append(error)  # the others are kept all the same
                    continue
                runs = sorted([*runs, {"pair": asked[ended][0]} | ended.result()], key=order)
                about["date"] = datetime.now(UTC).isoformat(timespec="seconds")
                kept = {"provenance": about, "runs": runs}
                write_aside(out, json.dumps(kept, indent=1, allow_nan=False) + "\n")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failed:
        raise failed[0]
    return kept


def main(doc=__doc__, pairs=2, **what):
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--mvtec", type=Path, required=True, help="folder of MVTec AD")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument(
        "--pairs",
        type=int,
        default=pairs,
        choices=range(1, 19),
        help="the first so many",
        metavar="N",
    )
    parser.add_argument("--smoke", action="store_true", help="toy size: seconds, for tests")
    told = parser.parse_args()
    if not data.published(told.mvtec, 1):
        parser.error(f"--mvtec must hold the eighteen published pairs, {told.mvtec} does not")
    bench(told.mvtec, told.out, "smoke" if told.smoke else "full", told.pairs, **what)


if __name__ == "__main__":
    main()
