"""Entries for who cites the book, a document or a figure: BibTeX reads them."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from pybtex.database import parse_string

from companion import cite
from companion.errors import UsageError

ROOT = Path(__file__).parents[1]
FACTS = {"date": "2031-02-03T04:05", "seed": 7, "commit": "0123456789abcdef"}
RESULT = {"profile": "laptop", "provenance": FACTS}
CAPTION = "Loss of {cite:t}`a2020` at 50 % of $x_1$ & `rough`. Look at it."


def read(text):
    return parse_string(text, "bibtex").entries


def test_the_book_is_cited_as_its_file_says():
    told = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (entry,) = read(cite.of_book(ROOT, "2031")).values()
    assert entry.fields["title"] == f"{{{told['title']}}}" and entry.fields["year"] == "2031"
    assert entry.fields["version"] == told["version"] and "url" not in entry.fields
    assert len(entry.persons["author"]) == len(told["authors"])
    assert str(entry.persons["author"][0]) == f"{{{told['authors'][0]['name']}}}"


def test_persons_have_a_family_name_and_a_place_where_the_book_is(project, monkeypatch):
    names = "[{family-names: Louchet, given-names: Cécile}, {name: The others}]"
    told = f"title: A {{b}}\nversion: 1.0\nlicense: MIT\nauthors: {names}\n"
    project.write("CITATION.cff", told)
    monkeypatch.setenv("BOOK_URL", "https://example.org/book/")
    (entry,) = read(cite.of_book(project.root, "2031")).values()
    first, last = entry.persons["author"]
    assert first.last_names == ["Louchet"] and str(last) == "{The others}"
    assert entry.fields["url"] == "https://example.org/book/"
    (entry,) = read(cite.of_figure(project.root, "toy", "fig-a", CAPTION, RESULT)).values()
    assert entry.fields["url"] == "https://example.org/book/sections/toy.html#fig-a"


def test_a_figure_is_cited_by_its_anchor_and_its_run(project):
    entries = read(cite.of_figure(project.root, "toy", "fig-a_b", CAPTION, RESULT))
    entry = entries["companion-toy-fig-a_b"]
    assert entry.fields["title"] == r"Loss of a2020 at 50 \% of $x_1$ \& rough"
    assert entry.fields["year"] == "2031"
    parts = (r"sections/toy.html\#fig-a\_b", "profile laptop", "seed 7", "commit 0123456789ab")
    assert all(part in entry.fields["note"] for part in parts)
    bare = RESULT | {"provenance": FACTS | {"seed": None, "commit": None}}
    assert "seed" not in cite.of_figure(project.root, "toy", "fig", CAPTION, bare)


@pytest.mark.parametrize(
    ("caption", "title"),
    [
        ("The paper's Fig. 2 on ours. Look.", "The paper's Fig. 2 on ours"),
        ("The loss {eq}`loss` along the steps. x", "The loss along the steps"),
        (
            "Figs. 2 and 5 of Adrai et al. at one size. x",
            "Figs. 2 and 5 of Adrai et al. at one size",
        ),
    ],
)
def test_an_abbreviation_ends_no_title(project, caption, title):
    (entry,) = read(cite.of_figure(project.root, "toy", "fig-a", caption, RESULT)).values()
    assert entry.fields["title"] == title


def test_a_page_cites_the_book_its_document_and_each_figure_once():
    figure = {"name": "fig-a", "caption": CAPTION}
    told = [{"mystnb": {"figure": figure}}, {"mystnb": {"figure": {"caption": "x"}}}, {}]
    cells = [SimpleNamespace(metadata=metadata) for metadata in told]
    shown = cite.of_page(ROOT, "denoising", "mignon2023", cells, RESULT)
    text = shown.split("```bibtex\n")[1].split("```")[0]
    assert list(read(text)) == ["companion", "mignon2023", "companion-denoising-fig-a"]
    assert shown.splitlines()[1] == ":class: dropdown note"


@pytest.mark.parametrize("key", ["mignon2023", "houdard2020", "adrai2023", "slides2025"])
def test_a_document_is_cited_as_the_bibliography_has_it(key):
    entries = read(cite.of_document(ROOT, key))
    assert list(entries) == [key] and entries[key].fields["title"]
    assert cite.of_document(ROOT, "nobody1900") == ""


@pytest.mark.parametrize("text", ["", "title: x", "authors: 3", "{"])
def test_a_file_that_says_less_is_named(project, text):
    project.write("CITATION.cff", text)
    with pytest.raises(UsageError, match=r"^CITATION\.cff: "):
        cite.about(project.root)
