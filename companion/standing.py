"""How a document stands, for its card on the title page: its evidence and a bar of its verdicts."""

from collections import Counter

from companion.scoreboard import PUBLISHED
from companion.verdicts import SYMBOLS, Judged, counts

_PARTS = {"numbers, orderings and statements": PUBLISHED, "identities": ("identity",)}


def standing(judged: list[Judged], document: str) -> str:
    """Return what the runs say of a document, in MyST Markdown.

    judged: list of Judged, those of other documents too; document: its key in the bibliography.
    What only the book itself says is not counted; a bar stands for each of the two parts that has
    claims, and a line for the grades of the nearest runs.
    """
    own = [item for item in judged if item.claim.document == document]
    asked = [item for item in own if item.claim.kind in PUBLISHED]
    grades = Counter(item.answers[0].rank.grade for item in asked if item.answers)
    told = ", ".join(f"**{grade}** {grades[grade]}" for grade in sorted(grades)) or "none"
    lines = [f"Claims by the {{doc}}`grade </about>` of their nearest run: {told}.", ""]
    for part, kinds in _PARTS.items():
        if any((found := counts(own, kinds)).values()):
            lines += [*_bar(part, found), ""]
    address = f"sections/scoreboard.html?document={document}"
    return "\n".join([*lines, f'<a href="{address}">Each claim with its runs</a>', ""])


def _bar(part, found):
    """A bar for eyes, whose lengths are the counts, and the same in signs and words."""
    found = {verdict: number for verdict, number in found.items() if number}
    look = {verdict: f"square {verdict.replace(' ', '-')}" for verdict in found}
    pieces = (f'<i class="{look[v]}" style="flex-grow: {found[v]}"></i>' for v in found)
    counted = (f'<span><i class="{look[v]}">{SYMBOLS[v]}</i> {found[v]} {v}</span>' for v in found)
    return [
        f'<div class="standing"><p>{sum(found.values())} {part}</p>',
        f'<div aria-hidden="true">{"".join(pieces)}</div>',
        f"<p>{' '.join(counted)}</p></div>",
    ]
