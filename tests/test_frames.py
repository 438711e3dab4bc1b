"""Frames made before, for the script that shows one of them."""

import base64
import html
import io
import json
import re

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("agg")

import matplotlib.pyplot as plt
from PIL import Image

from companion.page import frames

KEYS = [(name, step) for name in ("a", "b<") for step in (0.5, 1.0)]
WORDS = {key: f"{key[0]} & {key[1]}" for key in KEYS}


@pytest.fixture
def shown(monkeypatch):
    """A function: the fragment and the data in it of a call of `show`, with what is changed."""
    found = []
    monkeypatch.setattr(frames, "display", lambda data, raw=False: found.append(data["text/html"]))

    def run(panels, words=WORDS, controls=("name", "step"), start=("b<", 0.5)):
        frames.show(words, panels, controls=controls, start=start, label='"x"')
        page = found.pop()
        return page, json.loads(re.search(r"<script[^>]*>(.*)</script>", page, re.DOTALL)[1])

    return run


def pixels(source):
    kind, data = source.split(";base64,")
    assert kind == "data:image/webp"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.mark.parametrize("channels", [1, 3])
def test_each_frame_holds_its_image_without_loss_and_the_same_one_once(shown, channels):
    levels = np.random.default_rng(0).integers(0, 256, (3, channels, 7, 9))
    images = dict(zip(KEYS, torch.tensor(levels[[0, 1, 2, 1]] / 255), strict=True))
    page, film = shown({"one": frames.pictures(images, scale=3)})
    assert len(film["sources"]) == 3
    for key, frame in zip(KEYS, film["frames"], strict=True):
        assert frame["key"] == [key[0], f"{key[1]:g}"] and frame["told"] == WORDS[key]
        back = pixels(film["sources"][frame["shown"][0]])
        expected = np.broadcast_to((255 * images[key]).round().movedim(0, -1), back.shape)
        np.testing.assert_array_equal(back, expected)
    assert "width: 27px" in page


def test_before_a_script_runs_the_first_frame_is_there_in_words_too(shown):
    images = {key: np.full((2, 2), place / 4) for place, key in enumerate(KEYS)}
    page, film = shown({"<p>": frames.pictures(images)})
    before = page.partition("<script")[0]
    source, alt = re.search('<img src="([^"]+)" alt="([^"]+)"', before).groups()
    assert html.unescape(alt) == "<p>: b< & 0.5"
    assert source == film["sources"][film["frames"][2]["shown"][0]]
    assert "<option selected>b&lt;</option>" in before and 'class="controls" hidden' in before
    assert 'data-start="2"' in before and 'aria-label="&quot;x&quot;"' in before
    assert page.count("</script>") == 1  # whatever the words hold
    hostile = {key: "</script>" for key in KEYS}
    page, film = shown({"one": frames.pictures(images)}, hostile)
    assert page.count("</script>") == 1 and film["frames"][0]["told"] == "</script>"


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_a_mark_lies_where_the_plot_has_its_point(shown, scale):
    figure, axis = plt.subplots(figsize=(4, 2))
    axis.plot([1, 10, 100], [1, 2, 3], gid="curve", marker="")
    axis.set(xscale=scale, xlabel="x", ylabel="y")
    places = [(1, 1), (10, 2), (100, 3), (1, 1)]
    points = {key: [place] for key, place in zip(KEYS, places, strict=True)}
    page, film = shown({"plot": frames.plot(dict.fromkeys(KEYS, axis), points, size=5)})
    (source,) = film["sources"]
    drawing = base64.b64decode(source.partition("base64,")[2]).decode()
    width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawing).groups())
    curve = re.search(r'id="curve">\s*<path d="([^"]+)"', drawing)[1]
    drawn = np.array(re.findall(r"[ML] ([\d.]+) ([\d.]+)", curve), dtype=float)
    marks = np.array([frame["marks"][0] for frame in film["frames"][:3]])
    np.testing.assert_allclose(marks * width / 1000, drawn, atol=width / 1000)
    assert 'viewBox="0 0 1000 500"' in page and height / width == pytest.approx(0.5)
    assert not plt.fignum_exists(figure.number)


def test_what_does_not_fit_together_is_refused(shown):
    images = {key: np.zeros((2, 2)) for key in KEYS}
    panels = {"one": frames.pictures(images)}
    with pytest.raises(ValueError, match=r"a key needs 1 items, \('step',\), got \('a', 0.5\)"):
        shown(panels, controls=("step",))
    with pytest.raises(ValueError, match=r"start must be one of the frames, got \('c', 1\)"):
        shown(panels, start=("c", 1))
    with pytest.raises(ValueError, match=r"panel 'one' lacks the frame \('b<', 1.0\)"):
        shown({"one": frames.pictures({key: images[key] for key in KEYS[:3]})})
    crossed = {("a", "x", 1): "", ("b", "y", 1): ""}
    with pytest.raises(ValueError, match="each choice needs a frame with each other, got"):
        shown(panels, crossed, ("one", "other", "step"), ("a", "x", 1))
    axis = plt.subplots()[1]
    with pytest.raises(ValueError, match=r"marks must be as many in each frame, got \[1, 2\]"):
        frames.plot({1: axis, 2: axis}, {1: [(0, 0)], 2: [(0, 0), (1, 1)]}, size=5)
    plt.close(axis.figure)


def test_a_wipe_holds_each_picture_and_shows_two(monkeypatch):
    found = []
    monkeypatch.setattr(frames, "display", lambda data, raw=False: found.append(data["text/html"]))
    levels = np.random.default_rng(0).integers(0, 256, (3, 5, 4))
    images = dict(zip(("a", "b", "<c>"), levels / 255, strict=True))
    frames.wipe(images, left="a", right="<c>", scale=3)
    (page,) = found
    sources = json.loads(re.search(r"<script[^>]*>(.*)</script>", page, re.DOTALL)[1])
    for title, expected in zip(images, levels, strict=True):
        np.testing.assert_array_equal(pixels(sources[title])[..., 0], expected)
    shown = re.findall('<img src="([^"]+)" alt="([^"]+)"', page)
    assert shown == [(sources["<c>"], "&lt;c&gt;"), (sources["a"], "a")]
    assert "max-width: 12px" in page and 'class="controls" hidden' in page
    with pytest.raises(ValueError, match=r"left and right must be titles, .*, got \['d'\]"):
        frames.wipe(images, left="a", right="d")
    with pytest.raises(ValueError, match="images must have one shape, got"):
        frames.wipe(images | {"e": levels[0, :2]}, left="a", right="b")


# ---- a loupe


def views(*shapes):
    """Images of two titles for each key, of these shapes."""
    random = np.random.default_rng(1)
    return {
        (f"k{place}",): {title: random.random((3, *shape)) for title in ("one<", "two")}
        for place, shape in enumerate(shapes)
    }


def test_a_loupe_holds_each_image_once_and_shows_the_first_with_a_square_in_the_middle(monkeypatch):
    found, images = [], views((8, 8), (6, 9))
    images["k1",]["two"] = images["k1",]["one<"]  # the same image
    monkeypatch.setattr(frames, "display", lambda data, raw: found.append(data["text/html"]))
    frames.loupe(images, controls=["key"], start=("k1",), label='"x"', side=5)
    (page,) = found
    film = json.loads(re.search(r"<script[^>]*>(.*)</script>", page, re.DOTALL)[1])
    assert [view["shape"] for view in film["views"]] == [[8, 8], [6, 9]]
    assert [view["shown"] for view in film["views"]] == [[0, 1], [2, 2]]
    for view, panels in zip(film["views"], images.values(), strict=True):
        for number, panel in zip(view["shown"], panels.values(), strict=True):
            back = pixels(film["sources"][number])
            np.testing.assert_array_equal(back, np.moveaxis((255 * panel).round(), 0, -1))
    for part in ('<img src="{}"', '<image href="{}" width="9" height="6"/>'):  # whole, magnified
        assert page.count(part.format(film["sources"][2])) == 2
    assert page.count('viewBox="2.0 0.5 5 5"') == 2
    assert "--side: 5; --height: 6; --width: 9; --across: 0.5; --down: 0.5" in page
    assert 'aria-label="&quot;x&quot;"' in page and "one&lt;" in page


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"start": ("k2",)}, "start must be one of the keys"),
        ({"side": 7}, "side must be at most 6, got 7"),
        ({"images": {**views((8, 8)), ("k1",): {"one<": np.zeros((8, 8))}}}, "have one shape"),
        (
            {"images": {("k0",): {"one<": np.zeros((8, 8)), "two": np.zeros((8, 9))}}},
            "have one shape",
        ),
    ],
)
def test_a_loupe_names_what_does_not_fit(changed, message):
    asked = {"images": views((8, 8), (6, 9)), "start": ("k0",), "side": 5} | changed
    with pytest.raises(ValueError, match=message):
        frames.loupe(asked.pop("images"), controls=["key"], label="x", **asked)
