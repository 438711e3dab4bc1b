import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from otlib.assets import images, pairs, registry, used

MVTEC = os.environ.get("OTLIB_MVTEC", "")


@pytest.fixture(autouse=True)
def nothing_opened(monkeypatch):
    monkeypatch.setattr(used, "_used", {})
    monkeypatch.delenv("OTLIB_MVTEC", raising=False)
    monkeypatch.delenv("OTLIB_ELPV", raising=False)


def save(path, values, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values, **how).save(path)
    return path


def ramp(*shape, dtype=np.uint8):
    top = np.iinfo(dtype).max
    return np.linspace(0, top, int(np.prod(shape))).round().astype(dtype).reshape(shape)


# reading


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_eight_bits_are_read_exactly(tmp_path, suffix):
    grey, colour = ramp(5, 7), ramp(5, 7, 3)
    one = images.read(save(tmp_path / f"grey.{suffix}", grey))
    three = images.read(save(tmp_path / f"colour.{suffix}", colour))
    assert one.dtype == three.dtype == torch.float32
    torch.testing.assert_close(one, torch.from_numpy(grey.astype(np.float32) / 255)[None])
    torch.testing.assert_close(three.movedim(0, 2), torch.from_numpy(colour / np.float32(255)))
    assert one.min() == 0 and one.max() == 1


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_keep_their_levels(tmp_path, suffix):
    values = ramp(40, 50, dtype=np.uint16)
    read = images.read(save(tmp_path / f"deep.{suffix}", values))
    assert read.unique().numel() == values.size
    assert read.max() == 1
    torch.testing.assert_close(read[0], torch.from_numpy(values.astype(np.float32) / 65535))


def test_palette_and_bilevel_and_opaque_alpha_are_read_as_what_they_show(tmp_path):
    colour = np.zeros((4, 4, 3), np.uint8)
    colour[:2, :, 0], colour[2:, :, 1] = 255, 128
    plain = images.read(save(tmp_path / "plain.png", colour))
    Image.fromarray(colour).quantize(4).save(tmp_path / "palette.png")
    torch.testing.assert_close(images.read(tmp_path / "palette.png"), plain)
    opaque = np.dstack([colour, np.full((4, 4), 255, np.uint8)])
    torch.testing.assert_close(images.read(save(tmp_path / "alpha.png", opaque)), plain)
    Image.fromarray(ramp(4, 4)).convert("1", dither=0).save(tmp_path / "bits.png")
    assert set(images.read(tmp_path / "bits.png").unique().tolist()) == {0.0, 1.0}


def test_what_cannot_be_read_is_one_line(tmp_path):
    clear = np.dstack([ramp(4, 4, 3), np.full((4, 4), 254, np.uint8)])
    save(tmp_path / "clear.png", clear)
    Image.fromarray(ramp(4, 4, 3)).convert("CMYK").save(tmp_path / "cmyk.tif")
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    (tmp_path / "text.png").write_text("no image")
    whole = save(tmp_path / "whole.png", ramp(64, 64)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    expected = {
        "clear.png": "must have no transparent pixels",
        "cmyk.tif": "must be grey or RGB of 8 or 16 bits, got mode CMYK",
        "float.tif": "must be grey or RGB of 8 or 16 bits, got mode F",
        "text.png": "cannot be read as an image",
        "cut.png": "cannot be read as an image",
        "empty.png": "cannot be read as an image",
    }
    for name, message in expected.items():
        with pytest.raises(ValueError, match=rf"{name} {message}") as caught:
            images.read(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"gone.png is no file$"):
        images.read(str(tmp_path / "gone.png"))


# grey and size


def test_grey_weighs_the_channels_and_keeps_grey():
    image = torch.rand(3, 4, 5, dtype=torch.float64)
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    torch.testing.assert_close(images.grey(image), (weights[:, None, None] * image).sum(0)[None])
    same = image[:1].expand(3, -1, -1)
    torch.testing.assert_close(images.grey(same), image[:1])
    assert torch.equal(images.grey(image[:1]), image[:1])
    with pytest.raises(ValueError, match=r"^image must have 1 or 3 channels, got 4$"):
        images.grey(torch.zeros(4, 3, 3))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]))
def test_resize_keeps_constants_and_the_range(height, width, size, channels):
    image = torch.rand(channels, height, width)
    small = images.resize(image, size)
    assert small.shape == (channels, size, size)
    assert small.min() >= 0 and small.max() <= 1
    flat = images.resize(torch.full((channels, height, width), 0.3), size)
    torch.testing.assert_close(flat, torch.full_like(flat, 0.3))


def test_resize_takes_the_central_square_and_does_not_alias():
    wide = torch.zeros(1, 8, 20)
    wide[:, :, 6:14] = torch.rand(1, 8, 8)
    torch.testing.assert_close(images.resize(wide, 8), wide[:, :, 6:14])
    torch.testing.assert_close(images.resize(wide, 4), images.resize(wide[:, :, 6:14], 4))
    fine = (torch.arange(64) % 2).float().expand(1, 64, 64)  # above the new Nyquist frequency
    inner = images.resize(fine, 16)[:, :, 2:-2]
    torch.testing.assert_close(inner, torch.full_like(inner, 0.5), atol=0.02, rtol=0)


# pairs


def mvtec(root, category, good=9, kinds=("cut", "hole"), each=3, masks=True):
    """A category of MVTec AD's layout, every image another; the hole's area is a quarter."""
    rng = np.random.default_rng(len(category) + good)

    def noise(name):
        save(root / category / name, rng.integers(100, 255, (20, 20, 3), dtype=np.uint8))

    for i in range(good):
        noise(f"{'train' if i % 3 else 'test'}/good/{i:03}.png")
    for kind in kinds:
        for i in range(each):
            noise(f"test/{kind}/{i:03}.png")
            mask = np.zeros((20, 20), np.uint8)
            mask[:10, :10] = 255
            if masks:
                save(root / category / f"ground_truth/{kind}/{i:03}_mask.png", mask)
    return root


def quiet(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return pairs.draw(*args, **kwargs)


def names(found):
    return [pair.names for pair in found]


def test_pairs_of_mvtec_hold_the_rule(tmp_path):
    for category in ("bolt", "nut", "wood"):
        mvtec(tmp_path, category)
    found = quiet(tmp_path, count=8, size=10)
    # categories take turns, and no more is drawn from one than from another
    assert [pair.category for pair in found] == (["bolt", "nut", "wood"] * 3)[:8]
    assert len({pair.names[0] for pair in found}) == 8
    for pair in found:
        target, good, defective = pair.names
        assert len({target, good, defective}) == 3
        assert {name.split("/")[0] for name in pair.names} == {pair.category}
        assert "/good/" in target and "/good/" in good
        assert "/test/" in defective and "/good/" not in defective
        assert pair.area == pytest.approx(0.25)
        for image, name in zip(pair[1:4], pair.names, strict=True):
            own = images.resize(images.grey(images.read(tmp_path / name)), 10)
            assert torch.equal(image, own)
            assert image.shape == (1, 10, 10) and image.dtype == torch.float32


def test_references_of_a_category_are_taken_once_while_there_are_others(tmp_path):
    mvtec(tmp_path, "bolt", good=9, each=4)  # 6 good and 6 defective in the test split
    found = quiet(tmp_path, count=6, size=8)
    assert len({pair.names[1] for pair in found}) == 6
    assert len({pair.names[2] for pair in found}) == 6
    mvtec(tmp_path, "bolt", good=30)  # now 20 good
    found = quiet(tmp_path, count=12, size=8)
    targets, references = ({pair.names[i] for pair in found[:10]} for i in (0, 1))
    assert not targets & references
    uses = [[pair.names[2] for pair in found].count(name) for name in {p.names[2] for p in found}]
    assert sorted(uses) == [2] * 6


def test_pairs_depend_on_the_seed_alone_and_fewer_are_the_first(tmp_path):
    for category in ("bolt", "nut"):
        mvtec(tmp_path, category, good=30)
    found = names(quiet(tmp_path, count=12, size=8))
    assert found == names(quiet(str(tmp_path), count=12, size=8))
    assert found[:5] == names(quiet(tmp_path, count=5, size=8))
    assert found != names(quiet(tmp_path, count=12, size=8, seed=1))


@pytest.mark.parametrize("seeds", [(0, 0), (0, 5)])
def test_splits_share_no_file_whatever_the_seeds(tmp_path, seeds):
    for category in ("bolt", "nut"):
        mvtec(tmp_path, category, good=12, each=6)
    parts = [
        {name for pair in quiet(tmp_path, 8, 8, seed, split) for name in pair.names}
        for seed, split in zip(seeds, ("test", "tuning"), strict=True)
    ]
    assert parts[0] and parts[1] and not parts[0] & parts[1]


def test_one_category_may_be_given_and_masks_may_be_missing(tmp_path):
    mvtec(tmp_path, "bolt", masks=False)
    found = quiet(tmp_path / "bolt", count=3, size=8)
    assert [pair.category for pair in found] == ["bolt"] * 3
    assert [pair.area for pair in found] == [None] * 3


def test_too_few_images_give_fewer_pairs_and_say_so(tmp_path):
    mvtec(tmp_path, "bolt")
    with pytest.warns(UserWarning, match=r": 6 of 18 pairs: test has no more$"):
        assert len(pairs.draw(tmp_path, size=8)) == 6
    with pytest.warns(UserWarning, match=r": 3 of 18 pairs: tuning has no more$"):
        assert len(pairs.draw(tmp_path, size=8, split="tuning")) == 3


def test_unreadable_files_are_passed_over_and_named_once(tmp_path):
    mvtec(tmp_path, "bolt", good=9)
    whole = names(quiet(tmp_path, count=5, size=8))
    bad = [whole[0][0], whole[1][2]]
    for name in bad:
        (tmp_path / name).write_bytes(b"\x89PNG broken")
    with pytest.warns(UserWarning) as caught:
        found = pairs.draw(tmp_path, count=5, size=8)
    (warning,) = caught
    message = str(warning.message)
    assert all(message.count(name) == 1 for name in bad)
    assert message.count("passed over") == 2
    assert str(tmp_path) not in message
    assert len(found) == 5
    assert not {name for pair in found for name in pair.names} & set(bad)


def test_a_dark_reference_is_not_taken(tmp_path):
    mvtec(tmp_path, "bolt")
    whole = quiet(tmp_path, count=1, size=8)
    dark = whole[0].names[2]
    save(tmp_path / dark, np.full((20, 20), 40, np.uint8))
    (pair,) = quiet(tmp_path, count=1, size=8)
    assert pair.names[:2] == whole[0].names[:2]
    assert pair.names[2] != dark


def test_a_category_without_defects_is_left_out_or_refused(tmp_path):
    mvtec(tmp_path, "bolt", kinds=())
    match = (
        r"gives no pair; bolt left out: test needs 2 defect-free files and 1 defective "
        r"\(in test/DEFECT\), has 6 and 0$"
    )
    with pytest.raises(ValueError, match=match):
        pairs.draw(tmp_path, size=8)
    mvtec(tmp_path, "nut")
    with pytest.warns(UserWarning, match=r": bolt left out: test needs"):
        found = pairs.draw(tmp_path, count=3, size=8)
    assert {pair.category for pair in found} == {"nut"}


def test_a_folder_of_another_layout_is_refused_with_the_path_looked_for(tmp_path):
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(FileNotFoundError) as caught:
            pairs.draw(folder)
        message = str(caught.value)
        assert f"{folder}/*/train/good" in message and f"{folder}/labels.csv" in message
        assert "\n" not in message
    (tmp_path / "labels.csv").write_text("images/a.png good\n")
    with pytest.raises(ValueError, match=r"labels.csv must hold lines of FILE PROBABILITY TYPE$"):
        pairs.draw(tmp_path)


def test_bad_arguments_are_one_line():
    for message, how in {
        "count must be a whole number >= 1, got 0": {"count": 0},
        "size must be a whole number >= 1, got 2.5": {"size": 2.5},
        "seed must be a whole number >= 0, got -1": {"seed": -1},
        "split must be 'test' or 'tuning', got 'train'": {"split": "train"},
    }.items():
        with pytest.raises(ValueError) as caught:
            pairs.draw("elpv", **how)
        assert str(caught.value) == message


def test_a_folder_of_the_user_is_known_by_the_files_drawn_from_it(tmp_path, monkeypatch):
    mvtec(tmp_path, "bolt")
    quiet(tmp_path, count=2, size=8)
    (first,) = used.used()
    assert (first["source"], first["licence"]) == (f"folder {tmp_path.name}", "the user's")
    drawn = quiet(tmp_path, count=2, size=8)[0].names[0]
    assert used.used() == [first]
    save(tmp_path / drawn, np.full((20, 20), 200, np.uint8))
    monkeypatch.setenv("OTLIB_MVTEC", str(tmp_path))
    monkeypatch.setattr(used, "_used", {})
    quiet("mvtec", count=2, size=8)
    (second,) = used.used()
    assert second["sha256"] != first["sha256"]
    assert second["source"] == f"folder {tmp_path.name}, given by OTLIB_MVTEC"
    assert second["licence"] == "CC BY-NC-SA 4.0"


def test_pairs_of_elpv_hold_the_rule():
    rows = (registry.find("elpv").parent / "labels.csv").read_text().splitlines()
    place = {row.split()[0]: i for i, row in enumerate(rows)}
    label = {row.split()[0]: (row.split()[2], float(row.split()[1])) for row in rows}
    test, tuning = (quiet("elpv", size=32, split=split) for split in ("test", "tuning"))
    for found in (test, tuning):
        assert len(found) == len({pair.names[0] for pair in found}) == 18
        assert [pair.category for pair in found] == ["mono", "poly"] * 9
        for pair in found:
            kinds = [(pair.category, 0.0), (pair.category, 0.0), (pair.category, 1.0)]
            assert [label[name] for name in pair.names] == kinds
            assert pair.area == 1.0
            gaps = [abs(place[name] - place[pair.names[0]]) for name in pair.names[1:]]
            assert min(gaps) >= 24
            assert pair.good.mean() >= pair.target.mean() / 2 <= pair.defective.mean()
    files = [{name for pair in found for name in pair.names} for found in (test, tuning)]
    assert not files[0] & files[1]
    assert {row["source"] for row in used.used()} == {"elpv-dataset 1.0.0.post1"}


@pytest.mark.skipif(not MVTEC, reason="OTLIB_MVTEC names no folder")
def test_pairs_of_the_users_mvtec(monkeypatch):
    """On the real images, where the machine has them."""
    monkeypatch.setenv("OTLIB_MVTEC", MVTEC)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = pairs.draw("mvtec")
    assert found
    assert {pair.category for pair in found} <= {path.name for path in Path(MVTEC).iterdir()}
    assert all(0 < pair.target.std() < 0.5 for pair in found)
