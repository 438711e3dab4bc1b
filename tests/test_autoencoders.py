import functools
import hashlib
import os
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from otlib import dot
from otlib.assets import autoencoders, images, photographs, registry, used
from otlib.metrics import psnr

torch.set_num_threads(1)
SHARED = Path(__file__).parents[2] / "shared" / "data"
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def nothing_given(monkeypatch, forget):
    """No folder of the user's, no hub, and nothing told yet."""
    monkeypatch.setattr(autoencoders, "_fallen", set())
    for asset in registry.REGISTRY.values():
        monkeypatch.delenv(asset.variable, raising=False)

    def unreachable(*_, **__):
        raise OSError("no network in a test")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)


def register(monkeypatch, name, **changes):
    monkeypatch.setitem(registry.REGISTRY, name, replace(registry.REGISTRY[name], **changes))


@functools.cache
def kl(widths):
    """Stable Diffusion's autoencoder, four stages of the given widths, at random weights."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=widths,
        layers_per_block=2,
        latent_channels=4,
    )


NARROW, TRUE = (32,) * 4, (128, 256, 512, 512)


def saved(folder, monkeypatch, name="sd-vae-ft-mse", network=None):
    """Save a network where the environment variable of a name points; return the weights' path."""
    (network or kl(NARROW)).save_pretrained(folder)
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    register(monkeypatch, name, sha256=digest)
    monkeypatch.setenv(registry.REGISTRY[name].variable, str(folder))
    return folder / WEIGHTS


def image(height=64, width=64, seed=0):
    return torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- the linear one


FILES = photographs.files()


@pytest.mark.parametrize(("name", "channels", "least"), [("pca8", 8, 29), ("pca16", 16, 34)])
def test_linear_round_trip_of_a_photograph_that_it_has_not_seen(name, channels, least, monkeypatch):
    (held_out,) = (file for file in FILES if file.stem == "motorcycle_left")
    x = images.read(held_out)[None, :, :496, :740].double()

    def round_trip():
        autoencoder = autoencoders.load(name)
        assert (autoencoder.stride, autoencoder.channels, autoencoder.colours) == (4, channels, 3)
        z = autoencoder.encode(x)
        assert z.shape == (1, channels, 124, 185)
        return psnr(autoencoder.decode(z)[0], x[0])

    seen = round_trip()
    others = [file for file in FILES if file != held_out]
    monkeypatch.setattr(photographs, "files", lambda: others)
    assert least < round_trip() < seen < least + 3


def test_linear_basis_is_orthonormal_and_its_first_channels_are_colours():
    eye = torch.eye(16, dtype=torch.float64)
    flat = autoencoders.load("pca16").decode(eye[:, :, None, None]).flatten(1)
    torch.testing.assert_close(flat @ flat.mT, eye, rtol=0, atol=1e-9)
    autoencoder = autoencoders.load("pca8")
    x = image(8, 12).double()
    z = autoencoder.encode(x)
    means = torch.nn.functional.avg_pool2d(x, 4)
    torch.testing.assert_close(z[:, :3], 4 * means)
    flat_image = means.repeat_interleave(4, 2).repeat_interleave(4, 3)
    codes = autoencoder.encode(flat_image)
    assert codes[:, 3:].abs().max() < 1e-9
    torch.testing.assert_close(autoencoder.decode(codes), flat_image)
    # orthonormal: decoding and encoding again is the identity, an isometry
    torch.testing.assert_close(autoencoder.encode(autoencoder.decode(z)), z)
    assert autoencoder.decode(z).norm() == pytest.approx(z.norm().item())


def test_linear_with_more_channels_is_nested_and_better():
    x = images.read(FILES[0])[None, :, :128, :128]
    few, many = autoencoders.load("pca8"), autoencoders.load("pca16")
    torch.testing.assert_close(many.encode(x)[:, :8], few.encode(x))
    assert psnr(many.decode(many.encode(x))[0], x[0]) > psnr(few.decode(few.encode(x))[0], x[0])


def test_linear_is_named_in_the_provenance():
    autoencoders.load("pca16")
    (row,) = (row for row in used.used() if row["name"] == "pca16")
    assert row["source"].startswith("fitted here on astronaut, ")
    assert len(row["sha256"]) == 64


# ---------------------------------------------------------------- networks from a folder


def test_narrow_kl_autoencoder_from_a_folder(tmp_path, monkeypatch):
    saved(tmp_path, monkeypatch)
    autoencoder = autoencoders.load("sd-vae-ft-mse")
    assert (autoencoder.name, autoencoder.stride, autoencoder.channels) == ("sd-vae-ft-mse", 8, 4)
    x = image(40, 64)
    z = autoencoder.encode(x)
    assert z.shape == (1, 4, 5, 8)
    with torch.no_grad():
        law = kl(NARROW).encode(2 * x - 1).latent_dist
        torch.testing.assert_close(z, law.mean)
        torch.testing.assert_close(autoencoder.decode(z), kl(NARROW).decode(z).sample / 2 + 0.5)
    (row,) = used.used()
    assert row["source"] == f"{tmp_path.name}, given by OTLIB_SD_VAE_FT_MSE"
    # the latents' mean by default; draws about it where a generator is given
    drawing = autoencoders.load("sd-vae-ft-mse", generator=torch.Generator().manual_seed(0))
    draws = torch.stack([drawing.encode(x) for _ in range(30)])
    assert not torch.equal(draws[0], draws[1])
    assert ((draws.mean(0) - z).abs() < 6 * law.std / 30**0.5).all()


def test_kl_autoencoder_of_the_true_shape_transports(tmp_path, monkeypatch):
    network = kl(TRUE)
    assert sum(weight.numel() for weight in network.parameters()) == 83_653_863
    saved(tmp_path, monkeypatch, network=network)
    autoencoder = autoencoders.load("sd-vae-ft-mse")
    images = [image(48, 64, seed=k)[0] for k in range(3)]
    fitted = dot.fit(images[:1], images[1:2], autoencoder, 1)
    moved = dot.transport(fitted, images[2][:, :45, :61], autoencoder)
    assert moved.shape == (3, 45, 61) and moved.isfinite().all()


def test_weights_of_another_hash_or_shape_are_refused(tmp_path, monkeypatch):
    file = saved(tmp_path, monkeypatch)
    good = load_file(file)
    register(monkeypatch, "sd-vae-ft-mse", sha256="0" * 64)
    with pytest.raises(ValueError, match=f"{WEIGHTS} has SHA-256 .*, expected 0000"):
        autoencoders.load("sd-vae-ft-mse")
    register(monkeypatch, "sd-vae-ft-mse", sha256=None)
    key = "decoder.conv_out.weight"
    save_file(good | {key: torch.zeros(3, 5, 3, 3)}, file)
    with pytest.raises(ValueError, match=rf"{key} must be \(3, 32, 3, 3\), got \(3, 5") as caught:
        autoencoders.load("sd-vae-ft-mse")
    assert "\n" not in str(caught.value)
    save_file({name: value for name, value in good.items() if name != key}, file)
    with pytest.raises(ValueError, match=f"the weights lack {key} of config.json's network$"):
        autoencoders.load("sd-vae-ft-mse")
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no config.json beside its weights$"):
        autoencoders.load("sd-vae-ft-mse")
    monkeypatch.setenv("OTLIB_SD_VAE_FT_MSE", str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match=r"OTLIB_SD_VAE_FT_MSE names .*gone.* not exist$"):
        autoencoders.load("sd-vae-ft-mse")


@pytest.mark.parametrize("junk", [b"<!DOCTYPE html><html></html>", b"", b"junk", None])
def test_a_file_of_something_else_is_named_in_one_line(tmp_path, monkeypatch, junk):
    file = saved(tmp_path, monkeypatch)
    for name in ("sd-vae-ft-mse", "taesd", "taesd-encoder", "taesd-decoder"):
        register(monkeypatch, name, sha256=None)
    file.write_bytes(file.read_bytes()[:-100] if junk is None else junk)
    with pytest.raises(ValueError, match=rf"^sd-vae-ft-mse: \S*{WEIGHTS} must hold .*: ") as error:
        autoencoders.load("sd-vae-ft-mse")
    assert "\n" not in str(error.value)
    monkeypatch.setenv("OTLIB_TAESD", str(file))  # the one form of TAESD
    with pytest.raises(ValueError, match=rf"^taesd: \S*{WEIGHTS} must hold TAESD: .*: "):
        autoencoders.load("taesd")
    save_file({"1.weight": torch.zeros(2)}, tmp_path / "taesd_encoder.safetensors")
    (tmp_path / "taesd_decoder.safetensors").write_bytes(file.read_bytes())  # the other
    with pytest.raises(
        ValueError, match=r"^taesd: \S*taesd_encoder.safetensors must hold TAESD's "
    ):
        autoencoders.load("taesd")
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"^sd-vae-ft-mse: [^\n]*$"):
        autoencoders.load("sd-vae-ft-mse")


def test_names_of_old_releases_are_understood(tmp_path, monkeypatch):
    """The released files name the attention's matrices query, key, value, proj_attn."""
    file = saved(tmp_path, monkeypatch)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = load_file(file)
    for new, name in old.items():
        renamed = {key.replace(new, name): value for key, value in renamed.items()}
    assert renamed.keys() != load_file(file).keys()
    expected = autoencoders.load("sd-vae-ft-mse").encode(image())
    save_file(renamed, file)
    register(monkeypatch, "sd-vae-ft-mse", sha256=None)
    torch.testing.assert_close(autoencoders.load("sd-vae-ft-mse").encode(image()), expected)


def tiny():
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    return AutoencoderTiny()


def test_taesd_from_either_form_of_folder(tmp_path, monkeypatch):
    """diffusers' folder, and the authors' two files: the same network under other names."""
    network = tiny()
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    saved(whole, monkeypatch, "taesd", network)
    autoencoder = autoencoders.load("taesd")
    assert (autoencoder.name, autoencoder.stride, autoencoder.channels) == ("taesd", 8, 4)
    x = image(48, 64)
    z = autoencoder.encode(x)
    assert z.shape == (1, 4, 6, 8)
    halves.mkdir()
    for half, shift in (("encoder", 0), ("decoder", 1)):
        weights = {}
        for key, value in getattr(network, half).layers.state_dict().items():
            layer, _, rest = key.partition(".")
            weights[f"{int(layer) + shift}.{rest}"] = value.bfloat16()
        file = halves / f"taesd_{half}.safetensors"
        save_file(weights, file)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        register(monkeypatch, f"taesd-{half}", sha256=digest)
    monkeypatch.setenv("OTLIB_TAESD", str(halves))
    original = autoencoders.load("taesd")
    torch.testing.assert_close(original.encode(x), z, rtol=0, atol=0.05)
    decoded = original.decode(z)
    assert decoded.dtype == torch.float32
    torch.testing.assert_close(decoded, autoencoder.decode(z), rtol=0, atol=0.05)


@pytest.mark.skipif(not (SHARED / "taesd").is_dir(), reason="needs the folder with TAESD's weights")
def test_taesd_restores_photographs(monkeypatch):
    monkeypatch.setenv("OTLIB_TAESD", str(SHARED / "taesd"))
    autoencoder = autoencoders.load("taesd")
    x = images.read(FILES[0])[None, :, :256, :256]
    assert psnr(autoencoder.decode(autoencoder.encode(x))[0], x[0]) > 22
    assert [row["name"] for row in used.used()] == ["taesd-decoder", "taesd-encoder"]


# ---------------------------------------------------------------- the hub


def test_an_unreachable_hub_falls_back_once_and_says_what_differs(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", no_cache)
    match = (
        r"^sd-vae-ft-ema: stabilityai/sd-vae-ft-ema on the hub cannot be had \(.*\); set "
        r"OTLIB_SD_VAE_FT_EMA to a folder .*In its place: pca16, linear, 16 channels a 4 x 4 "
    )
    with pytest.warns(UserWarning, match=match) as told:
        autoencoder = autoencoders.load("sd-vae-ft-ema")
    assert "\n" not in str(told[0].message)
    assert autoencoder.name == "pca16"
    assert "pca16" in [row["name"] for row in used.used()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert autoencoders.load("sd-vae-ft-ema").name == "pca16"
    with pytest.warns(UserWarning, match="^taesd: "):
        autoencoders.load("taesd")


def no_cache(*_, local_files_only=False, **__):
    raise FileNotFoundError("not in the cache" if local_files_only else "no network")


def test_what_the_hub_gives_is_used_at_its_revision(tmp_path, monkeypatch):
    file = saved(tmp_path, monkeypatch, "sd-vae-ft-ema")
    monkeypatch.delenv("OTLIB_SD_VAE_FT_EMA")
    asked = []

    def download(repository, name, revision, local_files_only=False):
        asked.append((repository, name, revision, local_files_only))
        if local_files_only:
            raise FileNotFoundError("not in the cache")
        return os.fspath(tmp_path / name)

    class Answer:
        def close(self):
            pass

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Answer())
    assert autoencoders.load("sd-vae-ft-ema").name == "sd-vae-ft-ema"
    revision = registry.REGISTRY["sd-vae-ft-ema"].hub.partition("@")[2]
    names = [name for _, name, _, local in asked if not local]
    assert names == ["config.json", WEIGHTS]
    assert {(row[0], row[2]) for row in asked} == {("stabilityai/sd-vae-ft-ema", revision)}
    (row,) = used.used()
    assert row["source"] == (
        f"downloaded from the hub, stabilityai/sd-vae-ft-ema, revision {revision[:12]}"
    )
    assert row["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    # a download of another hash is refused, not passed over
    register(monkeypatch, "sd-vae-ft-ema", sha256="1" * 64)
    with pytest.raises(ValueError, match="expected 1111"):
        autoencoders.load("sd-vae-ft-ema")


def test_hub_entries_name_a_full_revision():
    """But Swin2SR, whose revision is not known here: its hash stands in the provenance."""
    for name, asset in registry.REGISTRY.items():
        if asset.hub:
            repository, _, revision = asset.hub.partition("@")
            assert repository.count("/") == 1 and asset.file
            assert len(revision) == 40 or (name, revision) == ("swin2sr", "main")


def test_unknown_names_are_one_line():
    match = r"^name must be one of pca8, pca16, taesd, sd-vae-ft-mse, sd-vae-ft-ema, got 'vqgan'$"
    with pytest.raises(ValueError, match=match):
        autoencoders.load("vqgan")
