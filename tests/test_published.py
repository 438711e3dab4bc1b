"""What the documents print stands once, in book/published/, and all that names it finds it."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from companion import claims
from companion.errors import UsageError
from companion.notebooks import names
from companion.page.published import cell, leaves, published, shown

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(path.stem for path in (ROOT / "book/published").glob("*.yml"))
NUMBER = re.compile(r"(?<![\w.])\d+\.\d+(?![\w.])")
TOY = """\
columns: {mse: {decimals: 4}, psnr: {unit: dB, decimals: 2}}
fit: {0.0: {mse: 0.0414, psnr: 30.5}, -0.7: {mse: 0.1, psnr: 30.08}, steps: 150}
"""


def tabulated(document):
    """The numbers of a document's tables as it prints them, where no other looks like them."""
    numbers = published(document)
    columns = numbers["columns"]
    for path, value in leaves(numbers):
        places = columns.get(path[-1], {}).get("decimals", 0)
        if places > 2 or (places == 2 and value >= 10):
            yield f"{value:.{places}f}"


def test_each_document_of_the_claims_has_its_numbers():
    assert {path.stem for path in (ROOT / "book/claims").glob("*.yml")} == set(DOCUMENTS)
    keys = re.findall(r"^@\w+\{(\w+),", (ROOT / "book/references.bib").read_text(), re.MULTILINE)
    assert set(DOCUMENTS) <= set(keys)


def test_table_1_of_adrai_has_its_158_numbers():
    table = published("adrai2023")["table1"]
    found = list(leaves(table))
    assert len(found) == 158
    assert all(isinstance(value, float) for _, value in found)
    columns = ["psnr", "ssim", "lpips", "fid", "is", "kid"]
    lines = {}
    for path, _ in found:
        lines.setdefault(path[:-1], []).append(path[-1])
    # the copy lacks cells at the ends of lines
    assert all(line == columns[: len(line)] for line in lines.values())
    models = {path[0] for path, _ in found} - {"round_trip"}
    assert models == set(published("adrai2023")["models"])


def test_table_i_of_mignon_has_its_12_numbers():
    found = dict(leaves(published("mignon2023")["table1"]))
    assert len(found) == 12
    assert {path[0] for path in found} == {"wpp", "balanced", "semi"}
    assert {path[1:] for path in found} == {
        (side, kind) for side in ("clean", "defect") for kind in ("psnr", "lpips")
    }


def test_the_slides_values_agree_with_each_other_at_peak_255():
    slides = published("slides2025")
    shown_on = [slides["restored"], *slides["paired"].values(), *slides["unpaired"].values()]
    assert len(shown_on) == 11
    for at in shown_on:
        ends = [20 * math.log10(255) - 10 * math.log10(at["mse"] + r) for r in (5e-5, -5e-5)]
        assert ends[0] - 0.005 <= at["psnr"] <= ends[1] + 0.005
    assert set(slides["unpaired"]) <= set(slides["paired"]) <= set(slides["experiment"]["alphas"])


def test_what_claims_say_of_table_1_in_words_is_what_it_holds():
    table = published("adrai2023")["table1"]
    rows = [row for name, row in table.items() if name != "round_trip"]
    said = {claim.id: claim.published for claim in claims.load_claims(ROOT).claims}
    change = lambda kind, sign: [
        round(sign * (row["restored"][kind] - row["transported"][kind]), 2) for row in rows
    ]
    falls = change("psnr", 1)
    numbers = [float(text) for text in NUMBER.findall(said["adrai-fig1-error-falls"])]
    assert numbers == [round(min(falls), 1), round(max(falls), 1)]
    assert NUMBER.findall(said["adrai-table1-lpips-kept"]) == [str(max(change("lpips", -1)))]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_claim_types_a_number_that_is_published_as_data(document):
    for entry in yaml.safe_load((ROOT / f"book/claims/{document}.yml").read_text())["claims"]:
        if isinstance(entry["published"], dict):
            assert "value" not in entry.get("near", {})
            continue
        typed = set(NUMBER.findall(f"{entry['published']} {entry.get('near', {}).get('value')}"))
        assert not typed & set(tabulated(document)), entry["id"]


@pytest.mark.parametrize("name", names(ROOT))
def test_no_page_types_a_number_of_a_published_table(name):
    typed = set(NUMBER.findall((ROOT / f"notebooks/{name}.md").read_text()))
    assert not typed & {text for document in DOCUMENTS for text in tabulated(document)}


# in prose: a level, a place in a document, what is the reader's to choose
_ALLOWED = re.compile(
    r"\b(?:9[059]|0\.2) %|(?:[Ss]ection|sec\.|App\.) [A-Z]?\.?\d+\.\d+|\b\d+ px\b"
)
_RESULT = re.compile(r"(?<![\w.])\d*\.\d+\b|\b\d+(?= ?(?:dB|%|times|seconds|ms|s\b|MiB|CPU))")


SOURCES = [ROOT / f"notebooks/{name}.md" for name in names(ROOT)]
SOURCES += [ROOT / "book/index.md", *sorted((ROOT / "book/parts").glob("*.md"))]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_no_page_types_a_result_in_prose(source):
    """A number of ours is quoted by `glue`, a document's from its data, a formula's is math."""
    import jupytext

    for cell_ in jupytext.reads(source.read_text(encoding="utf-8"), "md:myst").cells:
        if cell_.cell_type == "markdown":
            prose = re.sub(r"```.*?```|\$\$.*?\$\$", "", cell_.source, flags=re.DOTALL)
            prose = re.sub(r"\$[^$]*\$|`[^`]*`", "", prose)
            assert not _RESULT.findall(_ALLOWED.sub("", prose)), prose


def test_the_numbers_that_claims_name_are_filled_in():
    found = {claim.id: claim for claim in claims.load_claims(ROOT).claims}
    assert not any(isinstance(claim.published, claims.Cell) for claim in found.values())
    one = found["mignon2023-table1-wpp-clean-psnr"]
    assert (one.published, one.near.value) == ("30.08 dB", 30.08)
    assert found["mignon-table1-code-loss-balanced"].published == "+0.74 dB = 30.12 - 29.38"
    assert found["mignon-table1-code-spared"].published == "+1.13 dB = +0.74 - (-0.39)"
    assert found["slides-unpaired-worse"].published == "8.76 = 1.4826 / 0.1693"


@pytest.mark.parametrize(
    ("named", "value", "text"),
    [
        ({"path": ["fit", 0.0, "mse"]}, 0.0414, "0.0414"),
        ({"path": ["fit", 0, "psnr"]}, 30.5, "30.50 dB"),
        ({"path": ["fit", "steps"]}, 150, "150"),
        (
            {"path": ["fit", 0.0, "psnr"], "less": ["fit", -0.7, "psnr"]},
            0.42,
            "+0.42 dB = 30.50 - 30.08",
        ),
        (
            {"path": ["fit", 0.0, "mse"], "over": ["fit", -0.7, "mse"]},
            0.414,
            "0.414 = 0.0414 / 0.1000",
        ),
    ],
)
def test_a_number_is_shown_as_the_document_prints_it(project, named, value, text):
    project.write("book/published/one2020.yml", TOY)
    numbers = published("one2020")
    told, words = shown(numbers, **named)
    assert told == pytest.approx(value, abs=1e-15)
    assert words == text


@pytest.mark.parametrize("text", ["", "[1]", "fit: {mse: 1}", "columns: 3"])
def test_a_file_that_holds_no_numbers_is_named(project, text):
    project.write("book/published/one2020.yml", text)
    with pytest.raises(UsageError, match=r"one2020\.yml must be a mapping of numbers"):
        published("one2020")


def test_a_claim_takes_its_value_and_its_text_from_the_cell(project):
    project.write("book/published/one2020.yml", TOY)
    named = {"cell": ["fit", -0.7, "psnr"]}
    project.claims({"published": named, "near": {"tolerance": 1.0}, "at_most": None})
    (*_, claim) = claims.load_claims(project.root).claims
    assert (claim.published, claim.near.value) == ("30.08 dB", 30.08)
    assert claim.tolerance == "30.08 ± 1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"published": {"cell": ["fat", 0.0, "mse"]}}, "did you mean 'fit'"),
        ({"published": {"cell": ["fit", 0.0]}}, "does not end at a number"),
        ({"published": {"cell": ["fit", 0.0, "mse", "more"]}}, "does not end at a number"),
        ({"published": {"cell": ["fit", 0.3, "mse"]}}, "known: 0.0, -0.7, steps"),
        ({"published": {"cell": []}}, "published"),
        ({"published": {"cell": ["a"], "less": ["b"], "over": ["c"]}}, "over stands alone"),
        (
            {"published": {"cell": ["a"], "than": {"cell": ["b"], "over": ["c"]}}},
            "than takes cell and less alone",
        ),
        ({"document": "one2021", "published": {"cell": ["fit"]}}, "did you mean 'one2020'"),
        ({"near": {"tolerance": 1}, "at_most": None}, "near.value"),
        (
            {
                "published": {"cell": ["fit", 0.0, "mse"]},
                "near": {"value": 0.0414, "tolerance": 1},
                "at_most": None,
            },
            "near.value",
        ),
    ],
)
def test_a_number_that_is_not_there_is_named(project, change, message):
    project.write("book/published/one2020.yml", TOY)
    project.claims(change)
    with pytest.raises(UsageError, match=message):
        claims.load_claims(project.root)


def test_a_file_that_is_no_yaml_is_named(project):
    project.write("book/published/one2020.yml", "a: [1")
    with pytest.raises(UsageError, match=r"book/published/one2020.yml: .*expected"):
        published("one2020")


def test_a_path_must_lead_to_a_number():
    with pytest.raises(UsageError, match="does not end at a number"):
        cell({"a": [1, 2]}, ["a"])


def test_the_installed_package_carries_them(installed, tmp_path):
    code = "from companion.page.published import published as p; print(p('slides2025')['restored'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == str(published("slides2025")["restored"]), done.stderr
