import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load as load_bytes
from safetensors.torch import save_file

from otlib import dot, gaussian, generator, psgan, singan
from otlib.assets import autoencoders, saved


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def toy(channels=2):
    """An autoencoder that is the identity on the first channels: latents are pixels."""

    def encode(x):
        return x[:, :channels]

    def decode(z):
        return torch.cat([z, z[:, :1].expand(-1, 3 - channels, -1, -1)], 1)

    return autoencoders.Autoencoder("toy", "", 1, channels, 1, encode, decode)


def smooth(count, height=24, width=24, seed=0, kernel=1.0):
    """Random images in [0, 1] with correlated pixels."""
    return [
        gaussian.texture((3, height, width), kernel, 0.1, 0.5, seeded(seed * 1000 + k)).clamp(0, 1)
        for k in range(count)
    ]


def trained(scales=3, channels=1, width=2, seed=0):
    """A double network whose statistics are those of no single image."""
    net = generator.network(channels, scales, width, generator=seeded(seed)).double()
    random = seeded(seed + 1)
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean = 0.3 * torch.randn(layer.num_features, generator=random).double()
            layer.running_var = 0.5 + torch.rand(layer.num_features, generator=random).double()
    return net.eval()


# transports


# ---------------------------------------------------------------- files


def test_what_is_saved_is_what_is_loaded(tmp_path):
    with pytest.warns(UserWarning, match="^restored gives 4"):
        singular = dot.fit(smooth(4), smooth(1, 4, 4, seed=1), toy(), 3)
    for fitted in (dot.fit(smooth(2, kernel=0.5), smooth(2, seed=1), toy(), 3), singular):
        saved.save_transport(tmp_path / "fit.safetensors", fitted)
        read = saved.load_transport(tmp_path / "fit.safetensors")
        assert (read.autoencoder, read.channels, read.patch) == ("toy", 2, 3)
        assert read.natural.number == fitted.natural.number
        assert (read.full.noise is None) == (fitted.full.noise is None)
        image = smooth(1, seed=3)[0]
        (tmp_path / "fit.safetensors").write_bytes(b"")  # what was read stays
        again = dot.transport(read, image, toy(), generator=seeded())
        assert torch.equal(again, dot.transport(fitted, image, toy(), generator=seeded()))


def test_other_files_are_no_transport(tmp_path):
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"no such thing")
    with pytest.raises(ValueError, match=r"x.safetensors must be a safetensors file"):
        saved.load_transport(file)
    save_file({"a": torch.zeros(1)}, file)
    with pytest.raises(ValueError, match=r"must hold an otlib deep .*, got 'no kind'$"):
        saved.load_transport(file)
    with pytest.raises(FileNotFoundError):
        saved.load_transport(tmp_path / "none")


# generators


def test_a_saved_generator_is_the_same(tmp_path):
    path, net = tmp_path / "a.safetensors", trained(scales=2, channels=3).float()
    saved.save_generator(path, net, exemplar="stripes", steps=60)
    again, facts = saved.load_generator(path)
    assert facts == {"exemplar": "stripes", "steps": 60}
    assert again.settings == net.settings and not again.training
    noises = generator.noise(net, 8, 8, generator=seeded())
    assert torch.equal(generator.generate(again, noises), generator.generate(net, noises))


def test_saved_rivals_are_the_same(tmp_path):
    path, exemplar = tmp_path / "a.safetensors", torch.rand(3, 33, 33, generator=seeded())
    pyramid = singan.begin(exemplar, width=4, generator=seeded())
    for _ in pyramid.sides:
        singan.grow(pyramid, exemplar, steps=1, inner=1, generator=seeded(1))
    saved.save_generator(path, pyramid, steps=1)
    again, facts = saved.load_generator(path)
    assert facts == {"steps": 1} and again.settings == pyramid.settings
    draws = [singan.sample(p, 40, 50, generator=seeded()) for p in (pyramid, again)]
    assert torch.equal(*draws)
    assert torch.equal(singan.reconstruct(pyramid), singan.reconstruct(again))
    training = psgan.begin(exemplar, depth=2, width=4, generator=seeded())
    psgan.advance(training, exemplar, steps=2, batch=2, crop=16, generator=seeded(1))
    saved.save_generator(path, training.net)
    again, _ = saved.load_generator(path)
    assert again.settings == training.net.settings and not again.training
    z = psgan.noise(again, 16, 20, generator=seeded())
    assert torch.equal(psgan.generate(training.net, z), psgan.generate(again, z))


def test_weights_of_another_rival_are_refused(tmp_path):
    path, exemplar = tmp_path / "a.safetensors", torch.rand(1, 33, 33, generator=seeded())
    net = psgan.begin(exemplar, depth=2, width=4, generator=seeded()).net
    net.settings["width"] = 5
    saved.save_generator(path, net)
    with pytest.raises(ValueError, match=r"a\.safetensors: layers\.\d\..* must be"):
        saved.load_generator(path)
    pyramid = singan.begin(exemplar, width=4, generator=seeded())
    pyramid.amplitudes.append(1.0)  # tells of a scale that is not there
    saved.save_generator(path, pyramid)
    with pytest.raises(ValueError, match=r"a\.safetensors: nets\.0\..* must be .*, got none"):
        saved.load_generator(path)


def test_other_files_are_no_generator(tmp_path):
    path, net = tmp_path / "a.safetensors", trained(scales=2)
    with pytest.raises(FileNotFoundError, match=r"a\.safetensors"):
        saved.load_generator(path)
    path.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=r"a\.safetensors must be a safetensors file"):
        saved.load_generator(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match=r"a\.safetensors must hold an otlib texture gen.*no kind"):
        saved.load_generator(path)
    save_file({"weight": torch.zeros(2)}, path, metadata={"kind": "autoencoder"})
    with pytest.raises(ValueError, match=r"a\.safetensors must hold .* got 'autoencoder'"):
        saved.load_generator(path)
    net.settings["width"] = 3  # tells of another architecture than the tensors
    saved.save_generator(path, net)
    with pytest.raises(ValueError, match=r"a\.safetensors: enter\.0\.0\.bias must be \(3,\)"):
        saved.load_generator(path)


# both


@pytest.mark.parametrize("load", [saved.load_generator, saved.load_transport])
def test_damaged_files_are_named_in_one_line(tmp_path, load):
    file, net = tmp_path / "a.safetensors", trained(scales=2)
    if load is saved.load_generator:
        saved.save_generator(file, net)
        told = {"kind": "otlib texture generator", "settings": "{}", "facts": "{}"}
        others = [told, told | {"settings": "[1]"}, told | {"facts": "{"}, {"kind": told["kind"]}]
    else:
        saved.save_transport(file, dot.fit(smooth(2, kernel=0.5), smooth(2, seed=1), toy(), 3))
        told = {"kind": "otlib deep optimal transport", "autoencoder": "toy", "patch": "3"}
        others = [told | {"patch": "p"}, told | {"patch": "2"}, {"kind": told["kind"]}]
    whole, tensors = file.read_bytes(), load_bytes(file.read_bytes())
    load(file)

    def refused():
        with pytest.raises(ValueError, match=r"^\S*a\.safetensors[: ]") as error:
            load(file)
        assert "\n" not in str(error.value)

    for content in (b"<!DOCTYPE html><html></html>", b"", whole[:-100], whole[: len(whole) // 2]):
        file.write_bytes(content)
        refused()
    for other in others:
        save_file(tensors, file, metadata=other)
        refused()
    torch.save(tensors, file)
    refused()
    for key in tensors:  # lost, or of another shape
        file.write_bytes(whole)
        with safe_open(file, "pt") as opened:
            told = opened.metadata()
        save_file({k: v for k, v in tensors.items() if k != key}, file, metadata=told)
        refused()
        save_file(tensors | {key: torch.zeros(2, 3, 5)}, file, metadata=told)
        refused()
    file.unlink()
    file.mkdir()
    refused()


def test_a_file_that_cannot_be_written_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match=r"x\.safetensors cannot be written"):
        saved.save_generator(tmp_path / "none" / "x.safetensors", trained())
