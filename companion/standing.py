"""How a document stands, for its card on the title page: headlines, evidence, a bar of verdicts."""

from collections import Counter
from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from companion.anchors import claim_id
from companion.claims import Headline
from companion.scoreboard import PUBLISHED
from companion.verdicts import DIFFERS, SYMBOLS, Judged, counts

_PARTS = {"numbers, orderings and statements": PUBLISHED, "identities": ("identity",)}


def standing(judged: list[Judged], document: str, headlines: Sequence[Headline] = ()) -> str:
    """Return what the runs say of a document, in MyST Markdown.

    judged: list of Judged, those of other documents too; document: its key in the bibliography.
    headlines: of its card, each shown with the verdict on its claim. What only the book itself says
    is not counted; a bar stands for each of the two parts that has claims, and a line for the
    grades of the nearest runs.
    """
    own = [item for item in judged if item.claim.document == document]
    asked = [item for item in own if item.claim.kind in PUBLISHED]
    grades = Counter(item.grade for item in asked if item.answers)
    lines = []
    if headlines:
        by_id = {item.claim.id: item for item in own}
        shown = [_headline(by_id[one.claim], one.says) for one in headlines]
        lines += ['<ul class="headlines">', *shown, "</ul>", ""]
    told = ", ".join(f"**{grade}** {grades[grade]}" for grade in sorted(grades)) or "none"
    lines += [f"Claims by the {{doc}}`grade </about>` of their nearest run: {told}.", ""]
    for part, kinds in _PARTS.items():
        if any((found := counts(own, kinds)).values()):
            lines += [*_bar(part, found), ""]
    address = f"sections/scoreboard.html?document={document}"
    return "\n".join([*lines, f'<a href="{address}">Each claim with its runs</a>', ""])


def _headline(item, says):
    """What a document says, behind the verdict on it, which leads to the claim's row."""
    look = f"square {item.verdict.replace(' ', '-')}"
    sign = f'<i class="{look}">{SYMBOLS[item.verdict]}</i> {item.verdict}'
    address = f"sections/scoreboard.html#{quote(claim_id(item.claim.id))}"
    return f'<li><a href="{address}">{sign}</a>: {escape(says)}</li>'


def _many(verdict, number):
    """How many claims have a verdict."""
    return f"{number} {'differ' if verdict == DIFFERS and number > 1 else verdict}"


def _bar(part, found):
    """A bar for eyes, whose lengths are the counts, and the same in signs and words."""
    found = {verdict: number for verdict, number in found.items() if number}
    look = {verdict: f"square {verdict.replace(' ', '-')}" for verdict in found}
    pieces = (f'<i class="{look[v]}" style="flex-grow: {found[v]}"></i>' for v in found)
    told = {v: f'<i class="{look[v]}">{SYMBOLS[v]}</i> {_many(v, found[v])}' for v in found}
    return [
        f'<div class="standing"><p>{sum(found.values())} {part}</p>',
        f'<div aria-hidden="true">{"".join(pieces)}</div>',
        f"<p>{' '.join(f'<span>{text}</span>' for text in told.values())}</p></div>",
    ]
