"""What the two minimisers of `otlib.restore` cost to the same energy.

One problem, one run, one thread: super-resolution of a crop of a photograph with patches from
another part of it. Only ratios are recorded; CPU seconds of a loaded machine mean little.
"""

import argparse
import json
import math
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path

import skimage
import torch

from companion import keys, provenance
from companion.files import write_aside
from companion.page import facts
from otlib import operators, patches, sinkhorn
from otlib.restore import majorise, patch_ot, restore

SIZES = {
    "full": dict(side=64, samples=1000, adam=300, mm=30),
    "smoke": dict(side=32, samples=100, adam=60, mm=10),
}
LAM, EPS, RHO, PATCH, LR, NEAR = 0.23, 1e-4, 0.01, 6, 0.01, 0.005


def bench(size="full"):
    """Minimise by both; return how often MM's cost Adam's is, to within NEAR of Adam's last energy.

    Adam's solves start at eps, from the potentials of the step before, those of MM 32 eps higher:
    each as it measures best. The energies, every tenth step of Adam and each of MM, are of further
    solves, to 1 % of the mass, outside the clock.
    """
    settings = SIZES[size]
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", sinkhorn.ConvergenceWarning)  # two updates a solve
    random = torch.Generator().manual_seed(0)
    photograph = torch.from_numpy(skimage.img_as_float32(skimage.data.gravel()))[None]
    side, kernel = settings["side"], operators.gaussian_kernel(8, 1.0)
    degrade = lambda u: operators.blur(u, kernel, stride=2)
    observed = operators.gaussian_noise(degrade(photograph[:, :side, :side]), 0.01, random)
    start = torch.nn.functional.interpolate(observed[None], (side, side), mode="bicubic")[0]
    pool = patches.extract(photograph[:, 256:], PATCH)
    cloud = patches.draw(pool, settings["samples"], random)

    def run(minimise, start_eps, **how):
        """Energies after the steps, and the CPU seconds and updates spent until then."""
        rows, spent, updates = [], [0.0], []
        watch = lambda solution, _: updates.append(solution.iterations)
        solver = dict(eps=EPS, rho=(math.inf, RHO))
        prior = patch_ot(
            cloud, PATCH, start_eps=start_eps, scaling=0.5, max_iter=2, observe=watch, **solver
        )

        def look(step, u):
            spent.append(spent[-1] + time.process_time() - began[0])
            if minimise is restore and (step + 1) % 10:
                began[0] = time.process_time()
                return
            exact = patch_ot(cloud, PATCH, tol=0.01, **solver)
            data = LAM / 2 * (degrade(u) - observed).square().sum()
            rows.append((float(data + exact(u)), spent[-1], sum(updates)))
            began[0] = time.process_time()

        began = [time.process_time()]
        minimise(observed, degrade, [prior], lam=LAM, start=start, callback=look, **how)
        return rows

    adam = run(restore, None, steps=settings["adam"], lr=LR)
    mm = run(majorise, 32 * EPS, steps=settings["mm"])
    goal = (1 + NEAR) * adam[-1][0]
    (_, adam_seconds, adam_updates), (_, mm_seconds, mm_updates) = (
        next((row for row in rows if row[0] <= goal), (None, math.nan, math.nan))
        for rows in (adam, mm)
    )
    return {
        "adam_steps": settings["adam"],
        "near": NEAR,
        "seconds_over_mm": _ratio(adam_seconds, mm_seconds),
        "updates_over_mm": _ratio(adam_updates, mm_updates),
        "last_energy_over_mm": _ratio(adam[-1][0], mm[-1][0]),
        "provenance": {
            **provenance.commit(Path(__file__).parents[1]),
            "code": keys.imported("otlib.restore"),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "size": size,
            "device": facts.cpu_model(),
            "versions": facts.versions(("torch",)),
        },
    }


def _ratio(over, under):
    """None where MM did not get there."""
    ratio = over / under
    return round(ratio, 3) if math.isfinite(ratio) else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--smoke", action="store_true", help="toy size: seconds, for tests")
    options = parser.parse_args()
    result = bench("smoke" if options.smoke else "full")
    write_aside(options.out, json.dumps(result, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
