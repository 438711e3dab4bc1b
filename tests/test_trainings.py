"""Trainings of ours, PSGAN and SinGAN: interrupted, taken up, or refused."""

import functools
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from stripes import seeded, stripes

from otlib import generator, psgan, singan
from otlib.assets import trainings

LOSS = dict(patch=3, levels=2, samples=50, batch=30, dual_steps=2)
SMALL = {
    "network": dict(steps=7, scales=2, width=2, about=LOSS),
    "psgan": dict(steps=7, depth=2, width=8, local=4, whole=3, periodic=2, batch=2, crop=16),
    "singan": dict(steps=2, width=8, inner=1),
}
# of three scales, and a step in the midst of the last
EXEMPLAR, AT = stripes(40), {"network": 5, "psgan": 5, "singan": 5}


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(trainings, "_EVERY", 2)


def trained(name, state=None, exemplar=EXEMPLAR, seed=0, callback=None, **other):
    train = getattr(trainings, f"train_{name}")
    options = SMALL[name] | other
    if name == "network":
        how = options["about"] if exemplar is EXEMPLAR else LOSS
        loss = lambda random: generator.transport_loss(exemplar, generator=random, **how)
        train = functools.partial(train, loss=loss)
    return train(exemplar, **options, generator=seeded(seed), state=state, callback=callback)


def cut(name, state, at):
    """Begin a training and interrupt it within a step; what is left is its state."""

    def callback(step):
        if step == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(name, state, callback=callback)


def assert_same(one, other):
    one, other = (net.state_dict() for net in (one, other))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_training_is_that_of_the_functions_it_calls():
    options = dict(SMALL["psgan"])
    how = {name: options.pop(name) for name in ("steps", "batch", "crop")}
    random = seeded()
    begun = psgan.begin(EXEMPLAR, **options, generator=random)
    expected = psgan.advance(begun, EXEMPLAR, **how, generator=random)
    net, losses, _ = trained("psgan")
    assert torch.equal(losses, expected)
    assert_same(net, begun.net)

    random = seeded()
    pyramid = singan.begin(EXEMPLAR, width=8, generator=random)
    grow = lambda: singan.grow(pyramid, EXEMPLAR, steps=2, inner=1, generator=random)
    expected = torch.cat([grow() for _ in pyramid.sides])
    net, losses, _ = trained("singan")
    assert len(pyramid.sides) == 3
    assert torch.equal(losses, expected)
    assert net.settings == pyramid.settings
    assert_same(net, pyramid)

    random = seeded()
    ours = generator.network(1, 2, 2, generator=random)
    loss = generator.transport_loss(EXEMPLAR, generator=random, **LOSS)
    expected = generator.train(ours, loss, 40, 40, steps=7, generator=random)
    net, losses, _ = trained("network")
    assert torch.equal(losses, expected)
    assert_same(net, ours)


@pytest.mark.parametrize("name", SMALL)
def test_an_interrupted_training_goes_on_to_the_same_network(name, tmp_path):
    state, steps = tmp_path / "new" / "state", []
    cut(name, state, AT[name])
    kept = state.read_bytes()
    assert [file.name for file in state.parent.iterdir()] == ["state"]
    net, losses, seconds = trained(name, state, callback=steps.append)
    expected, told, _ = trained(name)
    assert steps == list(range(4, len(told)))  # not from the beginning
    assert torch.equal(losses, told)
    assert_same(net, expected)
    assert not net.training or name == "singan"
    assert seconds > 0
    assert not state.exists()

    # a second interruption, and one before anything was kept
    state.write_bytes(kept)
    cut(name, state, AT[name])
    assert_same(trained(name, state)[0], expected)
    cut(name, state, 0)
    assert not state.exists()


def test_a_resumed_pyramid_draws_and_goes_on_from_its_critic(tmp_path):
    cut("singan", tmp_path / "state", 3)
    net, _, _ = trained("singan", tmp_path / "state")
    expected, _, _ = trained("singan")
    assert_same(net.critics[0], expected.critics[0])
    draws = [singan.sample(one, 40, 40, generator=seeded(3)) for one in (net, expected)]
    assert torch.equal(*draws)
    assert not any(weights.requires_grad for weights in net.nets.parameters())


@pytest.mark.parametrize(
    ("name", "other", "match"),
    [
        ("network", dict(about=LOSS | dict(patch=4)), "loss was {{'patch': 3.*got {{'patch': 4"),
        ("network", dict(seed=1), r"generator was .* in {}, got 'in the state of SHA-256 \w+': "),
        ("psgan", dict(lr=1e-3), r"lr was 0\.0002 in {}, got 0\.001: "),
        ("psgan", dict(steps=8, crop=20), "steps was 7 in {}, got 8; crop was 16 in {}, got 20: "),
        ("psgan", dict(seed=1), r"generator was .* in {}, got 'in the state of SHA-256 \w+': "),
        ("singan", dict(penalty=0.2), r"penalty was 0\.1 in {}, got 0\.2: "),
        ("singan", dict(factor=0.7), r"factor was 0\.75 in {}, got 0\.7: "),
        ("singan", dict(seed=1), r"generator was .* in {}, got 'in the state of SHA-256 \w+': "),
    ],
)
def test_other_settings_are_refused_by_name(name, other, match, tmp_path):
    cut(name, tmp_path / "state", AT[name])
    folder = re.escape(str(tmp_path))
    with pytest.raises(ValueError, match="^" + match.format(folder, folder)) as no:
        trained(name, tmp_path / "state", **other)
    assert str(no.value).endswith(f"take the former, or delete {tmp_path / 'state'}")
    assert "\n" not in str(no.value)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("other", [EXEMPLAR.flip(2), stripes(36), stripes(40, channels=3)])
def test_another_exemplar_is_refused(name, other, tmp_path):
    cut(name, tmp_path / "state", AT[name])
    match = r"^exemplar was '1 x 40 x 40 of SHA-256 \w+' in .*, got '\d x \d+ x \d+ of SHA-256 \w+'"
    with pytest.raises(ValueError, match=match):
        trained(name, tmp_path / "state", exemplar=other)


@pytest.mark.parametrize("name", SMALL)
def test_a_damaged_state_is_refused(name, tmp_path):
    state = tmp_path / "state"
    cut(name, state, AT[name])
    whole, tensors = state.read_bytes(), load_file(state)
    with safe_open(state, framework="pt") as file:
        told = file.metadata()
    lost = {
        "network": "potentials.1",
        "psgan": "net.waves.0.weight",
        "singan": "pyramid.nets.1.0.weight",
    }[name]
    fewer = {key: value for key, value in tensors.items() if key != lost}
    no_random = {key: value for key, value in tensors.items() if key != "random"}
    more = tensors | {"other.weight": torch.zeros(1)}
    for content in (
        whole[:1000],
        b"",
        save(tensors),
        save(tensors, told | dict(reached="{}")),
        *(save(part, told) for part in (fewer, no_random, more)),
    ):
        state.write_bytes(content)
        held = "must hold the state of an interrupted training, else delete it to begin anew: "
        with pytest.raises(ValueError, match=f"^{re.escape(str(state))} {held}") as no:
            trained(name, state)
        assert "\n" not in str(no.value)


@pytest.mark.parametrize("name", SMALL)
def test_bad_input_is_named(name, tmp_path):
    cases = {
        "steps must be a whole number >= 1, got 0": dict(steps=0),
        "lr must be a number > 0": dict(lr=0),
        "exemplar must have a texture": dict(exemplar=0 * EXEMPLAR),
        r"exemplar must be a non-empty \(C, H, W\) tensor": dict(exemplar=EXEMPLAR[0]),
    }
    for match, bad in cases.items():
        with pytest.raises(ValueError, match=f"^{match}"):
            trained(name, tmp_path / "state", **bad)
    assert not (tmp_path / "state").exists()
