"""What pages get when they are built: links to words and equations, a description, less to load."""

import json
import re
from pathlib import Path

import pytest

from companion.equations import citations, load_equations
from companion.links import pattern
from companion.site import described, slim

ROOT = Path(__file__).parents[1]
CITED = re.compile(r"\[([A-Z], (?:eqs?\.?|[A-Z][a-z]+)\s\d+)\]")
PROSE = [*(ROOT / "notebooks").glob("*.md"), *(ROOT / "book").glob("*.md")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A semi-unbalanced\nform of it", "semi-unbalanced\nform"),
        ("Restorers of all kinds", "Restorer"),
        ("a semi-unbalanced plan", "semi-unbalanced"),
        ("unbalanced plans", None),  # no term here, and no part of one
        ("the restoration", None),
    ],
)
def test_the_longest_term_is_found_in_any_case_and_whole(text, found):
    terms = ["semi-unbalanced", "semi-unbalanced form", "restorer"]
    match = pattern(terms).search(text)
    assert (match and match[1]) == found


def test_each_numbered_item_is_cited_in_one_way():
    equations = load_equations(ROOT)
    cited = citations(equations)
    assert cited["M, eq. 3"] == "M-equation-3" and cited["H, Algorithm 2"] == "H-algorithm-2"
    assert len(set(cited.values())) == len(cited)
    assert len(cited) == sum(sum(told.numbered.values()) for told in equations.values())


def test_each_citation_on_a_page_is_one_of_them():
    cited = citations(load_equations(ROOT))
    found = {
        " ".join(name.split())
        for path in PROSE
        for name in re.findall(
            r"\[([A-Z], (?:eqs?\.?|[A-Z][a-z]+)\s\d+)\]", path.read_text("utf-8")
        )
    }
    assert len(found) > 10 and found <= set(cited)


def test_a_description_ends_with_a_sentence_or_a_word():
    assert described("One\n two.") == "One two."
    assert described(f"{'a' * 100}. {'b' * 100}. {'c' * 100}.") == f"{'a' * 100}. {'b' * 100}."
    long = described(f"{'a' * 100}. {'b' * 100} of Fig. 3. {'c' * 100}.")
    assert long == f"{'a' * 100}. {'b' * 100} of Fig. 3."
    long = described("word " * 100)
    assert len(long) <= 240 and long.endswith("word…")


def test_a_site_keeps_what_its_pages_ask_for(tmp_path):
    kept = [
        *("_static/mathjax/startup.js", "_static/mathjax/input/tex.js"),
        *("_static/mathjax/input/tex/extensions/ams.js", "_static/mathjax/output/chtml.js"),
        *("_static/mathjax/output/chtml/fonts/woff-v2/a.woff", "_static/book.css", "a.html"),
        "_static/vendor/fontawesome/webfonts/a.woff2",
    ]
    gone = [
        *("_static/mathjax/tex-chtml.js", "_static/mathjax/input/tex-full.js", "_sources/a.md"),
        *("_static/mathjax/input/tex/extensions/all-packages.js", "_static/scripts/a.js.map"),
        *("_static/mathjax/sre/mathmaps/en.json", "_static/scripts/fontawesome.js"),
        *("_static/vendor/fontawesome/webfonts/a.ttf", "_static/locales/de/a.mo"),
    ]
    for name in (*kept, *gone):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    icons = '  <script defer src="../_static/scripts/fontawesome.js?digest=1"></script>\n'
    about = '<meta name="description" content="It&#x27;s a page." />'
    page = about + "<title>{}</title>\n{}<script src='_static/mathjax/startup.js'></script>"
    (tmp_path / "a.html").write_text(page.format("A &#8212; A", icons))
    slim(tmp_path)
    left = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()]
    assert sorted(left) == sorted([*kept, "_static/descriptions.js"])
    told = (tmp_path / "_static" / "descriptions.js").read_text()
    assert json.loads(told.partition(" = ")[2].rstrip(";\n")) == {"a.html": "It's a page."}
    assert (tmp_path / "a.html").read_text() == page.format("A", "")


def test_a_picture_that_says_how_large_it_is_has_that_width(tmp_path):
    from PIL import Image

    (tmp_path / "_images").mkdir()
    picture = Image.new("L", (200, 50))
    picture.save(tmp_path / "_images" / "sized.png", dpi=(192, 192))
    picture.save(tmp_path / "_images" / "plain.png")
    shown = '<img alt="a" src="../_images/{}.png" />'
    page = "".join(map(shown.format, ["sized", "plain", "gone"]))
    (tmp_path / "sections").mkdir()
    (tmp_path / "_static").mkdir()
    (tmp_path / "sections" / "a.html").write_text(page)
    slim(tmp_path)
    wide = shown.format("sized").replace(" />", ' width="100" />')
    told = (tmp_path / "sections" / "a.html").read_text()
    assert told == page.replace(shown.format("sized"), wide)
