"""Links between the scoreboard and the pages that answer it: one anchor a claim on each."""

from html import escape
from urllib.parse import quote

NUMBERS = "published-archived-and-here"  # of the section that has all runs of a page side by side


def claim_id(name: str) -> str:
    """Return the anchor of a claim, the same on the scoreboard and on the page that answers it."""
    return f"claim-{name}"


def claim_anchor(name: str, **data: str) -> str:
    """Return the empty element that a claim's links lead to; data: its attributes data-KEY."""
    told = "".join(f' data-{key}="{escape(value)}"' for key, value in data.items())
    return f'<span id="{escape(claim_id(name))}"{told}></span>'


def claim_link(page: str, name: str, text: str) -> str:
    """Return a link to a claim on a page of book/sections, the text in Markdown.

    It is HTML: the anchor keeps every letter of the claim's id, which a label of MyST would not.
    """
    return f'<a href="{page}.html#{quote(claim_id(name))}">{text}</a>'
