"""Numbers of kept runs in the words of a page."""

import re
from pathlib import Path

import pytest

from companion.errors import UsageError
from companion.quoted import quoted
from companion.verdicts import kept_runs

ROOT = Path(__file__).parents[1]
KEPT = [
    {"notebook": "toy", "kept": "first, laptop", "records": {"gain": {"value": 1.25}}},
    {"notebook": "toy", "kept": "second", "records": {"name": {"value": "brick"}}},
    {"notebook": "other", "kept": "third", "records": {"gain": {"value": 7}}},
]


def test_a_number_of_a_kept_run_stands_in_the_text():
    text = "It is {kept}`first:gain:+.1f` dB on {kept}`second:name`, {glue:text}`gain:.1f` here."
    assert quoted(text, "toy", KEPT) == "It is +1.2 dB on brick, {glue:text}`gain:.1f` here."
    assert quoted("nothing kept", "toy", []) == "nothing kept"
    # a page that is no notebook names whose run it is
    both = "{kept}`toy-first:gain:.2f` dB and {kept}`other-third:gain`"
    assert quoted(both, "", KEPT) == "1.25 dB and 7"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{kept}`frist:gain`", r"unknown archived run 'frist': did you mean 'first'\?"),
        ("{kept}`third:gain`", "unknown archived run 'third'"),  # of another page
        ("{kept}`first:gian`", "unknown record 'gian': did you mean 'gain'?"),
        ("{kept}`second:name:.1f`", "notebook 'toy': .*second:name:.1f.*: Unknown format code"),
    ],
)
def test_what_is_not_kept_is_named(text, message):
    with pytest.raises(UsageError, match=message):
        quoted(text, "toy", KEPT)
    if "toy" not in message:
        with pytest.raises(UsageError, match="unknown archived run"):
            quoted(text, "", KEPT)


PAGES = sorted((ROOT / "notebooks").glob("*.md"))
TEXTS = [*(ROOT / "book").glob("*.md"), *(ROOT / "book" / "parts").glob("*.md")]


@pytest.mark.parametrize("page", [*PAGES, *sorted(TEXTS)], ids=lambda p: p.stem)
def test_what_pages_quote_is_kept(page):
    name = page.stem if page in PAGES else ""
    text = quoted(page.read_text(), name, kept_runs(ROOT))
    assert "{kept}" not in re.sub(r"`{3}.*?`{3}", "", text)
