import inspect
import math
import textwrap

import pytest
import torch

from otlib import gaussian, metrics, operators, patches, semidual, sinkhorn
from otlib.restore import patch_ot, patch_semidual, restore

INF = math.inf


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def identity(u):
    return u


def noise(shape, seed, dtype=torch.float64):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def texture(seed, side=24):
    """A smooth texture of standard deviation .15 about .5."""
    draw = gaussian.texture((1, side, side), 1.5, 0.15, 0.5, generator(seed))
    return draw.double()


def test_data_term_alone_returns_the_observation():
    observed, start = noise((2, 5, 7), 0), noise((2, 5, 7), 1)
    u = restore(observed, identity, [], lam=1.0, steps=1000, lr=0.02, start=start)
    torch.testing.assert_close(u, observed, rtol=0, atol=1e-4)
    assert (start - observed).abs().max() > 1


def test_without_any_term_nothing_moves():
    observed, start = noise((1, 4, 4), 0), noise((1, 4, 4), 1)
    assert torch.equal(restore(observed, identity, [], lam=0, steps=3, lr=0.1, start=start), start)


def test_linear_least_squares():
    """lam / 2 |A u - y|^2 + mu |u|^2 with a blur that drops pixels: the normal equations."""
    shape, lam, mu = (1, 6, 6), 3.0, 0.1
    kernel = operators.gaussian_kernel(3, 0.8)

    def degrade(u):
        return operators.subsample(operators.blur(u, kernel, periodic=True), 2)

    observed = degrade(noise(shape, 0)) + 0.1 * noise((1, 3, 3), 1)
    basis = torch.eye(36, dtype=torch.float64).reshape(36, *shape)
    matrix = torch.stack([degrade(e).flatten() for e in basis], 1)
    normal = lam * matrix.T @ matrix + 2 * mu * torch.eye(36, dtype=torch.float64)
    exact = torch.linalg.solve(normal, lam * matrix.T @ observed.flatten()).reshape(shape)
    u = restore(
        observed,
        degrade,
        [lambda u: mu * u.square().sum()],
        lam=lam,
        steps=1500,
        lr=0.01,
        start=noise(shape, 2),
    )
    torch.testing.assert_close(u, exact, rtol=0, atol=1e-3)


def energy_gradient(observed, operator, priors, start, lam):
    """The gradient at the start as the first of Adam's steps sees it."""
    seen = []

    def watched(u):
        seen.append(u)
        return operator(u)

    restore(observed, watched, priors, lam=lam, steps=1, lr=1e-3, start=start)
    return next(u for u in seen if u.requires_grad).grad


@pytest.mark.parametrize("rho", [(INF, INF), (INF, 0.1), (0.1, 0.1)], ids=str)
def test_gradient_of_the_energy(rho):
    """Two priors of different sizes and a blur: autograd of the dense sum, plans held fixed."""
    lam, solver = 0.7, {"eps": 0.05, "rho": rho, "tol": 1e-10, "max_iter": 5000}
    kernel = operators.gaussian_kernel(3, 1.0)
    start, observed = texture(0, 9), operators.blur(texture(1, 9), kernel, periodic=True)
    sides = ((3, 2), (4, 1))
    references = [patches.extract(texture(2, 12), size, stride) for size, stride in sides]
    priors = [
        patch_ot(reference, *side, **solver)
        for reference, side in zip(references, sides, strict=True)
    ]
    u = start.clone().requires_grad_()
    energy = lam / 2 * (operators.blur(u, kernel, periodic=True) - observed).square().sum()
    for reference, (size, stride) in zip(references, sides, strict=True):
        rows = range(0, 9 - size + 1, stride)
        cloud = torch.stack(
            [u[:, i : i + size, j : j + size].flatten() for i in rows for j in rows]
        )
        s = sinkhorn.solve(cloud.detach(), reference, **solver)
        plan = sinkhorn.plan(cloud, reference, s)
        energy = energy + (plan.detach() * (cloud[:, None] - reference).square().sum(-1)).sum()
    (expected,) = torch.autograd.grad(energy, u)
    found = energy_gradient(
        observed, lambda u: operators.blur(u, kernel, periodic=True), priors, start, lam
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("rho", [(INF, INF), (INF, 0.1), (0.1, 0.1)], ids=str)
def test_second_derivatives_of_the_entropic_prior(rho):
    """2 pi_1 a patch: the parabola they make with value and slope is above the prior."""
    image, reference = texture(0, 8), patches.extract(texture(1, 8), 3, 2)
    solver = {"eps": 0.05, "rho": rho, "tol": 1e-9, "max_iter": 5000}
    prior = patch_ot(reference, 3, **solver)
    u = image.clone().requires_grad_()
    value = prior(u)
    (slope,) = torch.autograd.grad(value, u)
    hessian = torch.autograd.functional.hessian(prior, image).reshape(64, 64)
    mass = sinkhorn.solve(patches.extract(image, 3), reference, **solver).marginals[0]
    cover = patches.adjoint(mass[:, None].expand(-1, 9), image.shape, 3).flatten()
    torch.testing.assert_close(hessian, torch.diag(2 * cover))
    for seed, size in ((1, 1e-3), (2, 0.03), (3, 0.3)):
        way = size * noise(image.shape, seed)
        parabola = value + (slope * way).sum() + (cover * way.flatten().square()).sum()
        assert prior(image + way) < parabola


def test_second_derivatives_of_the_semidual_prior():
    """2 a patch, over their number."""
    image, reference = texture(0, 6), patches.extract(texture(1, 8), 3)
    exact = patch_semidual(reference, 3, dual_steps=3)
    hessian = torch.autograd.functional.hessian(exact, image).reshape(36, 36)
    cover = patches.adjoint(torch.ones(16, 9, dtype=image.dtype), image.shape, 3).flatten()
    torch.testing.assert_close(hessian, torch.diag(2 / 16 * cover))


def test_prior_is_the_transport_cost_of_the_patches():
    """Its value, and its derivative in the image by central differences."""
    image, reference = texture(0, 8), patches.extract(texture(1, 10), 3)
    solver = {"eps": 0.05, "rho": (INF, 0.1), "tol": 1e-10}
    prior = patch_ot(reference, 3, 2, **solver)
    u = image.clone().requires_grad_()
    value = prior(u)
    expected = sinkhorn.solve(patches.extract(image, 3, 2), reference, **solver).value
    assert value.shape == () and torch.equal(value.detach(), expected)
    value.backward()
    way = noise(image.shape, 3)
    slope = (prior(image + 1e-4 * way) - prior(image - 1e-4 * way)) / 2e-4
    assert float((u.grad * way).sum()) == pytest.approx(float(slope), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_denoising_with_the_clean_patches(dtype):
    """The oracle prior removes noise of sd .1 (20 dB): above 5 dB gained, 9.8 as measured."""
    clean = texture(0)
    noisy = (clean + 0.1 * noise(clean.shape, 1)).to(dtype)
    prior = patch_ot(patches.extract(clean, 6), 6, stride=2, eps=1e-3, rho=(INF, 0.1))
    u = restore(noisy, identity, [prior], lam=0.02, steps=30, lr=0.02)
    assert u.dtype == dtype and u.shape == clean.shape and not u.requires_grad
    gain = metrics.psnr(u.double(), clean) - metrics.psnr(noisy.double(), clean)
    assert gain > 5


def test_example_of_the_docstring():
    """Inpainting: in the hole, nearer to the image than the zeros it started from and than grey."""
    text = inspect.getdoc(restore)
    example = text[text.index("    hole =") : text.index("Raises")]
    clean = texture(0)
    names = {
        "math": math,
        "torch": torch,
        "operators": operators,
        "patches": patches,
        "patch_ot": patch_ot,
        "restore": restore,
        "image": clean,
        "reference": texture(1),
        "generator": generator(2),
    }
    exec(textwrap.dedent(example), names)
    hole = names["hole"]
    assert 0.3 < hole.double().mean() < 0.7

    def psnr(u):
        return -10 * math.log10(float((u - clean)[:, hole].square().mean()))

    assert psnr(names["image"]) > psnr(names["observed"]) + 10
    assert psnr(names["image"]) > psnr(torch.full_like(clean, 0.5)) + 2
    kept = (names["image"] - clean)[:, ~hole]
    assert kept.square().mean().sqrt() < 0.05


def test_observers_see_every_step():
    """Each solve, each fresh draw of the reference, each image, in order."""
    clouds, solutions, images = [], [], []

    def draw():
        clouds.append(noise((10, 9), len(clouds)))
        return clouds[-1]

    prior = patch_ot(draw, 3, eps=0.5, observe=lambda *seen: solutions.append(seen))
    observed = noise((1, 5, 5), 0)
    u = restore(
        observed,
        identity,
        [prior],
        lam=1.0,
        steps=4,
        lr=0.1,
        callback=lambda step, u: images.append((step, u.clone(), u.requires_grad)),
    )
    assert len(clouds) == len(solutions) == len(images) == 4
    for (solution, reference), cloud in zip(solutions, clouds, strict=True):
        assert isinstance(solution, sinkhorn.Solution) and reference is cloud
        assert solution.f.shape == (9,) and solution.g.shape == (10,)
    assert [step for step, _, _ in images] == [0, 1, 2, 3]
    assert not any(asks for _, _, asks in images)
    assert torch.equal(images[-1][1], u)
    # the first step of Adam is lr against the sign of the gradient
    first = images[0][1] - observed
    torch.testing.assert_close(first.abs(), torch.full_like(first, 0.1), rtol=1e-3, atol=0)


def test_same_seed_same_image():
    """Identical where the draws are, and different where they are not."""
    observed = noise((1, 6, 6), 0, torch.float32)

    def run(seed):
        g = generator(seed)
        prior = patch_ot(lambda: torch.randn(20, 9, generator=g), 3, eps=0.1, rho=(INF, 0.1))
        return restore(observed, identity, [prior], lam=0.1, steps=3, lr=0.05)

    before = observed.clone()
    assert torch.equal(run(3), run(3))
    assert not torch.equal(run(3), run(4))
    assert torch.equal(observed, before)


def test_shape_of_the_observation_is_the_operators():
    """Super-resolution: observed is smaller than u, which the start gives; start is left alone."""
    start = texture(0, 8)
    before = start.clone()

    def half(u):
        return operators.subsample(u, 2)

    u = restore(half(texture(1, 8)), half, [], lam=1.0, steps=300, lr=0.02, start=start)
    assert torch.equal(start, before)
    torch.testing.assert_close(half(u), half(texture(1, 8)), rtol=0, atol=1e-3)
    untouched = torch.ones_like(start, dtype=torch.bool)
    untouched[:, ::2, ::2] = False
    assert torch.equal(u[untouched], start[untouched])


def test_reference_takes_the_type_of_the_image():
    reference = patches.extract(texture(1, 8), 3)
    values = [
        patch_ot(reference, 3, eps=0.1)(texture(0, 8).to(t)) for t in (torch.float32, torch.float64)
    ]
    assert [v.dtype for v in values] == [torch.float32, torch.float64]
    assert float(values[0]) == pytest.approx(float(values[1]), rel=1e-4)


IMAGE = torch.zeros(1, 4, 4)
GOOD = {"observed": IMAGE, "operator": identity, "priors": [], "lam": 1.0, "steps": 1, "lr": 0.1}
BAD = [
    ("observed", torch.full((1, 4, 4), math.nan)),
    ("observed", torch.full((1, 4, 4), INF)),
    ("observed", torch.zeros(1, 4, 4, dtype=torch.uint8)),
    ("observed", [[0.0]]),
    ("start", torch.zeros(4, 4)),
    ("start", torch.full((1, 4, 4), math.nan)),
    ("start", torch.zeros(1, 0, 4)),
    ("operator(start)", {"start": torch.zeros(1, 5, 4)}),
    ("operator(start)", {"operator": lambda u: u[:, ::2]}),
    *(("lam", v) for v in (-1.0, math.nan, INF, "1")),
    *(("steps", v) for v in (0, -1, 1.5, None)),
    *(("lr", v) for v in (0.0, -0.1, math.nan, INF)),
]


@pytest.mark.parametrize("name, value", BAD, ids=[f"{n}-{i}" for i, (n, _) in enumerate(BAD)])
def test_bad_input_is_one_line_that_names_the_argument(refuses, name, value):
    refuses(restore, GOOD, name, value)


@pytest.mark.parametrize("name", ["patch", "stride"])
@pytest.mark.parametrize("value", [0, -1, 2.5, None])
def test_patch_ot_checks_its_grid_when_made(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be a whole number") as error:
        patch_ot(torch.zeros(5, 9), **{"patch": 3, "stride": 1, name: value}, eps=0.1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "reference, solver, message",
    [
        (torch.zeros(5, 8), {"eps": 0.1}, "^y must have 9 columns, got 8$"),
        (torch.full((5, 9), math.nan), {"eps": 0.1}, "^reference must be finite"),
        (torch.zeros(5, 9), {"eps": 0.0}, "^eps must be a number > 0"),
        (torch.zeros(5, 9), {"eps": 0.1, "rho": 0.1}, "^rho must be a pair"),
    ],
)
def test_patch_ot_passes_on_the_errors_of_the_solver(reference, solver, message):
    with pytest.raises(ValueError, match=message):
        restore(**{**GOOD, "priors": [patch_ot(reference, 3, **solver)]})


# ---- exact transport and the nearest patch


def test_without_ascents_each_patch_meets_its_nearest():
    """The limit of the semi-unbalanced form at rho -> 0, eps -> 0."""
    image, reference = texture(0), patches.extract(texture(1), 4)
    cloud = patches.extract(image, 4, 2)
    nearest = torch.cdist(cloud, reference).amin(1).square().mean()
    torch.testing.assert_close(patch_semidual(reference, 4, 2, dual_steps=0)(image), nearest)
    limit = patch_ot(reference, 4, 2, eps=1e-7, rho=(INF, 1e-7))(image)
    torch.testing.assert_close(limit, nearest, rtol=1e-4, atol=0)


def test_ascents_go_on_where_the_last_evaluation_ended():
    image, reference = texture(0), patches.extract(texture(1), 4, 3)
    exact = semidual.solve(patches.extract(image, 4, 2), reference).value
    prior = patch_semidual(reference, 4, 2, dual_steps=100, dual_step=0.1)
    values = torch.stack([prior(image) for _ in range(10)])
    assert (values.diff() >= 0).all() and values[0] < values[-1]
    torch.testing.assert_close(values[-1], exact, rtol=1e-2, atol=0)


def test_gradient_of_the_semidual_prior():
    """At a fixed potential the prior is piecewise quadratic: central differences are exact."""
    image, reference = texture(0, 8), patches.extract(texture(1, 8), 3)
    u = image.clone().requires_grad_()
    patch_semidual(reference, 3, dual_steps=0)(u).backward()
    way = noise(u.shape, 3)
    h = 1e-6
    prior = patch_semidual(reference, 3, dual_steps=0)
    slope = (prior(image + h * way) - prior(image - h * way)) / (2 * h)
    torch.testing.assert_close((u.grad * way).sum(), slope, rtol=1e-6, atol=1e-9)


def test_a_fixed_cloud_is_solved_from_the_potentials_of_the_step_before():
    image, reference, spent = texture(0), patches.extract(texture(1), 4), []
    observe = lambda solution, _: spent.append(solution.iterations)
    options = dict(eps=1e-3, rho=(INF, 0.1), tol=1e-3, observe=observe)
    warm = patch_ot(reference, 4, 2, **options)
    first, again = warm(image), warm(image)
    fresh = patch_ot(lambda: reference, 4, 2, **options)
    assert fresh(image) == fresh(image) == first
    torch.testing.assert_close(again, first, rtol=1e-4, atol=0)
    assert spent == [spent[0], 1, spent[0], spent[0]] and spent[0] > 1


def test_a_coarse_grid_has_the_potential_of_the_fine_one():
    """The stride of a call is its own, and what was reached on one grid serves the next."""
    image, reference, seen = texture(0), patches.extract(texture(1), 4), []
    options = dict(eps=1e-3, rho=(INF, 0.1), tol=1e-3)
    prior = patch_ot(reference, 4, 1, **options, observe=lambda solution, _: seen.append(solution))
    coarse, fine = prior(image, 2), prior(image)
    assert coarse == patch_ot(reference, 4, 2, **options)(image)
    assert fine == patch_ot(reference, 4, 1, **options, init=seen[0].g)(image)
    assert len(seen[0].f) < len(seen[1].f)
    nearest = patch_semidual(reference, 4, 1, dual_steps=0)
    assert nearest(image, 2) == patch_semidual(reference, 4, 2, dual_steps=0)(image)


def test_thinned_patches_give_the_dual_variable_and_all_give_the_sum():
    image, reference = texture(0), patches.extract(texture(1), 4, 3)
    cloud = patches.extract(image, 4)
    assert len(cloud) // 3 >= len(reference) > len(cloud) // 12
    steps = dict(dual_steps=20, dual_step=0.1)
    g = semidual.ascend(cloud[::3], reference, step=0.1, max_iter=20).g
    expected = semidual.evaluate(cloud, reference, g).value
    assert patch_semidual(reference, 4, **steps, thin=3)(image) == expected
    assert expected > patch_semidual(reference, 4, dual_steps=0)(image)
    # too few would be left: all are taken
    whole = patch_semidual(reference, 4, **steps)(image)
    assert patch_semidual(reference, 4, **steps, thin=12)(image) == whole


@pytest.mark.parametrize("dual_steps", [-1, 1.5])
def test_bad_ascents(dual_steps):
    with pytest.raises(
        ValueError, match=f"dual_steps must be a whole number >= 0, got {dual_steps}"
    ):
        patch_semidual(torch.zeros(3, 16), 4, dual_steps=dual_steps)
