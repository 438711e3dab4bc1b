import hashlib
import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from otlib.assets import images, photographs, used


@pytest.fixture(autouse=True)
def nothing_opened(forget):
    """No memory of what other tests opened."""


def save(path, shape, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Seven scenes of one to six crops of 16 pixels, at different depths."""
    for index, (height, width) in enumerate(
        [(16, 16), (20, 50), (40, 55), (33, 34)] + [(35, 50)] * 3
    ):
        save(tmp_path / "photos" / f"{'a/' * (index % 3)}{index}.png", (height, width, 3), index)
    return tmp_path / "photos"


def scenes(found):
    return {photograph.name.partition("@")[0] for photograph in found}


def draw(*arguments, **named):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return photographs.sets(*arguments, **named)


def test_a_name_tells_where_the_crop_lies(folder):
    for found in draw(folder, 16, (3, 3, 3)):
        for name, image in found:
            file, _, corner = name.partition("@")
            top, left = map(int, corner.split(","))
            whole = images.read(folder / file)
            torch.testing.assert_close(
                image, whole[:, top : top + 16, left : left + 16], rtol=0, atol=0
            )
            assert image.shape == (3, 16, 16) and image.dtype == torch.float32


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    size=st.integers(9, 16),
    counts=st.tuples(*[st.integers(1, 9)] * 3),
)
def test_no_scene_and_no_pixels_are_in_two_sets(tmp_path_factory, seed, size, counts):
    base = tmp_path_factory.getbasetemp() / "scenes"
    if not base.is_dir():
        for index in range(6):
            save(base / f"{index}.png", (20 + 5 * index, 60 - 4 * index, 3), index)
    found = draw(base, size, counts, seed)
    names = [scenes(part) for part in found]
    assert not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2])
    digests = [
        hashlib.sha256(image.numpy().tobytes()).digest() for part in found for _, image in part
    ]
    assert len(set(digests)) == len(digests)
    for part, count in zip(found, counts, strict=True):
        assert 1 <= len(part) <= count
        boxes = [
            (name.partition("@")[0], *map(int, name.split("@")[1].split(","))) for name, _ in part
        ]
        for i, (scene, top, left) in enumerate(boxes):
            for other, top_, left_ in boxes[:i]:
                assert scene != other or max(abs(top - top_), abs(left - left_)) >= size


def test_each_scene_serves_before_one_serves_twice(folder):
    found = draw(folder, 16, (4, 3, 5), seed=3)
    for part in found:
        served = Counter(name.partition("@")[0] for name, _ in part)
        order = [name.partition("@")[0] for name, _ in part]
        assert sorted(order[: len(served)]) == sorted(served)


def test_the_seed_decides(folder):
    once, again, other = (draw(folder, 16, (2, 2, 2), seed) for seed in (0, 0, 1))
    names = [[[name for name, _ in part] for part in found] for found in (once, again, other)]
    assert names[0] == names[1] != names[2]
    images = zip(once.test, again.test, strict=True)
    assert all(torch.equal(x.image, y.image) for x, y in images)


def test_a_large_folder_gives_one_crop_a_scene(tmp_path):
    for index in range(30):
        save(tmp_path / f"{index}.png", (32, 32, 3), index)
    found = photographs.sets(tmp_path, 16, (4, 5, 6))
    assert [len(scenes(part)) for part in found] == [len(part) for part in found] == [4, 5, 6]
    # so that no set of an ImageNet folder waits for the whole of it to be opened
    assert used.used()[0]["name"] == "15 photographs"


def test_what_is_passed_over_is_named(tmp_path):
    for index in range(4):
        save(tmp_path / f"{index}.png", (16, 16, 3), index)
    (tmp_path / "copy.png").write_bytes((tmp_path / "2.png").read_bytes())
    (tmp_path / "broken.png").write_bytes(b"no image")
    save(tmp_path / "small.png", (16, 15, 3))
    with pytest.warns(UserWarning) as caught:
        found = photographs.sets(tmp_path, 16, (2, 2, 2))
    text = str(caught[0].message)
    for part in ("broken.png cannot be read", "small.png is smaller, 15 x 16", "repeats", "of 2"):
        assert part in text
    assert sum(map(len, found)) == 4


def test_equal_crops_of_different_files_serve_once(tmp_path):
    flat = np.zeros((16, 16, 3), np.uint8)
    for name, how in (("a.png", {}), ("b.png", {"compress_level": 0})):
        Image.fromarray(flat).save(tmp_path / name, **how)
    save(tmp_path / "c.png", (16, 16, 3))
    with pytest.warns(UserWarning, match=r"repeats [ab]\.png@0,0"):
        found = photographs.sets(tmp_path, 16, (3, 0, 0))
    assert len(found.natural) == 2 and not found.test


def test_grey_is_repeated_and_transparent_is_passed_over(tmp_path):
    save(tmp_path / "grey.png", (16, 16))
    save(tmp_path / "glass.png", (16, 16, 4))
    with pytest.warns(UserWarning, match=r"glass\.png must have no transparent pixels"):
        (only,) = photographs.sets(tmp_path, 16, (2, 0, 0)).natural
    assert torch.equal(only.image[0], only.image[2])


@pytest.mark.parametrize(
    "arguments, line",
    [
        ({"size": 0}, "size must be a whole number >= 1, got 0"),
        ({"counts": (1, 2)}, "counts must be three whole numbers >= 0, got (1, 2)"),
        ({"counts": (1, -1, 2)}, "counts must be a whole number >= 0, got -1"),
        ({"counts": (0, 0, 0)}, "counts must not all be 0, got (0, 0, 0)"),
        ({"seed": -1}, "seed must be a whole number >= 0, got -1"),
        ({"size": 100}, "natural gets no photograph"),
        ({"size": 60, "counts": (1, 1, 1)}, "too few scenes of 60 x 60 pixels"),
    ],
)
def test_bad_input_gets_one_line(folder, arguments, line):
    with pytest.raises(ValueError) as error:
        photographs.sets(folder, **arguments)
    assert line in str(error.value) and "\n" not in str(error.value)


def test_a_folder_without_images_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="must hold image files, found none"):
        photographs.sets(tmp_path)
    with pytest.raises(FileNotFoundError, match="must hold image files, found none"):
        photographs.files(tmp_path / "absent")


def test_the_embedded_photographs_fill_the_defaults_of_the_pages():
    found = photographs.sets(size=128, counts=(10, 10, 20))
    assert [len(part) for part in found] == [10, 10, 20]
    assert all(len(scenes(part)) >= 2 for part in found)
    assert all(image.std() > 0.02 for part in found for _, image in part)
    names = [entry["name"] for entry in used.used()]
    assert names == ["7 photographs", "kodim23"]
