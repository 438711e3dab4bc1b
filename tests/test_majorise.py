"""The second minimiser of `otlib.restore`: monotone, exact where the energy is quadratic."""

import itertools
import math

import pytest
import torch

from otlib import gaussian, operators, patches, sinkhorn
from otlib.restore import majorise, patch_ot, patch_semidual, restore

INF = math.inf
KERNEL = operators.gaussian_kernel(4, 1.0)
HOLE = torch.rand(16, 16, generator=torch.Generator().manual_seed(7)) < 0.4
OPERATORS = {
    "denoising": lambda u: u,
    "super-resolution": lambda u: operators.blur(u, KERNEL, stride=2, periodic=False),
    "inpainting": lambda u: operators.mask(u, HOLE),
}
FORMS = {
    "balanced": dict(eps=5e-3, rho=(INF, INF)),
    "semi-unbalanced": dict(eps=5e-3, rho=(INF, 0.05)),
    "unbalanced": dict(eps=5e-3, rho=(0.05, 0.05)),
    "nearest patch": None,
}


def texture(seed, side=16):
    """A smooth texture of standard deviation .15 about .5."""
    random = torch.Generator().manual_seed(seed)
    return gaussian.texture((1, side, side), 1.5, 0.15, 0.5, random).double()


def noise(shape, seed):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=random, dtype=torch.float64)


def prior(form, reference, stride=2, tol=1e-10):
    """One of FORMS, to the accuracy of rounding by default."""
    if FORMS[form] is None:
        return patch_semidual(reference, 4, stride, dual_steps=0)
    return patch_ot(reference, 4, stride, tol=tol, max_iter=5000, **FORMS[form])


def on_levels(form, levels):
    """The mean over the levels of a pyramid, as one function of the image."""
    clouds = [patches.extract(x, 4) for x in patches.pyramid(texture(1), levels)]
    priors = [prior(form, cloud) for cloud in clouds]
    mean = lambda u: sum(p(x) for p, x in zip(priors, patches.pyramid(u, levels), strict=True))
    return lambda u: mean(u) / levels


def energy(u, observed, operator, terms, lam):
    data = lam / 2 * (operator(u) - observed).square().sum()
    return float(data + sum(term(u) for term in terms))


@pytest.mark.parametrize("relaxation", [1.0, 1.9])
@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("problem", OPERATORS)
@pytest.mark.parametrize("form", FORMS)
def test_the_energy_never_rises(form, problem, levels, relaxation):
    """Nor in the last step, which is a plain one; and it falls by more than a tenth."""
    operator, lam, energies = OPERATORS[problem], 0.05, []
    observed = operator(texture(0) + 0.1 * noise((1, 16, 16), 1))
    terms, again = [on_levels(form, levels)], [on_levels(form, levels)]
    look = lambda step, u: energies.append(energy(u, observed, operator, again, lam))
    start = texture(2) + 0.2 * noise((1, 16, 16), 3)
    look(-1, start)
    options = dict(lam=lam, steps=6, relaxation=relaxation, start=start, callback=look)
    majorise(observed, operator, terms, **options)
    for before, after in itertools.pairwise(energies):
        assert after <= before * (1 + 1e-8)
    assert energies[-1] < 0.9 * energies[0]


@pytest.mark.parametrize("form", ["balanced", "semi-unbalanced", "unbalanced"])
def test_it_ends_where_adam_ends(form):
    """At the same energy, and where the gradient is 0."""
    observed, lam = texture(0) + 0.05 * noise((1, 16, 16), 1), 0.05
    terms = [prior(form, patches.extract(texture(1), 4), tol=1e-4)]
    options = dict(lam=lam, start=observed)
    u = majorise(observed, lambda u: u, terms, steps=40, **options)
    v = restore(observed, lambda u: u, terms, steps=150, lr=4e-3, **options)
    ends = [energy(w, observed, lambda u: u, terms, lam) for w in (u, v)]
    assert ends[0] == pytest.approx(ends[1], rel=5e-3)
    assert ends[0] < 0.9 * energy(observed, observed, lambda u: u, terms, lam)
    u.requires_grad_()
    total = lam / 2 * (u - observed).square().sum() + terms[0](u)
    first = observed.clone().requires_grad_()
    (slope,), (there,) = torch.autograd.grad(total, u), torch.autograd.grad(terms[0](first), first)
    assert slope.norm() < 0.02 * there.norm()


def dense(function, shape):
    """The matrix of a linear function of an image, a column a pixel."""
    n = math.prod(shape)
    basis = torch.eye(n, dtype=torch.float64).reshape(n, *shape)
    return torch.stack([function(e).flatten() for e in basis], 1)


@pytest.mark.parametrize("problem", OPERATORS)
@pytest.mark.parametrize("rho", [(INF, INF), (INF, 0.05), (0.05, 0.05)], ids=str)
def test_a_step_solves_the_normal_equations(rho, problem):
    """Two levels, overlapping patches, and an operator, each as a matrix and its transpose."""
    shape, lam, operator, solver = (1, 16, 16), 0.3, OPERATORS[problem], dict(eps=0.01, rho=rho)
    u, observed = texture(0), operator(texture(1))
    levels = [lambda u: u, lambda u: patches.pyramid(u, 2)[1]]
    clouds = [patches.extract(level(texture(2)), 3, 2) for level in levels]
    matrix = dense(operator, shape)
    normal, right = lam * matrix.T @ matrix, lam * matrix.T @ observed.flatten()
    for level, cloud in zip(levels, clouds, strict=True):
        x = patches.extract(level(u), 3)
        solution = sinkhorn.solve(x, cloud, tol=1e-10, max_iter=5000, **solver)
        plan = sinkhorn.plan(x, cloud, solution)
        to = dense(lambda e, level=level: patches.extract(level(e), 3), shape)
        mass = plan.sum(1)[:, None].expand_as(x).flatten()
        normal += 2 * to.T @ (mass[:, None] * to)
        right += 2 * to.T @ (plan @ cloud).flatten()
    priors = [patch_ot(cloud, 3, tol=1e-10, max_iter=5000, **solver) for cloud in clouds]
    terms = [
        lambda u, p=p, level=level: p(level(u)) for p, level in zip(priors, levels, strict=True)
    ]
    found = majorise(observed, operator, terms, lam=lam, steps=1, start=u)
    gaps = [(right - normal @ image.flatten()).norm() for image in (u, found)]
    assert gaps[1] < 2e-4 * gaps[0]


@pytest.mark.parametrize("rho", [(INF, INF), (INF, 0.1)], ids=str)
def test_one_reference_patch_is_met_in_one_step(rho):
    """All plans are that one: lam / 2 |u - y|^2 + mean_i |P_i u - p|^2, whatever the start."""
    observed, p, lam = texture(0, 8), noise((1, 9), 1), 0.2
    cover = patches.adjoint(torch.ones(36, 9, dtype=p.dtype), (1, 8, 8), 3) / 36
    drawn = patches.adjoint(p.expand(36, 9), (1, 8, 8), 3) / 36
    exact = (lam * observed + 2 * drawn) / (lam + 2 * cover)
    for start in (observed, noise((1, 8, 8), 2)):
        term = patch_ot(p, 3, eps=0.1, rho=rho)
        u = majorise(observed, lambda u: u, [term], lam=lam, steps=1, start=start)
        torch.testing.assert_close(u, exact, rtol=0, atol=2e-3)


def test_between_diracs():
    """An image that is one patch: u = (lam y + 2 p) / (lam + 2) in one step."""
    y, p = noise((1, 3, 3), 0), noise((1, 9), 1)
    exact, seen = (0.5 * y + 2 * p.reshape(1, 3, 3)) / 2.5, []
    options = dict(
        lam=0.5, steps=2, relaxation=0.5, callback=lambda step, u: seen.append((step, u))
    )
    u = majorise(y, lambda u: u, [patch_ot(p, 3, eps=0.1)], **options)
    assert [step for step, _ in seen] == [0, 1] and seen[1][1] is u
    torch.testing.assert_close(seen[0][1], (y + exact) / 2)
    torch.testing.assert_close(u, exact)
    assert not u.requires_grad


def test_nearest_patches_settle():
    """Once each patch keeps its neighbour the energy is one parabola: the minimum, exactly."""
    observed, reference, lam = texture(0), patches.extract(texture(1), 4), 0.02
    term = prior("nearest patch", reference)
    u = majorise(observed, lambda u: u, [term], lam=lam, steps=60)
    nearest = reference[torch.cdist(patches.extract(u, 4, 2), reference).argmin(1)]
    n, shape = len(nearest), u.shape
    cover = patches.adjoint(torch.ones_like(nearest), shape, 4, 2) / n
    drawn = patches.adjoint(nearest, shape, 4, 2) / n
    exact = (lam * observed + 2 * drawn) / (lam + 2 * cover)
    torch.testing.assert_close(u, exact, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_least_squares_in_either_type(dtype):
    """Without a prior: one step, from anywhere; the start is left alone."""
    shape, mu, lam = (2, 6, 6), 0.1, 3.0
    degrade = lambda u: operators.blur(u, KERNEL, stride=2, periodic=False)
    observed, start = degrade(noise(shape, 0)).to(dtype), noise(shape, 1).to(dtype)
    before, matrix = start.clone(), dense(degrade, shape)
    normal = lam * matrix.T @ matrix + 2 * mu * torch.eye(72, dtype=torch.float64)
    exact = torch.linalg.solve(normal, lam * matrix.T @ observed.double().flatten())
    ridge = lambda u: mu * u.square().sum()
    u = majorise(observed, degrade, [ridge], lam=lam, steps=1, start=start)
    assert u.dtype == dtype and torch.equal(start, before)
    torch.testing.assert_close(u.double().flatten(), exact, rtol=0, atol=1e-3)


def test_what_nothing_sees_stays():
    """A hole's pixels past the last patch: neither data nor prior moves them."""
    image = texture(0, 9)
    hole = torch.zeros(9, 9, dtype=torch.bool)
    hole[4:] = True
    term = patch_ot(patches.extract(texture(1), 4), 4, 4, eps=0.01)  # reaches rows 0 to 7
    start = operators.mask(image, hole)
    u = majorise(start, lambda u: operators.mask(u, hole), [term], lam=1.0, steps=3)
    assert torch.equal(u[:, 8], start[:, 8]) and not torch.equal(u[:, 7], start[:, 7])


IMAGE = torch.zeros(1, 4, 4)
GOOD = dict(observed=IMAGE, operator=lambda u: u, priors=[], lam=1.0, steps=1)
BAD = [
    ("observed", torch.full((1, 4, 4), math.nan)),
    ("start", torch.zeros(4, 4)),
    ("operator(start)", {"operator": lambda u: u[:, ::2]}),
    ("operator must be linear", {"operator": lambda u: u.square()}),
    ("operator must be linear", {"operator": lambda u: u.clamp(0, 1)}),
    ("priors", {"priors": lambda u: u.sum()}),
    *(("lam", v) for v in (-1.0, math.nan, INF, "1")),
    *(("steps", v) for v in (0, -1, 1.5, None)),
    *(("relaxation", v) for v in (0.0, 2.0, -1.0, math.nan, INF, "1")),
]


@pytest.mark.parametrize("name, value", BAD, ids=[f"{n}-{i}" for i, (n, _) in enumerate(BAD)])
def test_bad_input_is_one_line_that_names_the_argument(refuses, name, value):
    refuses(majorise, GOOD, name, value)


@pytest.mark.parametrize("lam", [0.0, 1.0])
@pytest.mark.parametrize("term", [lambda u: -3 * u.square().sum(), lambda u: u.sum() * INF])
def test_a_prior_without_a_parabola(term, lam):
    with pytest.raises(
        RuntimeError, match=r"^the energy('s gradient is no longer finite| must be convex)"
    ) as error:
        majorise(torch.ones(1, 4, 4), lambda u: u, [term], lam=lam, steps=1)
    assert "\n" not in str(error.value)


def test_a_solve_starts_from_a_potential_found_elsewhere():
    """Its own is the solution; that of a coarser grid leads to the same value."""
    image, reference, seen = texture(0), patches.extract(texture(1), 4), []
    options = dict(eps=1e-3, rho=(INF, 0.05), observe=lambda *found: seen.append(found[0]))
    value = patch_ot(reference, 4, 1, **options)(image)
    assert patch_ot(reference, 4, 1, init=seen[0].g, **options)(image) == pytest.approx(
        float(value)
    )
    assert seen[0].iterations > 1 and seen[1].iterations == 1
    patch_ot(reference, 4, 2, **options)(image)
    fine = patch_ot(reference, 4, 1, init=seen[2].g, start_eps=0.03, **options)(image)
    assert not torch.equal(seen[2].g, seen[0].g)
    torch.testing.assert_close(fine, value, rtol=1e-3, atol=0)


def test_start_eps_is_for_the_solves_after_the_first():
    image, reference, seen = texture(0), patches.extract(texture(1), 4), []
    options = dict(eps=1e-3, tol=1.0, scaling=0.5, observe=lambda *found: seen.append(found[0]))
    plain, again = (patch_ot(reference, 4, start_eps=t, **options) for t in (None, 8e-3))
    for call in (plain, again, plain, again):
        call(image)
    first, same, second, annealed = (solution.iterations for solution in seen)
    assert first == same > 4 and second == 1 and annealed == 3 + 1


def test_thinned_patches_give_the_potential_and_all_give_the_sum():
    image, reference, seen = texture(0), patches.extract(texture(1), 4, 2), []
    options = dict(eps=1e-3, rho=(INF, 0.05), tol=1e-6)
    term = patch_ot(reference, 4, thin=3, observe=lambda *found: seen.append(found[0]), **options)
    u = image.clone().requires_grad_()
    value = term(u)
    (slope,) = torch.autograd.grad(value, u)
    x = patches.extract(image, 4).requires_grad_()
    g = sinkhorn.solve(x.detach()[::3], reference, **options).g
    init = (x.new_zeros(len(x), requires_grad=False), g)
    with pytest.warns(sinkhorn.ConvergenceWarning):
        once = sinkhorn.solve(x, reference, init=init, **{**options, "max_iter": 1})
    torch.testing.assert_close(value, once.value, rtol=1e-6, atol=0)
    (gradient,) = torch.autograd.grad(once.value, x)
    torch.testing.assert_close(slope, patches.adjoint(gradient, image.shape, 4))
    exact = patch_ot(reference, 4, **options)(image)
    assert 0.8 * exact < value < exact
    assert seen[0].f.shape == (169,) and seen[0].iterations > 2
    term(image)  # warm
    assert torch.allclose(seen[1].value, seen[0].value, rtol=1e-4)
    # 42 patches are fewer than the reference's 49: all are taken
    assert torch.equal(patch_ot(reference, 4, thin=4, **options)(image), exact)


@pytest.mark.parametrize("name, value", [("thin", 0), ("thin", 1.5), ("start_eps", 0.0)])
def test_how_later_solves_start_is_checked_when_made(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be"):
        patch_ot(torch.zeros(5, 9), 3, eps=0.1, **{name: value})


@pytest.mark.parametrize("init", [torch.zeros(4), torch.full((5,), math.nan), [0.0] * 5])
def test_a_bad_potential_to_start_from(init):
    with pytest.raises(ValueError, match=r"^init must "):
        patch_ot(torch.zeros(5, 9), 3, init=init, eps=0.1)


@pytest.mark.parametrize("given", [{"init": torch.zeros(5)}, {"start_eps": 0.1}])
def test_fresh_draws_have_no_potential_to_start_from(given):
    with pytest.raises(ValueError, match=r"^reference must be a tensor where init or start_eps"):
        patch_ot(lambda: torch.zeros(5, 9), 3, eps=0.1, **given)


def test_an_image_that_a_callback_keeps_stays_as_it_was():
    kept, observed = [], noise((1, 6, 6), 3)
    keep = lambda step, u: kept.append((u, u.clone()))
    one = lambda u: u.square().sum()
    majorise(observed, lambda u: u, [one], lam=1.0, steps=3, callback=keep)
    assert len(kept) == 3
    assert all(torch.equal(u, then) and not u.requires_grad for u, then in kept)
