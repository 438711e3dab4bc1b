"""The passes over a tile: torch's and the compiled ones agree, and are what they should be."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from clouds import generator, needs
from hypothesis import given
from hypothesis import strategies as st

from otlib import _compiled
from otlib._passes import NEGLIGIBLE, Compiled, Torch
from otlib.softmin import softmin

ROOT = Path(__file__).parents[1]
no_compiler = needs("compiled")
PASSES = [Torch, pytest.param(Compiled, marks=no_compiler)]


three_blocks = given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 2100),
    removed=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 99),
)


def tile(rows, columns, seed, removed=0.0):
    """Scores as a soft-min meets them: up to thousands below the row's best, some at -inf."""
    g = generator(seed)
    scores = 300 * torch.randn(rows, columns, generator=g)
    return scores.masked_fill(torch.rand(rows, columns, generator=g) < removed, -math.inf)


def fresh(rows):
    return torch.full((rows,), -math.inf), torch.zeros(rows)


@pytest.mark.parametrize("passes", PASSES)
@three_blocks
def test_weights_and_sums_block_by_block(passes, rows, columns, removed, seed):
    """log2 of the mass, above the highest, is the log-sum-exp of all blocks, in float64."""
    (top, mass), blocks = fresh(rows), [tile(rows, columns, seed + k, removed) for k in range(3)]
    if removed == 1:
        blocks[0][:, 0] = 0.0  # a row has one finite score at least, in whichever block
    for scores in blocks:
        weights, before = scores.clone(), mass.clone()
        fade = passes.weigh(weights, top, mass)
        assert ((fade >= 0) & (fade <= 1)).all() and (weights <= 1).all()
        torch.testing.assert_close(mass, before * fade + weights.sum(1), rtol=1e-5, atol=0)
        shift = top.clamp(min=torch.finfo(top.dtype).min).double()[:, None]
        exact = (scores.double() - shift).clamp(min=NEGLIGIBLE).exp2()
        torch.testing.assert_close(weights.double(), exact, rtol=2e-5, atol=0)
    joined = torch.cat(blocks, 1).double() * math.log(2)
    found = (top.double() + mass.double().log2()) * math.log(2)
    torch.testing.assert_close(found, joined.logsumexp(1), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("passes", PASSES)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 600),
    reach=st.sampled_from([0.0, 5.0, 115.0, 1e4]),
    seed=st.integers(0, 99),
)
def test_what_is_near_the_best_of_its_row(passes, rows, columns, reach, seed):
    scores = tile(rows, columns, seed, removed=0.2)
    scores[:, seed % columns] = 10.0
    below = scores.amax(1, keepdim=True) - scores
    close = below <= reach
    i, j, depth = passes.near(scores, reach, close.sum())
    at = close.nonzero()
    assert i.dtype == j.dtype == torch.int64
    assert torch.equal(torch.stack([i, j], 1), at)
    assert torch.equal(depth, below[at[:, 0], at[:, 1]])
    assert passes.near(scores, reach, int(close.sum()) - 1) is None


@pytest.mark.parametrize("passes", PASSES)
@three_blocks
def test_the_best_block_by_block(passes, rows, columns, removed, seed):
    """Of equal scores, here of whole numbers, the first of all blocks."""
    blocks = [tile(rows, columns, seed + k, removed).div(200).round() for k in range(3)]
    blocks[seed % 3][:, -1] = 0.0  # a row has one finite score at least
    top, at = torch.full((rows,), -math.inf), torch.zeros(rows, dtype=torch.int64)
    for k, scores in enumerate(blocks):
        passes.best(scores, k * columns, top, at)
    joined = torch.cat(blocks, 1)
    assert torch.equal(top, joined.amax(1))
    assert torch.equal(at, torch.from_numpy(joined.numpy().argmax(1)))


@pytest.mark.parametrize("passes", PASSES)
@given(rows=st.integers(1, 40), columns=st.integers(1, 2100), seed=st.integers(0, 99))
def test_what_arrives(passes, rows, columns, seed):
    g = generator(seed)
    weights, share = torch.rand(rows, columns, generator=g), torch.rand(rows, generator=g)
    arriving = torch.ones(columns)
    passes.spread(weights, share, arriving)
    exact = 1 + share.double() @ weights.double()
    torch.testing.assert_close(arriving.double(), exact, rtol=1e-5, atol=0)


@no_compiler
@pytest.mark.parametrize("rows, columns", [(1, 5000), (26, 10000), (512, 512)])
def test_threads_change_no_bit(rows, columns):
    scores, share, found = tile(rows, columns, 0), torch.rand(rows, generator=generator(1)), []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            (top, mass), weights, arriving = fresh(rows), scores.clone(), torch.zeros(columns)
            listed = Compiled.near(scores, 50.0, scores.numel())
            best = fresh(rows)[0], torch.zeros(rows, dtype=torch.int64)
            Compiled.best(scores, 0, *best)
            fade = Compiled.weigh(weights, top, mass)
            Compiled.spread(weights, share, arriving)
            found.append((*listed, *best, fade, top, mass, weights, arriving))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


@no_compiler
def test_powers_of_two():
    """To a few units of the last place over the range that weights take."""
    exponents = torch.linspace(NEGLIGIBLE, 0, 200_001)[None]
    exponents[0, -1] = 0.0  # the highest
    weights = exponents.clone()
    Compiled.weigh(weights, *fresh(1))
    assert float((weights.double() / exponents.double().exp2() - 1).abs().max()) < 3e-7


@pytest.fixture
def library():
    """Forget the compiled passes before and after."""
    _compiled.functions.cache_clear()
    yield
    _compiled.functions.cache_clear()


def test_without_a_compiler_torch_takes_over(monkeypatch, library):
    """As with one that fails: `auto` goes on, and `compiled` says why it does not."""
    x, y, h = torch.rand(5, 3), torch.rand(4, 3), torch.zeros(4)
    expected = softmin(x, y, h, 0.1, backend="torch")
    monkeypatch.setenv("CXX", "no-such-compiler")
    refused(x, y, h, r"no C\+\+ compiler \(no-such-compiler\) on the PATH")
    assert torch.equal(softmin(x, y, h, 0.1), expected)
    monkeypatch.setenv("CXX", "false")  # fails without a word
    _compiled.functions.cache_clear()
    with pytest.warns(RuntimeWarning, match=r"^soft-mins are slower than need be: .* failed"):
        assert torch.equal(softmin(x, y, h, 0.1), expected)
    refused(x, y, h, ".* failed")


def refused(x, y, h, reason):
    with pytest.raises(ValueError, match=rf"^backend 'compiled' is unavailable: {reason}"):
        softmin(x, y, h, 0.1, backend="compiled")


@no_compiler
def test_nothing_is_left_behind(tmp_path):
    """No file stays, and no compiler's word comes out."""
    code = "import torch; from otlib.softmin import softmin; x = torch.rand(3, 2); "
    code += "softmin(x, x, torch.zeros(3), .1, backend='compiled')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == done.stderr == "" and not list(tmp_path.iterdir())
