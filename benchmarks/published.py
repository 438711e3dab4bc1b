"""Adam's 500 steps beside majorisation on published pairs of Table I, at their size, to keep.

    python -m benchmarks.published --mvtec FOLDER \\
        --out book/archive/super_resolution-minimisers-256px.json

The semi-unbalanced form, defective references, settings of the authors' later code, one thread a
restoration. What is done is written at once; the same command goes on after an interruption.
"""

import argparse
import functools
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

    The looks at energy, PSNR and LPIPS are outside the clock. Their energy is of further solves on
    all patches, to 1 % of the mass: the same for each way.
    """
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", sinkhorn.ConvergenceWarning)
    at, steps = SIZES[size], WAYS[way]
    pair = data.published(folder, index + 1, at["side"])[index]
    random = lambda: torch.Generator().manual_seed(0)
    kernel = operators.gaussian_kernel(16, 2.0)
    degrade = lambda u: operators.blur(u, kernel, stride=4)
    observed = operators.gaussian_noise(degrade(pair.target), NOISE, random())
    start = pictures.enlarge(observed, 4, at["side"], before=6)
    levels = [patches.extract(level, PATCH) for level in patches.pyramid(pair.defective, 2)]
    clouds = [patches.draw(level, at["samples"], random()) for level in levels]
    lam = LAM * (256 / at["side"]) ** 2

    updates, rows, calls = [], [], []
    seen = lambda solution, _: updates.append(solution.iterations)
    # each as it measures best: a step of majorisation moves the potentials far
    warm = dict(start_eps=32 * EPS, scaling=0.4) if steps else {}
    priors = [patch_ot(cloud, PATCH, observe=seen, **SOLVER, **warm) for cloud in clouds]
    strict = SOLVER | dict(tol=0.01, max_iter=100, thin=1, start_eps=32 * EPS, scaling=0.4)
    exact = [patch_ot(cloud, PATCH, **strict) for cloud in clouds]
    total = lambda ots, u, grid: (
        sum(ot(v, grid) for ot, v in zip(ots, patches.pyramid(u, 2), strict=True)) / 2
    )

    def prior(u):
        calls.append(1)
        grids = [*COARSE, 1] if steps else [1]
        return total(priors, u, grids[(len(calls) - 1) * len(grids) // count])

    count = steps or at["adam"]
    spent, began = 0.0, 0.0
    bar = tqdm(total=count, desc=f"{pair.category} {index}, {way}", position=index)

    def look(step, u):
        nonlocal spent, began
        spent += time.process_time() - began
        bar.update()
        if (step + 1) % (count // LOOKS) == 0:
            term = lam / 2 * (degrade(u) - observed).square().sum()
            psnr, lpips = scores.quality(u, pair.target, border=6)[:2]
            energy = float(term + total(exact, u, 1))
            told = dict(seconds=spent, updates=sum(updates), energy=energy, psnr=psnr, lpips=lpips)
            rows.append({"step": step + 1} | told)
        began = time.process_time()

    minimise = majorise if steps else functools.partial(restore, lr=LR)
    began = time.process_time()
    minimise(observed, degrade, [prior], lam=lam, start=start, steps=count, callback=look)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # the looks' too
    return {"image": f"{pair.category} {index}", "way": way, "most_mib": most, "looks": rows}


def bench(folder, out, size="full", pairs=2, workers=None):
    """Run each way on the first pairs, write each as it is done; return what the file holds.

    folder: of MVTec AD. out: JSON file; runs in it that the present code made here are kept. size:
    one of SIZES. workers: processes, by default one a core.
    """
    checkout = provenance.commit(Path(__file__).parents[1])
    about = {
        **checkout,
        "code": keys.imported("otlib.restore", "otlib.assets.pairs", "companion.page.scores"),
        "bench": keys.digest(Path(__file__)),
        "size": size,
        **facts.kernel_facts(),
    }
    kept = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {}
    same = ("code", "bench", "size", "device")
    if any(kept.get("provenance", {}).get(name) != about[name] for name in same):
        kept = {}  # of other code, or on another processor
    runs = kept.get("runs", [])
    done = {(one["pair"], one["way"]) for one in runs}
    jobs = [job for job in product(range(pairs), WAYS) if job not in done]
    spawn = multiprocessing.get_context("spawn")
    workers = workers or len(os.sched_getaffinity(0))
    failed = []
    with ProcessPoolExecutor(workers, spawn, max_tasks_per_child=1) as pool:
        asked = {pool.submit(run, folder, size, *job): job for job in jobs}
        try:
            for ended in as_completed(asked):
                if isinstance(error := ended.exception(), Exception):
                    failed.append(error)  # the others are kept all the same
                    continue
                runs = sorted([*runs, {"pair": asked[ended][0]} | ended.result()], key=_order)
                about["date"] = datetime.now(UTC).isoformat(timespec="seconds")
                kept = {"provenance": about, "runs": runs}
                write_aside(out, json.dumps(kept, indent=1, allow_nan=False) + "\n")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failed:
        raise failed[0]
    return kept


def _order(one):
    return one["pair"], list(WAYS).index(one["way"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mvtec", type=Path, required=True, help="folder of MVTec AD")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument(
        "--pairs", type=int, default=2, choices=range(1, 19), help="the first so many", metavar="N"
    )
    parser.add_argument("--smoke", action="store_true", help="toy size: seconds, for tests")
    told = parser.parse_args()
    if not data.published(told.mvtec, 1):
        parser.error(f"--mvtec must hold the eighteen published pairs, {told.mvtec} does not")
    bench(told.mvtec, told.out, "smoke" if told.smoke else "full", told.pairs)


if __name__ == "__main__":
    main()
