import json
import math
import os
import shutil
from contextlib import contextmanager
from xml.etree import ElementTree

import numpy as np
import pytest
from playwright.sync_api import sync_playwright
from scipy import stats

from companion import report, results
from companion.cli import main
from companion.compare import ALARM, compare, differences, of_same_setting, text, titles
from companion.errors import UsageError
from companion.pdf import BROWSERS
from companion.run import run

FACTS = {
    "commit": None,
    "dirty": None,
    "code": {"otlib/a.py": "ab"},
    "date": "2024-01-31T10:00:00+00:00",
    "wall_seconds": 1.5,
    "seed": 0,
    "device": "a processor",
}
SHAPE = (
    "<svg xmlns='http://www.w3.org/2000/svg' width='900' height='300'>"
    "<rect width='900' height='300'/></svg>"
)


def result(records, seed=0, notebook="toy", profile="smoke", better="", code="ab", **more):
    """The content of a NAME.json."""
    return {
        "notebook": notebook,
        "profile": profile,
        "parameters": {"seed": seed, "eps": 0.1, "device": "cpu", **more},
        "records": {
            name: {"value": value, "unit": "dB", "better": better}
            for name, value in records.items()
        },
        "provenance": {**FACTS, "seed": seed, "code": {"otlib/a.py": code}},
        "key": "k",
    }


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def side(folder, values, name="x", **more):
    """A Setting whose runs hold one value each of a record."""
    for seed, value in enumerate(values):
        write(folder / f"{seed}/toy.json", result({name: value}, seed, **more))
    (found,) = results.settings(folder)
    return found


def command(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return caught.value.code, out.splitlines(), err.splitlines()


# ---- reading


def test_runs_are_read_from_files_folders_and_sweeps(tmp_path):
    one = write(tmp_path / "a/points/k1/toy.json", result({"x": 1}, 1))
    write(tmp_path / "a/points/k0/toy.json", result({"x": 0}, 0))
    write(tmp_path / "a/points/k2/toy.json", result({"x": 2}, 0, eps=0.2))
    entries = [{"key": key, "status": "done"} for key in ("k1", "k0")]
    write(tmp_path / "a/sweep.json", {"points": [*entries, {"key": "k2", "status": "failed"}]})
    write(tmp_path / "a/.toy-1-x/toy.json", result({"x": 9}, 9))  # being written
    assert [run["records"]["x"]["value"] for run in results.read(tmp_path)] == [0, 1, 2]
    assert results.read(one)[0]["path"] == str(one)
    first, second = results.settings(tmp_path)
    assert (first.seeds, second.seeds) == ([0, 1], [0])
    assert titles([first, second]) == ["A: eps = 0.1", "B: eps = 0.2"]
    # k2 is of an earlier call of the sweep
    assert [run["records"]["x"]["value"] for run in results.read(tmp_path / "a")] == [1, 0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing"),
        ('{"notebook": "to', "is damaged: not JSON, or cut off"),
        ("[1]", "is not the NAME.json of a finished run"),
        (json.dumps({**result({}), "notebook_sha256": "0"}), "does not belong to toy.ipynb"),
        (json.dumps({**result({}), "records": []}), "is no result of a run: records"),
        (json.dumps({**result({}), "records": {"x": 1}}), "is no result of a run: records.x"),
        (json.dumps({**result({}), "provenance": {}}), "is no result of a run: provenance.code"),
        (json.dumps({**result({}), "notebook": 3}), "is no result of a run: notebook"),
        (json.dumps(result({"x": math.nan})), "is no result of a run: records.x"),
    ],
)
def test_what_is_no_whole_run_is_refused(tmp_path, content, message):
    (tmp_path / "toy.ipynb").write_text("{}")
    if content is not None:
        (tmp_path / "toy.json").write_text(content)
    with pytest.raises(UsageError, match=message):
        results.read(tmp_path / "toy.json")


@pytest.mark.parametrize("text", ["", "[]", '{"points": 3}', '{"points": [{"key": "k"}]}'])
def test_a_damaged_list_of_a_sweep_is_named(tmp_path, text):
    write(tmp_path / "points/k/toy.json", result({"x": 1}))
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(UsageError, match=r"sweep\.json is damaged, or not of a sweep"):
        results.read(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cells": 3}'])
def test_a_damaged_notebook_beside_a_run_is_named(tmp_path, text):
    (run,) = results.read(write(tmp_path / "toy.json", result({"x": 1})))
    (tmp_path / "toy.ipynb").write_text(text)
    with pytest.raises(UsageError, match=r"toy\.ipynb is damaged: no notebook"):
        results.pictures(run)


def test_a_folder_without_runs_and_one_run_twice_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"holds no NAME\.json"):
        results.read(tmp_path)
    write(tmp_path / "a/toy.json", result({"x": 1}))
    write(tmp_path / "b/toy.json", result({"x": 2}))
    with pytest.raises(UsageError, match=r"a/toy.json and .*b/toy.json are runs of toy with the"):
        results.settings(tmp_path)
    write(tmp_path / "b/toy.json", result({"x": 2}, code="cd"))  # other code
    assert len(results.settings(tmp_path)) == 2


# ---- the rule


@pytest.mark.parametrize("shift", [0.0, 0.5, 3.0, 30.0])
def test_the_rule_is_student_s_test_at_a_hundredth_over_all_records(tmp_path, shift):
    draw = np.random.default_rng(0)
    a, b = draw.normal(5, 1, 6), draw.normal(5 + shift, 1, 4)
    (item,) = differences(side(tmp_path / "a", a.tolist()), side(tmp_path / "b", b.tolist()))
    test = stats.ttest_ind(a, b, equal_var=True)
    assert item.change == pytest.approx(b.mean() - a.mean())
    assert item.spread == pytest.approx(a.std(ddof=1))
    half = test.confidence_interval(1 - ALARM)
    assert item.tolerance == pytest.approx((half.high - half.low) / 2)
    assert (item.verdict == "same") == (test.pvalue >= ALARM)


def test_a_run_on_trial_does_not_widen_its_own_tolerance(tmp_path):
    reference = side(tmp_path / "a", [1.0, 2.0, 3.0])
    wild = side(tmp_path / "b", [-90.0, 100.0])
    (pooled,) = differences(reference, wild)
    (alone,) = differences(reference, wild, pooled=False)
    quantile = stats.t.ppf(1 - ALARM / 2, 2)
    assert alone.tolerance == pytest.approx(quantile * math.sqrt(1 / 3 + 1 / 2))
    assert pooled.tolerance > 10 * alone.tolerance


def test_seeds_alone_seldom_raise_an_alarm_and_a_shift_does(tmp_path):
    draw, alarms, found = np.random.default_rng(1), 0, 0
    runs = lambda path, table: results.Setting(
        path, "toy", "smoke", {}, "", tuple(
            result({f"r{k}": float(x) for k, x in enumerate(row)}, seed)
            for seed, row in enumerate(table)
        )
    )  # fmt: skip
    for _ in range(300):
        table = draw.normal(0, 1, (9, 12))
        reference, one = runs("a", table[:8]), runs("b", table[8:])
        verdicts = [item.verdict for item in differences(reference, one, pooled=False)]
        alarms += any(verdict != "same" for verdict in verdicts)
        shifted = runs("b", table[8:] + 12 * np.eye(12)[3])
        found += differences(reference, shifted, pooled=False)[3].verdict == "differs"
    # 3 expected; more than 10 in 300 at a rate of ALARM has probability 3e-4
    assert alarms <= 10
    assert stats.binom.sf(10, 300, ALARM) < 1e-3
    assert found >= 290


@pytest.mark.parametrize(
    ("ours", "theirs", "better", "verdict"),
    [
        ([30.0], [30.05], "", "same"),  # no spread: rounding is allowed
        ([30.0], [30.07], "", "differs"),
        ([30.0], [30.07], "higher", "better"),
        ([30.0], [30.07], "lower", "worse"),
        ([1e-15], [5e-15], "lower", "same"),
        ([2.0, 2.0], [2.001], "", "same"),
        ([7], [7], "", "same"),
        ([7], [8], "higher", "differs"),
        ([7, 9], [8], "", "same"),  # a count that the seed changes
        ([True], [True], "", "same"),
        ([True], [False], "", "differs"),
        ([True], [1], "", "differs"),
        (["elpv", "mvtec"], ["mvtec"], "", "same"),
        (["elpv"], ["mvtec"], "", "differs"),
        (["elpv"], [1.0], "", "differs"),
        ([math.inf], [math.inf], "", "same"),
        ([math.inf, 30.0], [30.0 * (1 + 1e-6)], "", "same"),  # rounding of another machine
        ([math.inf, 30.0], [31.0], "", "differs"),
        ([math.inf, 30.0], [math.inf], "", "same"),
        ([30.0], [math.inf], "higher", "better"),
        ([math.inf], [30.0], "higher", "worse"),
        ([-math.inf], [30.0], "lower", "worse"),
        ([math.inf], [30.0], "", "differs"),
        ([math.inf], [-math.inf], "", "differs"),
    ],
)
def test_each_kind_of_record(tmp_path, ours, theirs, better, verdict):
    sides = [
        side(tmp_path / name, values, better=better)
        for name, values in (("a", ours), ("b", theirs))
    ]
    assert differences(*sides)[0].verdict == verdict


def test_an_infinite_value_keeps_its_unit():
    assert text([math.inf], "dB") == "∞ dB"
    assert text([30.0, -math.inf], "dB") == "30, −∞ dB"
    assert text([True, math.inf], "dB") == "true, ∞"


def test_a_record_of_one_side_is_missing_in_the_other(tmp_path):
    sides = side(tmp_path / "a", [1.0]), side(tmp_path / "b", [1.0], name="y")
    assert {item.name: item.verdict for item in differences(*sides)} == {
        "x": "missing",
        "y": "missing",
    }


def test_a_reference_must_be_of_the_same_parameters(tmp_path):
    here = write(tmp_path / "here/toy.json", result({"x": 1}, 7, device="cuda"))
    (on_trial,) = results.read(here)
    reference = side(tmp_path / "a", [1.0, 2.0])
    assert of_same_setting(on_trial, [reference]) == reference  # seed and device may differ
    other = side(tmp_path / "b", [1.0], eps=0.2, profile="laptop")
    with pytest.raises(UsageError, match=r"'smoke', reference 'laptop'; eps 0\.1, reference"):
        of_same_setting(on_trial, [other])
    (on_trial,) = results.read(write(tmp_path / "c/toz.json", result({}, notebook="toz")))
    with pytest.raises(UsageError, match="no run of toz; it has: toy"):
        of_same_setting(on_trial, [reference])


# ---- the commands

DRAWS = """\
import random
from IPython.display import display
from companion.page.record import record
random.seed(seed)
record("draw", random.gauss(0, 1), unit="dB", better="higher")
record("eps", eps, better="lower")
"""
FIGURE = f"""\
```{{code-cell}} ipython3
---
mystnb:
  figure: {{name: fig-a, caption: "A black box & <b>"}}
  image: {{alt: a box}}
---
display({{"image/svg+xml": "{SHAPE}"}}, raw=True)
```
"""


@pytest.fixture
def runs(project):
    """Two settings of two seeds each, whole runs with figures."""
    project.notebook("toy", DRAWS, FIGURE)
    for folder, eps in (("a", 2e-4), ("b", 1e-3)):
        for seed in range(2):
            made = run("toy", {"seed": seed, "eps": eps})
            shutil.copytree(made, project.root / folder / str(seed))
    return project


@contextmanager
def browser_page(path, **look):
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop("no Chromium is installed")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=flags)
        page = browser.new_context(**look).new_page()
        page.seen, page.errors = [], []
        page.on("request", lambda request: page.seen.append(request.url))
        page.on("console", lambda line: page.errors.append(line.text))
        page.goto(path.as_uri())
        yield page
        browser.close()


def test_compare_and_check_for_real(runs, capsys):
    root = runs.root
    code, out, err = command(capsys, "compare", "a", "b")
    assert (code, err) == (0, [])
    assert out[0].startswith("toy  A: eps = 0.0002  (seeds 0, 1)")
    assert "1 of 2 records differ" in out[2]
    assert out[3].split()[0] == "eps"
    assert out[3].endswith("worse")
    assert out[-1] == "comparison.html"
    page = (root / "comparison.html").read_text()
    assert "<b>" not in page  # what a notebook says is text
    assert "&lt;b&gt;" in page

    phone = {"viewport": {"width": 390, "height": 800}, "color_scheme": "dark"}
    with browser_page(root / "comparison.html", **phone) as shown:
        assert shown.evaluate("document.documentElement.scrollWidth") <= 390
        assert [url for url in shown.seen if not url.startswith(("file:", "data:"))] == []
        assert shown.errors == []
        images = shown.locator("img").evaluate_all(
            "images => images.map(e => [e.naturalWidth > 0, e.alt])"
        )
        assert images == [[True, "a box"], [True, "a box"]]
        ground = "getComputedStyle(document.body).backgroundColor"
        assert shown.evaluate(ground) == "rgb(22, 24, 27)"
        shown.keyboard.press("Tab")
        assert shown.evaluate("document.activeElement.getAttribute('href')") == "#main"
        shown.keyboard.press("Tab")
        shown.keyboard.press("Space")  # only what differs
        rows = shown.locator("tr", has=shown.locator("th", has_text="draw"))
        assert not rows.first.is_visible()
        assert shown.locator("tr", has=shown.locator("th", has_text="eps")).last.is_visible()
        shown.keyboard.press("Tab")  # a table that scrolls can be scrolled by keys
        assert shown.evaluate("document.activeElement.getAttribute('role')") == "region"

    reports = ("--junit", "report/junit.xml", "--html", "report/index.html")
    code, out, err = command(capsys, "check", "a/0", "a/1/toy.json", "--reference", "a", *reports)
    assert (code, err) == (0, [])
    suites = ElementTree.parse(root / "report/junit.xml").getroot()
    assert suites.attrib["tests"] == "6"
    assert suites.attrib["failures"] == "0"
    assert len(suites.findall("testsuite")) == 4
    assert "6 checked: 6 passed, 0 failed, 0 skipped" in (root / "report/index.html").read_text()

    code, out, err = command(capsys, "check", "b/0")
    assert code == 0
    assert err == ["b/0/toy.json: eps is 0.001, not 0.0002; the claims are stated for the profile"]

    # a run whose record left the interval of the seeds, and a claim that no longer holds
    moved = json.loads((root / "a/0/toy.json").read_text())
    moved["records"]["draw"]["value"] -= 1000
    moved["records"]["eps"]["value"] = 0.5
    write(root / "moved/toy.json", moved)
    code, out, _ = command(capsys, "check", "moved", "--reference", "a", *reports)
    assert code == 1
    suites = ElementTree.parse(root / "report/junit.xml").getroot()
    failures = [case.attrib for case in suites.iter("testcase") if case.find("failure") is not None]
    assert [(case["classname"], case["name"]) for case in failures] == [
        ("claims.toy", "toy-eps"),
        ("records.toy", "draw"),
        ("records.toy", "eps"),
    ]
    assert suites.attrib["failures"] == "3"
    code, out, _ = command(capsys, "check", "a/0")  # without a reference: the claims alone
    assert (code, len(out)) == (0, 2)
    write(root / "a/0/toy.json", moved)  # one digit of a JSON beside its notebook
    code, out, err = command(capsys, "check", "a/0")
    assert (code, out, len(err)) == (2, [], 1)
    assert "a/0/toy.json does not belong to toy.ipynb beside it: one was changed" in err[0]


def test_check_skips_what_the_book_says_differs(project, capsys):
    claims = [
        {"status": "differs", "explanation": "a larger eps", "cause": ["eps"]},
        {"profiles": ["smoke"]},
    ]
    project.claims({"id": "a", "at_most": 1e-9, **claims[0]}, {"id": "b", **claims[1]})
    folder = run("toy")
    code, _, _ = command(capsys, "check", folder, "--junit", "junit.xml")
    assert code == 0
    suites = ElementTree.parse(project.root / "junit.xml").getroot()
    skipped = [case.find("skipped").attrib["message"] for case in suites.iter("testcase")]
    assert skipped == [
        "differs: found 0.0002, expected ≤ 1e-09",
        "not run: found nothing, expected ≤ 0.01",
    ]
    (suite,) = suites.findall("testsuite")
    told = {entry.get("name"): entry.get("value") for entry in suite.iter("property")}
    assert told["profile"] == "laptop"
    assert len(told["code"]) == 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "one.json"], "nothing to compare: one.json hold one setting of toy; give two"),
        (["compare"], "Missing argument 'RUNS...'"),
        (["compare", "gone", "one.json"], "gone is missing"),
        (["compare", "one.json", "one.json", "--out", "."], "'.' is a directory"),
        (["check", "gone.json"], "gone.json is missing"),
        (["check", "other.json"], "unknown notebook in other.json 'toz': did you mean 'toy'?"),
        (["check", "one.json", "--profile", "smoke"], "--profile is for the book's own runs"),
        (["check", "one.json", "--reference", "book"], "book holds no NAME.json"),
        (["check", "one.json", "--junit", "book"], "'book' is a directory"),
    ],
)
def test_wrong_use_is_one_line_and_writes_nothing(project, capsys, arguments, message):
    write(project.root / "one.json", result({"x": 1}))
    write(project.root / "other.json", result({"x": 1}, notebook="toz"))
    before = sorted(project.root.rglob("*"))
    code, out, err = command(capsys, *arguments)
    assert (code, out, len(err)) == (2, [], 1)
    assert message in err[0]
    assert sorted(project.root.rglob("*")) == before


def test_three_settings_and_a_notebook_alone_stand_on_the_page(tmp_path):
    for name, eps in (("a", 0.1), ("b", 0.2), ("c", 0.3)):
        write(tmp_path / name / "toy.json", result({"x": eps}, eps=eps))
    write(tmp_path / "a/toz.json", result({"x": 1.0}, notebook="toz"))
    found = compare([tmp_path / name for name in "abc"])
    page = report.comparison_page(found)
    assert page.count("− A</th>") == 2
    assert "there is nothing to compare it with" in page
    assert f"toz: one setting only, {tmp_path / 'a'}" in report.lines(found)
