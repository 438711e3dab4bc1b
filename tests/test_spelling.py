"""Each word that a reader meets is in a dictionary or in book/words.txt, where each word is met."""

import re
from pathlib import Path

import jupytext
import pytest
import yaml
from spellchecker import SpellChecker

ROOT = Path(__file__).parents[1]
WORDS = (ROOT / "book" / "words.txt").read_text(encoding="utf-8").split()
PAGES = sorted((ROOT / "notebooks").glob("*.md"))
BOOK = ROOT / "book"
TEXTS = sorted([*ROOT.glob("*.md"), *BOOK.glob("*.md"), *BOOK.glob("parts/*.md")])
CLAIMS = sorted((ROOT / "book" / "claims").glob("*.yml"))

# what is no prose: front matter, blocks of code, mathematics, roles, code in a line, targets, tags,
# options
_NO_PROSE = [
    r"\A---\n.*?^---$",
    r"^```(?!\{(?:admonition|figure|note)).*?^```",
    r"\$\$.*?\$\$(?: \([\w-]+\))?",
    r"\$[^$]*\$",
    r"\{[\w:+.-]+\}`[^`]*`",
    r"`[^`]*`",
    r"\]\([^)]*\)",
    r"<[^>]*>",
    r"https?://\S+",
    r"^\([\w-]+\)=$",
    r"^:+\{(?:raw|figure|image|include)\}.*?$",
    r"^:class:.*?$",
    r"^:[\w-]+:",
    r"^:+(?:\{[^}]*\})?",
]
_PROSE = re.compile("|".join(_NO_PROSE), re.MULTILINE | re.DOTALL)
_WORD = re.compile(r"(?<![\w./~@])[^\W\d_]+(?:['’][a-z]+)?(?![\w/@])")


def words(text):
    """The words of a text of Markdown, without names in capitals and what holds a digit."""
    found = _WORD.findall(_PROSE.sub(" ", text))
    return {word.replace("’", "'") for word in found if len(word) > 2 and word[1:].islower()}


def page(path):
    notebook = jupytext.read(path)
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    for cell in notebook.cells:
        told = cell.metadata.get("mystnb", {})
        texts += [told.get("figure", {}).get("caption", ""), told.get("image", {}).get("alt", "")]
    return "\n\n".join(texts)


def claims(path):
    told = yaml.safe_load(path.read_text(encoding="utf-8"))
    parts = [entry.get(key) or "" for entry in told["claims"] for key in _SAID]
    return "\n\n".join(str(part) for part in parts)


_SAID = ("statement", "because", "explanation", "takes")
SOURCES = {path: page for path in PAGES} | {path: Path.read_text for path in TEXTS}
SOURCES |= {path: claims for path in CLAIMS}


@pytest.fixture(scope="module")
def dictionary():
    found = SpellChecker(language="en")
    found.word_frequency.load_words(WORDS)
    return found


def met(path):
    return {word.lower().removesuffix("'s") for word in words(SOURCES[path](path))}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_each_word_is_known(dictionary, path):
    assert sorted(dictionary.unknown(met(path))) == []


def test_the_list_of_words_is_sorted_and_holds_no_word_that_nobody_needs():
    assert sorted(set(WORDS)) == WORDS
    everywhere, plain = set().union(*map(met, SOURCES)), SpellChecker(language="en")
    assert [word for word in WORDS if word not in everywhere or plain.known([word])] == []


def test_prose_is_told_from_code():
    text = (
        "A {cite:t}`mignon2023` `cdoe` $\\alhpa$ wrod, [a lnk](htpp://x) x_y MSE\n```\ncod\n```\n"
    )
    assert words(text) == {"wrod", "lnk"}
