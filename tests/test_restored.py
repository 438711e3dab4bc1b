"""Restored images are computed once; a stand-in restorer counts its calls."""

import types

import pytest
import torch

import otlib.assets
from companion.page import restored as shared
from companion.page.restored import measured, restored
from otlib.assets import registry


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """The loads and calls of a restorer that doubles noisy images, in a run of the pipeline."""
    seen = []

    def degrade(image, task, generator):
        return image + float(task) * torch.rand(image.shape, generator=generator)

    def load(name, device, seed):
        seen.append(("load", name, seed))

        def restore(measurement):
            seen.append(("restore", name))
            return (2 * measurement).mT.contiguous().mT  # of another layout in memory

        return restore

    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"first")
    names = {"twice": "0.1", "another": "0.1", "loud": "1.0"}
    entries = {k: types.SimpleNamespace(asset="net", task=task) for k, task in names.items()}
    module = types.SimpleNamespace(degrade=degrade, load=load, RESTORERS=entries)
    monkeypatch.setattr(otlib.assets, "restorers", module, raising=False)
    asset = registry.Asset("x", "MIT", "OTLIB_NET", file="weights.bin")
    monkeypatch.setitem(registry.REGISTRY, "net", asset)
    monkeypatch.setenv("OTLIB_NET", str(weights))
    monkeypatch.setenv("COMPANION_RESTORED", str(tmp_path / ".companion" / "restored"))
    return seen


def images(count):
    return list(torch.rand((count, 3, 4, 5), generator=torch.Generator().manual_seed(0)))


def test_an_image_is_restored_once_for_all_pages(calls, monkeypatch, tmp_path):
    first = restored("twice", images(3), seed=0)
    assert calls == [("load", "twice", 0), *[("restore", "twice")] * 3]
    again = restored("twice", images(3)[::-1], seed=0)
    assert len(calls) == 4  # nothing was loaded either
    assert all(torch.equal(x, y) for x, y in zip(first, again[::-1], strict=True))
    expected = [2 * measured("twice", image, 0) for image in images(3)]
    assert all(torch.equal(x, y) for x, y in zip(first, expected, strict=True))


@pytest.mark.parametrize("change", ["seed", "task", "name", "images", "weights", "code"])
def test_what_it_depends_on_is_computed_anew(calls, monkeypatch, tmp_path, change):
    given = dict(name="twice", images=images(1), seed=0)
    other = dict(name="another", images=[images(1)[0] + 0.01], seed=1)
    restored(**given)
    before = len(calls)
    if change == "weights":
        (tmp_path / "weights.bin").write_bytes(b"second")
    elif change == "task":
        otlib.assets.restorers.RESTORERS["twice"].task = "0.2"
    elif change == "code":
        monkeypatch.setattr(shared, "imported", lambda *modules: {"another": ""})
    else:
        given[change] = other[change]
    restored(**given)
    assert len(calls) == before + 2


def test_the_noise_belongs_to_the_image_and_not_to_its_place(calls):
    one, two = images(2)
    alone = measured("loud", two, 0) - two
    torch.testing.assert_close(restored("loud", [one, two], 0)[1], 2 * (two + alone))
    assert not torch.allclose(alone, measured("loud", one, 0) - one, atol=1e-3)
    assert not torch.allclose(alone, measured("loud", two, 1) - two, atol=1e-3)


def test_without_the_pipeline_nothing_is_kept(calls, monkeypatch, tmp_path):
    monkeypatch.delenv("COMPANION_RESTORED")
    for _ in range(2):
        restored("twice", images(1), seed=0)
    assert calls.count(("restore", "twice")) == 2
    assert not (tmp_path / ".companion").exists()


@pytest.mark.parametrize("damage", [lambda data: data[:20], lambda data: data[:-1] + b"!"])
def test_a_damaged_file_is_computed_anew(calls, tmp_path, damage):
    (first,) = restored("twice", images(1), seed=0)
    (file,) = (tmp_path / ".companion" / "restored").iterdir()
    file.write_bytes(damage(file.read_bytes()))
    (again,) = restored("twice", images(1), seed=0)
    assert torch.equal(first, again) and calls.count(("restore", "twice")) == 2
    restored("twice", images(1), seed=0)
    assert calls.count(("restore", "twice")) == 2


def test_images_finished_before_an_interruption_are_kept(calls, monkeypatch):
    load, (one, two) = otlib.assets.restorers.load, images(2)

    def failing(name, device, seed):
        restore = load(name, device, seed)

        def once(measurement):
            if calls.count(("restore", name)):
                raise KeyboardInterrupt
            return restore(measurement)

        return once

    monkeypatch.setattr(otlib.assets.restorers, "load", failing)
    with pytest.raises(KeyboardInterrupt):
        restored("twice", [one, two], seed=0)
    monkeypatch.setattr(otlib.assets.restorers, "load", load)
    restored("twice", [one, two], seed=0)
    assert calls.count(("restore", "twice")) == 2


def test_an_unknown_restorer_is_refused_by_its_name(calls):
    with pytest.raises(ValueError, match=r"name must be one of twice, another, loud, got 'none'"):
        restored("none", images(1), seed=0)
    with pytest.raises(ValueError, match="got 'none'"):
        measured("none", images(1)[0], seed=0)
    assert not calls
