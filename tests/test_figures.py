"""The pages' figures and tables, and the jobs that run side by side."""

import base64
import csv
import html
import io
import itertools
import json
import re

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("agg")

from companion.page import figures
from companion.page.jobs import side_by_side


@pytest.fixture
def shown(monkeypatch):
    """A function: the data of the only output that a call displays."""
    outputs = []
    monkeypatch.setattr(figures, "display", lambda data, raw=False: outputs.append(data))

    def run(make):
        make()
        return outputs.pop()

    return run


def test_a_curve_is_the_same_svg_each_time(shown):
    def draw():
        series = {"one": [1, 2, 3], "many": np.arange(12).reshape(3, 4)}
        axis = figures.curves(series, [1, 10, 100], xlabel="x", ylabel="y", log=True)
        figures.show(axis.figure, "svg")

    first, second = shown(draw), shown(draw)
    assert first["image/svg+xml"].startswith("<?xml")
    assert first == second


def test_no_two_lines_look_alike():
    most = len(figures.COLOURS) ** 2
    names = [f"line {index}" for index in range(most)]
    looks = figures.looks(names)
    assert list(looks) == names
    assert len({tuple(look.values()) for look in looks.values()}) == most
    first = [looks[name] for name in names[:7]]
    assert len({look["color"] for look in first}) == len({look["marker"] for look in first}) == 7
    with pytest.raises(ValueError, match=f"^names must be at most {most}, got {most + 1}$"):
        figures.looks([*names, "one more"])


def drawn(figure, monkeypatch):
    """The figure as `show` leaves it, laid out."""
    monkeypatch.setattr(figures, "display", lambda data, raw=False: None)
    figures.show(figure, "svg")
    figure.draw_without_rendering()
    return figure


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("size", [(10, 3.2), (6.4, 2.5)])
def test_legends_are_off_the_curves_and_text_has_its_size_in_the_column(monkeypatch, same, size):
    series = [{"a": [1, 2], "a longer label": [2, 1]}, {"a": [1, 2]}]
    series[1]["a longer label" if same else "another"] = [3, 3]
    figure, axes = figures.row([(one, [1, 10], "x", "y") for one in series], size=size)
    axes[0].set_title("small", fontsize=6)
    drawn(figure, monkeypatch)
    assert figure.get_size_inches()[0] <= figures.WIDTH
    assert min(text.get_fontsize() for text in figure.findobj(matplotlib.text.Text)) >= 9
    legends = figure.legends or [axis.get_legend() for axis in axes]
    assert len(legends) == (1 if same else 2)
    labels = [[text.get_text() for text in legend.get_texts()] for legend in legends]
    assert labels == ([list(series[0])] if same else [list(one) for one in series])
    boxes = [legend.get_window_extent() for legend in legends]
    for box in boxes:
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0
        for axis in axes:
            names = [axis.xaxis.label, *axis.get_xticklabels()]
            assert not box.overlaps(axis.get_window_extent())
            assert not any(box.overlaps(name.get_window_extent()) for name in names)
    assert same or not boxes[0].overlaps(boxes[1])


def test_names_of_letters_become_letters_and_long_titles_get_lines(monkeypatch):
    title = "a title that is a good deal wider than its panel is, alpha = 2"
    figure, axes = figures.grid({0: title, 1: "short"}, columns=3)
    for axis in axes.values():
        axis.plot([1, 2], label="alphabet, rho = .3")
        axis.set(xlabel=r"lambda ($\rho$ fixed)", ylabel="eps")
        axis.legend()
    drawn(figure, monkeypatch)
    assert axes[0].get_xlabel() == r"λ ($\rho$ fixed)" and axes[0].get_ylabel() == "ε"
    assert figure.legends[0].get_texts()[0].get_text() == "alphabet, ρ = .3"
    assert axes[0].get_title().replace("\n", " ") == title.replace("alpha", "α")
    boxes = [axis.title.get_window_extent() for axis in axes.values()]
    assert boxes[0].width < figure.bbox.width / 3 and not boxes[0].overlaps(boxes[1])


def test_a_long_logarithmic_axis_has_no_small_exponents(monkeypatch):
    monkeypatch.setattr(figures, "display", lambda data, raw: None)
    monkeypatch.setattr(figures.plt, "close", lambda figure: None)
    labels = dict(xlabel="x", ylabel="y", log=True)
    axis = figures.curves({"a": np.ones(9)}, np.logspace(-9, 6, 9), **labels)
    figures.show(axis.figure, "svg")
    axis.figure.draw_without_rendering()
    texts = {label.get_text() for label in axis.get_xticklabels() if label.get_visible()}
    assert len(texts - {""}) >= 3
    assert all(re.fullmatch(r"|[01.]+|1e-?[1-9]\d*|10+", text) for text in texts)


def test_tick_labels_do_not_overlap_and_short_logarithmic_axes_have_plain_numbers(monkeypatch):
    monkeypatch.setattr(figures, "display", lambda data, raw: None)
    monkeypatch.setattr(figures.plt, "close", lambda figure: None)
    x = np.array([2e-4, 5e-4, 1e-3, 2e-3])
    figure, axes = figures.row(
        [({"a": x}, x, "lambda", "y"), ({"a": [4e-3, 9e-3]}, [4e-3, 3e-2], "x", "y")],
        size=(4, 2),
        log=True,
    )
    axes[1].set_xticks([4e-3, 5e-3, 6e-3, 1e-2, 2e-2, 3e-2], minor=True)
    axes[1].xaxis.set_minor_formatter(matplotlib.ticker.LogFormatterSciNotation())
    figures.show(figure, "svg")
    figure.draw_without_rendering()
    for axis in axes:
        labels = [*axis.get_xticklabels(), *axis.get_xticklabels(minor=True)]
        shown = [label for label in labels if label.get_visible() and label.get_text()]
        boxes = sorted(tuple(label.get_window_extent().intervalx) for label in shown)
        assert len(shown) >= 2 and all(a[1] <= b[0] for a, b in itertools.pairwise(boxes))
    assert {label.get_text() for label in shown} <= {
        "0.004",
        "0.005",
        "0.006",
        "0.01",
        "0.02",
        "0.03",
    }


def test_of_notes_at_nearly_the_same_point_the_first_is_kept(monkeypatch):
    figure, axis = matplotlib.pyplot.subplots()
    places = {"0": (0, 0), "1": (1, 1), "0.7": (1.001, 1)}
    notes = [axis.annotate(text, place) for text, place in places.items()]
    axis.set(xlim=(-1, 2), ylim=(-1, 2))
    drawn(figure, monkeypatch)
    assert [note.get_visible() for note in notes] == [True, True, False]


def test_panels_that_have_a_shape_keep_it(monkeypatch):
    figure, axes = matplotlib.pyplot.subplots(1, 2, figsize=(12, 6))
    axes[0].set_aspect("equal")
    assert drawn(figure, monkeypatch).get_size_inches() == pytest.approx(
        [figures.WIDTH, figures.WIDTH / 2]
    )


def test_a_legend_has_as_many_lines_as_it_needs(monkeypatch):
    series = {f"a method with a long name, {k}": [k, k] for k in range(7)}
    axis = figures.curves(series, [1, 2], xlabel="x", ylabel="y")
    before = axis.figure.get_size_inches()[1]
    figure = drawn(axis.figure, monkeypatch)
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width
    assert figure.get_size_inches()[1] > before
    # the curves keep their height but for a tenth
    assert axis.get_window_extent().height / figure.dpi > 0.9 * (before - 0.8)


def test_no_two_of_many_lines_look_alike():
    series = {f"{k}": [k, k] for k in range(21)}
    axis = figures.curves(series, [1, 2], xlabel="x", ylabel="y")
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in axis.lines}
    assert len(looks) == len(series)
    matplotlib.pyplot.close(axis.figure)


def test_marks_without_a_line_are_all_there():
    axis = figures.curves({"a": range(25)}, range(25), xlabel="x", ylabel="y", line=False)
    (marks,) = axis.lines
    assert marks.get_linestyle() == "None" and marks.get_markevery() is None
    assert marks.get_xydata().shape == (25, 2)


def test_a_row_has_a_plot_each_and_one_ordinate_where_shared():
    plots = [({"a": [1, 2]}, [1, 10], "x", "y"), ({"b": [30, 40]}, [2, 3], "u", "v")]
    figure, axes = figures.row(plots, size=(5, 2), log=True, sharey=True)
    assert [axis.get_xlabel() for axis in axes] == ["x", "u"] and axes[1].get_ylabel() == "v"
    assert axes[0].get_ylim() == axes[1].get_ylim() and axes[0].get_xscale() == "log"
    np.testing.assert_array_equal(axes[1].lines[0].get_xydata(), [[2, 30], [3, 40]])
    assert figure.get_size_inches().tolist() == [5, 2]


def test_a_grid_names_its_panels_and_hides_what_is_left():
    figure, axes = figures.grid({key: key.upper() for key in "abcd"}, columns=3)
    assert list(axes) == list("abcd") and axes["d"].get_title() == "D"
    assert [axis.axison for axis in figure.axes] == [True] * 4 + [False] * 2


def test_an_image_keeps_its_grey_levels(shown):
    ramp = torch.linspace(0, 1, 64).reshape(1, 8, 8)
    data = shown(lambda: figures.images({"ramp": ramp}, columns=1))["image/png"]
    pixels = matplotlib.pyplot.imread(io.BytesIO(data), format="png")[..., :3]
    grey = pixels[(pixels[..., 0] == pixels[..., 1]) & (pixels[..., 1] == pixels[..., 2])]
    for level in ramp.flatten().tolist():  # each is a square of many pixels, to 8 bits
        assert (np.abs(grey[:, 0] - level) <= 1 / 255).sum() > 500


def squares(data, panel, times):
    """Where a panel stands in a picture, at so many dots a pixel: ([left edges], [upper edges])."""
    dots = (255 * matplotlib.pyplot.imread(io.BytesIO(data), format="png")[..., 0]).round()
    whole = np.kron((255 * panel).round(), np.ones((times, times)))
    near = lambda one, other: np.abs(one - other) <= 1  # the library's own rounding
    high, wide = (n - m + 1 for n, m in zip(dots.shape, whole.shape, strict=True))
    hits = np.ones((max(high, 0), max(wide, 0)), bool)
    for row, column in itertools.product((0, len(whole) // 2, len(whole) - 1), repeat=2):
        hits &= near(dots[row : row + high, column : column + wide], whole[row, column])
    places = [
        (y, x)
        for y, x in np.argwhere(hits)
        if near(dots[y : y + len(whole), x : x + whole.shape[1]], whole).all()
    ]
    return [x for _, x in places], [y for y, _ in places]


@pytest.mark.parametrize(
    ("shape", "columns", "times"),
    [
        *[((100, 100), 3, 4), ((100, 100), 4, 2), ((128, 128), 5, 2), ((24, 24), 5, 10)],
        *[((192, 192), 4, 1), ((300, 300), 1, 1), ((37, 53), 5, 4), ((100, 236), 5, 1)],
    ],
)
def test_an_image_has_its_own_size_or_a_whole_multiple(shown, shape, columns, times):
    panel = np.random.default_rng(1).integers(0, 256, shape) / 255
    make = lambda: figures.images(dict.fromkeys("abcdef", panel), columns=columns)
    data = shown(make)["image/png"]
    left, top = squares(data, panel, times)  # two dots are a pixel of a page
    assert len(left) == 6 and len(set(top)) == -(-6 // columns)
    with figures.Image.open(io.BytesIO(data)) as whole:
        assert whole.info["dpi"][0] == pytest.approx(2 * figures.CSS, abs=0.01)
        assert whole.width / 2 <= figures.CSS * figures.WIDTH


def test_an_inset_shows_its_square_at_a_whole_multiple_and_a_place_may_stay_free(shown):
    panel = np.random.default_rng(1).integers(0, 256, (60, 60)) / 255
    panels = {"a": panel, "": None, "b": panel, "c": panel}
    data = shown(lambda: figures.images(panels, columns=2, zoom=(30, 4, 11)))["image/png"]
    inside = panel[31:40, 5:14]  # the frame covers the rim
    left, top = squares(data, inside, 2 * (4 * 60 // 2 // 11))
    assert len(left) == 3 and len(set(left)) == len(set(top)) == 2


def test_a_picture_has_a_card_without_words(shown):
    make = lambda: figures.images(dict.fromkeys(["words", "other words"], np.ones((50, 50))))
    card = base64.b64decode(shown(make)[figures.CARD])
    with figures.Image.open(io.BytesIO(card)) as small:
        assert small.width == 640 and small.height <= 320 and small.format == "WEBP"
        assert small.convert("L").getextrema()[0] > 250  # all white: no letter


def test_an_image_keeps_its_colours(shown):
    colours = torch.tensor([[1.2, 0.2, 0.0], [0.4, 0.8, 0.6]]).T[:, None].expand(3, 2, 2)
    data = shown(lambda: figures.images({"two": colours}, columns=1))["image/png"]
    pixels = matplotlib.pyplot.imread(io.BytesIO(data), format="png")[..., :3]
    for colour in colours[:, 0].clip(0, 1).T.numpy():
        assert (np.abs(pixels - colour).max(2) <= 1 / 255).sum() > 500


def test_an_unknown_kind_of_figure_is_refused():
    with pytest.raises(ValueError, match="kind must be 'svg' or 'png', got 'gif'"):
        figures.show(matplotlib.pyplot.figure(), "gif")


def test_a_table_is_markdown_with_two_decimals(shown):
    data = shown(lambda: figures.table(["name", "value"], [["a", 1.23456], ["b", 7]]))
    lines = data.data.splitlines()
    assert lines == ["| name | value |", "| --- | --- |", "| a | 1.23 |", "| b | 7 |"]
    data = shown(lambda: figures.table(["|x|"], [["a\nb"], [float("inf")], [np.float64(2)]]))
    assert data.data.splitlines() == ["| \\|x\\| |", "| --- |", "| a b |", "| ∞ |", "| 2.00 |"]


@pytest.mark.filterwarnings("error")
def test_a_curve_has_a_gap_where_a_value_is_infinite():
    names = {"xlabel": "x", "ylabel": "y"}
    axis = figures.curves({"a": [1.0, np.inf, 3.0], "b": [[1, np.inf]] * 3}, [0, 1, 2], **names)
    assert np.isnan(axis.lines[0].get_ydata()).tolist() == [False, True, False]
    assert np.isnan(axis.lines[1].get_ydata()).all()
    axis.figure.savefig(io.BytesIO(), format="svg")
    matplotlib.pyplot.close(axis.figure)


def test_jobs_keep_their_order_and_get_one_thread_each():
    before = torch.get_num_threads()
    found = side_by_side(lambda job: (job, torch.get_num_threads()), list(range(20)), "jobs")
    assert found == [(job, 1) for job in range(20)]
    assert torch.get_num_threads() == before


def test_a_failing_job_is_not_hidden():
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda job: 1 / job, [1, 0, 2], "jobs")
    assert torch.get_num_threads() == before


def test_jobs_that_count_their_steps_get_a_function_to_call():
    def work(job, tick):
        for _ in range(3):
            tick()
        return job * 2

    assert side_by_side(work, [1, 2, 3], "steps", steps=3) == [2, 4, 6]


def test_jobs_done_before_an_interruption_are_not_done_again(monkeypatch, tmp_path):
    monkeypatch.setenv("COMPANION_PARTS", str(tmp_path))
    calls = []

    def work(job):
        calls.append(job)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return {"image": torch.full((2, 2), job), "log": [job]}

    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        side_by_side(work, [1, 2, 3, 4], "Restorations, main")
    assert calls == [1, 2, 3, 4]
    results = side_by_side(work, [1, 2, 3, 4], "Restorations, main")
    assert calls == [1, 2, 3, 4, 4]
    assert [result["log"] for result in results] == [[1], [2], [3], [4]]
    assert torch.equal(results[0]["image"], torch.full((2, 2), 1))
    assert side_by_side(lambda job: job, [7], "another label") == [7]  # labels keep apart


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "another's"])
def test_a_damaged_part_is_computed_anew(monkeypatch, tmp_path, damage):
    monkeypatch.setenv("COMPANION_PARTS", str(tmp_path))
    calls = []

    def work(job):
        calls.append(job)
        return 2 * job

    side_by_side(work, [1, 2, 3], "jobs")
    first, second, _ = sorted(tmp_path.iterdir())
    data = first.read_bytes()
    damaged = {"empty": b"", "cut": data[:-1], "flipped": data[:-2] + b"!" + data[-1:]}
    first.write_bytes({**damaged, "another's": second.read_bytes()}[damage])
    assert side_by_side(work, [1, 2, 3], "jobs") == [2, 4, 6]
    assert sorted(calls) == [1, 1, 2, 3]
    assert side_by_side(work, [1, 2, 3], "jobs") == [2, 4, 6]  # it was kept again
    assert len(calls) == 4


def test_labels_of_other_letters_are_other_jobs(monkeypatch, tmp_path):
    monkeypatch.setenv("COMPANION_PARTS", str(tmp_path))
    assert side_by_side(lambda job: job, [1], "ρ = 1") == [1]
    assert side_by_side(lambda job: -job, [1], "λ = 1") == [-1]


def test_the_slider_holds_both_images_unchanged(shown):
    grey = np.arange(12).reshape(3, 4) / 255
    page = shown(lambda: figures.compare({"ours <1>": grey, "theirs": torch.ones(1, 3, 4)}))
    below, above = re.findall(r'base64,([^"]+)" alt="([^"]+)"', page["text/html"])
    assert (below[1], above[1]) == ("theirs", "ours &lt;1&gt;")
    back = matplotlib.image.imread(io.BytesIO(base64.b64decode(above[0])))
    np.testing.assert_allclose(back, grey, atol=1e-7)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_alpha_slider_holds_both_ends_and_every_stop(shown, channels):
    ends = np.random.default_rng(0).integers(0, 256, (2, channels, 5, 4)) / 255
    captions = {alpha / 10: f"alpha {alpha / 10} <dB>" for alpha in range(-10, 21)}
    page = shown(lambda: figures.along(*ends, captions, label='"x"'))["text/html"]
    one, zero = re.findall(r'base64,([^"]+)" alt="&quot;x&quot;, alpha = [10]"', page)
    for data, end in ((zero, ends[0]), (one, ends[1])):
        back = matplotlib.image.imread(io.BytesIO(base64.b64decode(data)))
        expected = end[0] if channels == 1 else np.moveaxis(end, 0, -1)
        np.testing.assert_allclose(back, expected, atol=1e-7)
    stops = json.loads(html.unescape(re.search('data-stops="([^"]+)"', page)[1]))
    assert stops == [[alpha, captions[alpha]] for alpha in sorted(captions)]
    start = int(re.search(' value="([0-9]+)"', page)[1])
    assert stops[start][0] == 0  # what is seen before the slider is moved
    assert page.count("<p>alpha 0.0 &lt;dB&gt;</p>") == 1
    assert 'width="4" height="5"' in page


def test_the_table_to_download_is_the_table(shown):
    rows = [["a, b", 1 / 3], ['say "c"', 2]]
    page = shown(lambda: figures.download("x.csv", ["name", "value"], rows))
    data = base64.b64decode(re.search('base64,([^"]+)"', page["text/html"])[1]).decode()
    assert list(csv.reader(io.StringIO(data))) == [
        ["name", "value"],
        *([name, str(value)] for name, value in rows),
    ]
