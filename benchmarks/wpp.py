"""WPP by Adam, as its code runs it, beside this book's majorisation on published pairs, to keep.

    python -m benchmarks.wpp --mvtec FOLDER --out book/archive/super_resolution-wpp-256px.json

The Wasserstein patch prior of Hertrich et al. 2022 as Table I of Mignon et al. 2023 runs it:
a border of noise, ten averaged steps on the dual variable an image step, 500 steps of Adam; on all
patches. Beside it what the archived Table I is made with, and the same with longer dual steps: in
20 steps of the image the dual variable of the first takes 200 steps, that of Adam 5000. What is
done is written at once.
"""

import functools

import torch

from benchmarks import published
from companion.page import pictures, scores
from otlib import patches, semidual
from otlib.restore import majorise, patch_semidual, restore

BORDER, DUAL_STEPS, THIN, STRICT = 20, 10, 4, 100
# name: steps of majorisation, or None for Adam, and the size of a dual step
WAYS = {
    "majorisation, 20 steps": (20, 1.0),
    "majorisation, long dual steps": (20, 10.0),
    "Adam": (None, 1.0),
}


def averaged(y):
    """The prior with the dual variable of torch's ASGD, whose mean of iterates is carried on.

    y: (M, d) patches of the reference. Each call starts another ASGD, as the code of WPP does.
    """
    mean = y.new_zeros(len(y))

    def prior(image, stride=1):
        nonlocal mean
        x, g = patches.extract(image, published.PATCH, stride), mean.clone().requires_grad_()
        climb = torch.optim.ASGD([g], lr=1, alpha=0.5, t0=1)
        for _ in range(DUAL_STEPS):
            chosen = semidual.evaluate(x.detach(), y, g.detach()).assignment
            g.grad = torch.bincount(chosen, minlength=len(y)) / len(x) - 1 / len(y)
            climb.step()
        mean = climb.state[g]["ax"].detach()
        return semidual.evaluate(x, y, mean).value

    return prior


def run(folder, size, index, way):
    """Restore one pair by one minimiser; return what the JSON file holds of it.

    The energy at a look is that of STRICT further dual steps on every THIN-th patch, from those of
    the look before, then on all: the same for each way, and a lower bound.
    """
    at, (steps, dual_step) = published.SIZES[size], WAYS[way]
    pair, observed, degrade, start, clouds, lam = published.problem(folder, at, index)
    start, inner = pictures.in_noise(start, BORDER, published.drawn())
    count, calls = steps or at["adam"], []
    thinned = functools.partial(patch_semidual, patch=published.PATCH, thin=THIN)
    climbs = functools.partial(thinned, dual_steps=DUAL_STEPS, dual_step=dual_step)
    priors = [climbs(y) if steps else averaged(y) for y in clouds]
    exact = [thinned(y, dual_steps=STRICT) for y in clouds]
    seen = lambda u: degrade(u[inner])

    def prior(u):
        calls.append(1)
        grids = [*published.COARSE, 1] if steps else [1]
        return published.over_scales(priors, u, grids[(len(calls) - 1) * len(grids) // count])

    def reached(u):
        term = lam / 2 * (seen(u) - observed).square().sum()
        psnr, lpips = scores.quality(u[inner], pair.target, border=6)[:2]
        energy = float(term + published.over_scales(exact, u, 1))
        return dict(updates=DUAL_STEPS * len(calls), energy=energy, psnr=psnr, lpips=lpips)

    image = f"{pair.category} {index}"
    look, rows = published.looks(count, reached, f"{image}, {way}", index)
    minimise = majorise if steps else functools.partial(restore, lr=published.LR)
    minimise(observed, seen, [prior], lam=lam, start=start, steps=count, callback=look)
    return {"image": image, "way": way, "most_mib": published.most_mib(), "looks": rows}


if __name__ == "__main__":
    published.main(__doc__, pairs=4, run=run, ways=WAYS)
