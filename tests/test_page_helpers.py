"""Seeds, noises, clocks, watchers, kept values: what is short and used by many pages."""

import math
import time
import types

import numpy as np
import pytest
import torch

from companion.page import clock, conditions, deep_ot, figures, trained, unlike
from companion.page.kept import values
from companion.page.noises import between
from companion.page.seeds import seeded
from companion.page.watch import watch
from otlib import dot, generator
from otlib.assets import saved
from otlib.assets.photographs import Sets
from otlib.restore import restore


def draw(*keys):
    return torch.rand(4, generator=seeded(*keys)).tolist()


def test_one_key_is_the_seed_and_several_are_told_apart():
    assert draw(7) == torch.rand(4, generator=torch.Generator().manual_seed(7)).tolist()
    keys = [(0,), (0, 0), (0, 1), (1, 0), (1,), (0, 0, 1)]
    assert len({tuple(draw(*each)) for each in keys}) == len(keys)
    assert draw(3, 1) == draw(3, 1)


def test_seeds_are_those_of_the_runs_that_are_kept():
    hashed = int(np.random.SeedSequence((2, 7, 1)).generate_state(1)[0])
    assert seeded(2, 7, 1).initial_seed() == hashed


def test_a_noise_between_two_is_uniform_and_begins_and_ends_with_them():
    one, two = torch.rand(2, 40000, generator=seeded(0), dtype=torch.float64)
    torch.testing.assert_close(between(one, two, 0), one, rtol=0, atol=1e-8)
    torch.testing.assert_close(between(one, two, 1), two, rtol=0, atol=1e-8)
    middle = between(one, two, 0.3).sort().values
    gap = (middle - torch.linspace(0, 1, 40000, dtype=torch.float64)).abs().max()
    assert gap < 1.95 / math.sqrt(40000)  # Kolmogorov's at 0.1 %
    assert between(one.float(), two.float(), 0.5).dtype == torch.float32


def test_a_clock_counts_work_and_not_sleep():
    spent = []
    work = clock.timed(lambda n: sum(range(n)), "cpu", spent)
    assert work(1_000_000) == 499999500000
    clock.timed(time.sleep, "cpu", spent)(0.05)
    assert len(spent) == 2 and spent[0] > 0.001 and spent[1] < 0.02


def test_the_typical_time_is_the_middle_one():
    pauses = iter([0.9, 0.02, 0.05])
    assert 0.05 <= clock.typical(lambda: time.sleep(next(pauses))) < 0.8


def test_a_watched_restoration_has_an_entry_a_step_and_a_solve():
    ticks, y = [], torch.full((1, 8, 8), 0.5)
    seen, solved, stepped = watch(lambda image: float(image.mean()), lambda: ticks.append(1))
    solution = types.SimpleNamespace(iterations=3, residual=0.25)

    def prior(image):
        solved(solution, None)
        return image.square().mean()

    image = restore(y, lambda u: u, [prior], lam=1.0, steps=4, lr=0.01, callback=stepped)
    assert len(ticks) == len(seen["psnr"]) == 4
    assert seen["psnr"][-1] == pytest.approx(float(image.mean()))
    assert seen["updates"] == [3] * len(seen["updates"]) and len(seen["updates"]) >= 4
    assert set(seen["residual"]) == {0.25}


def test_kept_records_lose_their_units():
    run = {"records": {"psnr": {"value": 30.5, "unit": "dB", "better": "higher"}}}
    assert values(run) == {"psnr": 30.5}


def test_an_image_is_encoded_once():
    calls = []
    ae = deep_ot.PIXELS._replace(encode=lambda x: calls.append(1) or 2 * x)
    known = deep_ot.remembered(ae)
    one, two = torch.rand(2, 1, 3, 4, 4)
    for image in (one, two, one.clone()):
        assert torch.equal(known.encode(image), 2 * image)
    assert len(calls) == 2


def test_the_halves_of_a_map_do_what_is_said_of_them():
    images = list(torch.rand((4, 3, 12, 12), generator=seeded(0)))
    fitted = dot.fit(images[:2], [0.5 * x for x in images[2:]], deep_ot.PIXELS, 1)
    law = lambda x: dot.moments([x.double()], 1)
    start = 0.5 * images[2]
    whole = law(dot.transport(fitted, start, deep_ot.PIXELS))
    moved = {
        name: law(dot.transport(half, start, deep_ot.PIXELS))
        for name, half in deep_ot.parts(fitted).items()
    }
    before, shift = law(start), fitted.natural.mean - fitted.restored.mean
    torch.testing.assert_close(moved["means"].mean, before.mean + shift, atol=1e-6, rtol=0)
    torch.testing.assert_close(moved["means"].scatter, before.scatter, atol=1e-5, rtol=0)
    torch.testing.assert_close(moved["covariances"].scatter, whole.scatter, atol=1e-5, rtol=0)


def test_the_remedies_of_a_singular_covariance_are_told_apart():
    flat = [torch.rand((1, 12, 12), generator=seeded(k)).expand(3, -1, -1) for k in range(4)]
    full = [torch.rand((3, 12, 12), generator=seeded(9 + k)) for k in range(2)]
    grey = conditions.of(full, flat[:2], flat[2:], deep_ot.PIXELS, 1)
    assert (grey.dimension, grey.number, grey.singular) == (3, 288, 2)
    assert grey.noise > 0.01 > grey.constant
    plain = conditions.of(flat[:2], full, full, deep_ot.PIXELS, 1)
    assert plain.singular == 0 and plain.noise == 0 and plain.log10_condition < 1


def test_a_round_trip_encodes_each_image_by_itself_without_gradients():
    ae = types.SimpleNamespace(encode=lambda x: x[:, :, ::2], decode=lambda z: 2 * z)
    images = [torch.rand(3, 4, 4, requires_grad=True), torch.rand(3, 6, 2)]
    back = deep_ot.round_trip(images, ae)
    assert [tuple(image.shape) for image in back] == [(3, 2, 4), (3, 3, 2)]
    assert torch.equal(back[0], 2 * images[0][:, ::2]) and not back[0].requires_grad


def test_networks_of_another_exemplar_or_size_are_refused(tmp_path, monkeypatch):
    net = generator.network(1, 2, 1, generator=seeded(0))
    saved.save_generator(tmp_path / "a.safetensors", net, loss="gram", exemplar="brick", size=64)
    monkeypatch.setattr(trained, "files", lambda pattern: sorted(tmp_path.glob(pattern)))
    found = trained.trained("*.safetensors", "brick", 64)
    assert list(found) == ["gram"] and found["gram"][1]["size"] == 64
    for exemplar, size in (("grass", 64), ("brick", 32)):
        with pytest.raises(ValueError, match=f"brick at 64 pixels, not {exemplar} at {size}"):
            trained.trained("*.safetensors", exemplar, size)
    with pytest.raises(FileNotFoundError, match="trained='none' names no file"):
        trained.trained("none", "brick", 64)


def test_conditions_are_recorded_for_each_side_and_for_the_largest(monkeypatch):
    noted, shown = {}, []
    monkeypatch.setattr(conditions, "record", lambda name, value: noted.update({name: value}))
    monkeypatch.setattr(figures, "display", lambda data: shown.append(data.data))
    of = lambda side: conditions.Condition(3 * side**2, 9, side + 0.5, side, 2 * side, 0.1, 0.02)
    told = {3: of(3), 1: of(1)}
    conditions.note(told)
    assert noted["log10_condition_p1"] == 1.5 and noted["float32_negative_p3"] == 3
    assert noted["singular_p3"] == 6 and noted["log10_condition_growth"] == 2
    last = [noted[name] for name in ("float32_negative_largest", "noise_mse", "constant_mse")]
    assert last == [3, 0.1, 0.02] and len(noted) == 10
    conditions.table(told)
    row = [cell.strip() for cell in shown[0].splitlines()[2].split("|")[1:-1]]
    assert row == ["3", "27", "9", "3.5", "3", "6", "1.0e-01", "2.0e-02"]


def test_restorations_are_found_by_the_photograph_s_name(monkeypatch):
    double = lambda name, images, seed, device: [len(name) * x + seed for x in images]
    monkeypatch.setattr(deep_ot, "restored", double)
    found = deep_ot.restorations(["a", "bcd"], {"x": 1, "y": 2}, 10, "cpu")
    assert found == {"a": {"x": 11, "y": 12}, "bcd": {"x": 13, "y": 16}}


def test_suspects_of_an_unpaired_fit_are_told_apart():
    """The natural photographs are the tested ones, brighter: the shift of the mean is to blame."""
    photo = lambda name: types.SimpleNamespace(name=name)
    names = [f"{scene}@{crop}" for scene in "ab" for crop in range(2)]
    draws = torch.rand((4, 3, 12, 12), generator=seeded(0)) / 2
    images = {f"{role}{n}": x for role in "nrt" for n, x in zip(names, draws, strict=True)}
    images |= {name: x + 0.4 for name, x in images.items() if name[0] == "n"}
    turn = Sets(*([photo(f"{role}{n}") for n in names] for role in "nrt"))
    at = deep_ot.transported(turn, images, images, deep_ot.PIXELS, 1)
    found = unlike.distances(turn, at, images, images, deep_ot.PIXELS, 1)
    assert set(found) == set(unlike.SUSPECTS)
    assert found["restored"] == pytest.approx(0, abs=1e-4)
    assert found["covariances"] == pytest.approx(0, abs=1e-3)
    for kind in ("unpaired", "means", "pixels", "yardstick"):
        assert found[kind] == pytest.approx(0.4 * 27**0.5, rel=1e-3), kind
    assert found["kept"] < 0.1 and found["fewer"] > 1
    lone = Sets(*(part[::2] for part in turn))
    at = deep_ot.transported(lone, images, images, deep_ot.PIXELS, 1)
    assert "same_scenes" not in unlike.distances(lone, at, images, images, deep_ot.PIXELS, 1)
