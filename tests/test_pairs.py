import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from otlib.assets import images, pairs, registry, used

MVTEC = os.environ.get("OTLIB_MVTEC", "")


@pytest.fixture(autouse=True)
def nothing_opened(monkeypatch, forget):
    monkeypatch.delenv("OTLIB_MVTEC", raising=False)
    monkeypatch.delenv("OTLIB_ELPV", raising=False)


def save(path, values, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values, **how).save(path)
    return path


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


def only(root, **how):
    """The area of the one pair of a category whose one defect is file 000 of `cut`."""
    (pair,) = pairs.draw(root, count=1, size=8, **how)
    assert pair.names[2].endswith("test/cut/000.png")
    return pair.area


EIGHTH = np.zeros((64, 64), np.uint8)
EIGHTH[:32, :16] = 1


@pytest.mark.parametrize("level", [1, 120, 255])
@pytest.mark.parametrize(
    "name",
    ["000_mask.png", "000_mask.PNG", "000_MASK.tif", "000_mask.jpg", "000.bmp", "000/000.png"],
)
def test_any_level_of_a_mask_is_the_defect_whatever_its_file(tmp_path, level, name):
    """In `000/` lie the masks of MVTec LOCO; the mask's size is not the image's."""
    mvtec(tmp_path, "bolt", kinds=("cut",), each=1, masks=False)
    if name.endswith("jpg") and level == 1:
        level = 30  # JPEG keeps no 1
    save(tmp_path / "bolt/ground_truth/cut" / name, EIGHTH * np.uint8(level))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert only(tmp_path) == 0.125


def test_several_masks_of_one_image_are_one_defect(tmp_path):
    mvtec(tmp_path, "bolt", kinds=("cut",), each=1, masks=False)
    for index, part in enumerate((EIGHTH, EIGHTH.T * np.uint8(9))):
        save(tmp_path / f"bolt/ground_truth/cut/000/{index:03}.png", part)
    assert only(tmp_path) == 0.125 + 0.125 - 1 / 16
    save(tmp_path / "bolt/ground_truth/cut/000/002.png", EIGHTH[:8])
    with pytest.warns(UserWarning, match=r"no area: the masks of bolt/test/cut/000.png must have"):
        assert only(tmp_path) is None


def test_a_mask_that_cannot_be_read_is_named_and_stops_nothing(tmp_path):
    mvtec(tmp_path, "bolt")
    mvtec(tmp_path, "nut")
    mask = tmp_path / "bolt/ground_truth/cut/000_mask.png"
    mask.write_bytes(b"no mask")
    (tmp_path / "nut/ground_truth/cut/000_mask.png").unlink()
    (tmp_path / "nut/ground_truth/cut/000_mask.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.warns(UserWarning) as caught:
        found = pairs.draw(tmp_path, count=12, size=8)
    (warning,) = caught
    told = str(warning.message)
    assert told.count("no area: bolt/ground_truth/cut/000_mask.png cannot be read as an image") == 1
    assert told.count("no area: nut/ground_truth/cut/000_mask.png is no file") == 1
    areas = {pair.names[2]: pair.area for pair in found}
    for name, area in areas.items():
        assert area is None if name.endswith("cut/000.png") else area == pytest.approx(0.25)
    assert len(found) == 12 and None in areas.values()


def test_what_lies_behind_links_is_drawn_from_once(tmp_path):
    real = mvtec(tmp_path / "real", "bolt")
    linked = tmp_path / "linked"
    (linked / "bolt/train").mkdir(parents=True)
    (linked / "bolt/train/good").symlink_to(real / "bolt/train/good")
    (linked / "bolt/test").symlink_to(real / "bolt/test")
    (linked / "bolt/ground_truth").symlink_to(real / "bolt/ground_truth")
    (linked / "again").symlink_to(linked / "bolt")  # no second category
    expected = quiet(real, count=6, size=8)
    (real / "bolt/test/cut/circle").symlink_to(real / "bolt")
    for root, name in ((real, "bolt/"), (linked, "again/")):
        found = [(pair.names, pair.area) for pair in quiet(root, count=6, size=8)]
        assert found == [
            (tuple(text.replace("bolt/", name) for text in pair.names), pair.area)
            for pair in expected
        ]


def test_a_folder_of_a_name_of_the_registry_is_given_as_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mvtec(tmp_path / "mvtec", "bolt")
    mvtec(tmp_path / "taesd", "nut")
    assert {pair.category for pair in quiet("./mvtec", count=2, size=8)} == {"bolt"}
    assert {pair.category for pair in quiet(Path("mvtec"), count=2, size=8)} == {"bolt"}
    assert {pair.category for pair in quiet("taesd", count=2, size=8)} == {"nut"}  # no pictures
    monkeypatch.setenv("OTLIB_MVTEC", str(tmp_path / "taesd"))
    with pytest.warns(UserWarning, match=r"^folder 'mvtec' is a name; for the path give './mvtec'"):
        assert {pair.category for pair in pairs.draw("mvtec", count=2, size=8)} == {"nut"}


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


def test_a_folder_of_the_user_is_known_by_the_files_drawn_from_it(tmp_path, monkeypatch, forget):
    mvtec(tmp_path, "bolt")
    quiet(tmp_path, count=2, size=8)
    (first,) = used.used()
    assert (first["source"], first["licence"]) == (f"folder {tmp_path.name}", "the user's")
    drawn = quiet(tmp_path, count=2, size=8)[0].names[0]
    assert used.used() == [first]
    save(tmp_path / drawn, np.full((20, 20), 200, np.uint8))
    monkeypatch.setenv("OTLIB_MVTEC", str(tmp_path))
    forget()
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


@pytest.fixture(scope="module")
def eighteen(tmp_path_factory):
    """The 54 files, noise of one level in each but in the first target."""
    root, rng = tmp_path_factory.mktemp("mvtec"), np.random.default_rng(0)
    for line in pairs._PUBLISHED.split("\n")[1:-1]:
        category, side, target, bad, good = line.split()
        for name in (f"test/{target}", f"test/{bad}", f"train/good/{good}"):
            pixels = np.zeros((int(side), int(side), 3), np.uint8) + np.uint8(rng.integers(256))
            if name == "test/good/007" and category == "grid":
                pixels = rng.integers(256, size=pixels.shape, dtype=np.uint8)
            save(root / category / f"{name}.png", pixels)
    return root


def test_the_published_eighteen_are_taken_by_name_in_their_order(eighteen):
    found = pairs.published(eighteen, size=16)
    assert [pair.category for pair in found[::2]] == [
        *("bottle", "carpet", "hazelnut", "capsule", "pill", "wood", "leather", "grid", "tile")
    ]
    assert found[5].names == (
        "hazelnut/test/good/035.png",
        "hazelnut/train/good/008.png",
        "hazelnut/test/print/008.png",
    )
    assert len({file for pair in found for file in pair.names}) == 54
    assert names(pairs.published(eighteen, 3, 16)) == names(found[:3])
    (row,) = [row for row in used.used() if row["name"] == "54 images"]
    assert row["private"] and "BY-NC-SA" in row["licence"]


def test_the_published_are_prepared_as_the_authors_code_does(eighteen):
    """Grey by .2989, .5870, .1140; then a triangle as wide as two pixels of the result."""
    target = pairs.published(eighteen, 16, 256)[15].target
    pixels = np.asarray(Image.open(eighteen / "grid/test/good/007.png")) / 255
    luma = pixels @ [0.2989, 0.5870, 0.1140]
    centres, places = 4 * np.arange(256) + 1.5, np.arange(1024)
    triangle = np.clip(1 - np.abs(places - centres[:, None]) / 4, 0, None)
    triangle /= triangle.sum(1, keepdims=True)
    np.testing.assert_allclose(target[0].numpy(), triangle @ luma @ triangle.T, atol=1e-6)


def test_a_folder_with_some_of_the_published_names_the_missing(eighteen, tmp_path):
    some = tmp_path / "some"
    for category in sorted(eighteen.iterdir())[:8]:
        (some / category.name).mkdir(parents=True)
        for part in category.iterdir():
            (some / category.name / part.name).symlink_to(part)
    with pytest.warns(UserWarning, match="some: 6 of the 54 files of the published pairs") as told:
        assert pairs.published(some) == []
    assert "wood/test/good/004.png" in str(told[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pairs.published(mvtec(tmp_path / "other", "bolt")) == []


def test_a_published_image_of_another_size_is_named(eighteen, tmp_path):
    for file in eighteen.rglob("*.png"):
        copy = tmp_path / file.relative_to(eighteen)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.symlink_to(file)
    place = tmp_path / "pill/test/good/024.png"
    place.unlink()
    save(place, np.zeros((700, 800, 3), np.uint8))
    with pytest.raises(ValueError, match=r"pill/test/good/024.png must have .* 800 x 800 pixels"):
        pairs.published(tmp_path)


TABLE1 = Path(os.environ.get("OTLIB_MVTEC", "none")) / "bottle/test/contamination/007.png"


@pytest.mark.skipif(not TABLE1.is_file(), reason="OTLIB_MVTEC does not hold the eighteen")
def test_interpolation_of_the_real_eighteen_has_the_measured_error():
    """29.63 dB by feasibility runs on another noise."""
    from companion.page import pictures
    from otlib import metrics, operators

    kernel, psnrs = operators.gaussian_kernel(16, 2.0), []
    for pair in pairs.published(TABLE1.parents[3]):
        random = torch.Generator().manual_seed(0)
        low = operators.gaussian_noise(operators.blur(pair.target, kernel, 4), 0.01, random)
        wide = pictures.enlarge(low, 4, 256, before=6)
        psnrs.append(metrics.psnr(wide, pair.target, border=6))
    assert np.mean(psnrs) == pytest.approx(29.63, abs=0.03)
