"""A Sphinx extension: a term leads to the glossary where a page first uses it, a citation such as
[M, eq. 3] to the page of equations."""

import functools
import re
from pathlib import Path
from typing import Any

from docutils import nodes  # type: ignore[import-untyped]
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.nodes import make_refnode

from companion.equations import citations, load_equations

EQUATIONS = "sections/equations"
_CITED = re.compile(r"\[([A-Z], (?:eq\.|[A-Z][a-z]+)\s\d+)\]")
# what is no running text, or has a meaning of its own
_APART = (
    nodes.reference,
    nodes.literal,
    nodes.literal_block,
    nodes.title,
    nodes.term,
    nodes.caption,
    nodes.math,
    nodes.math_block,
    nodes.table,
)


def setup(app: Any) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.add_post_transform(Links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def pattern(terms: list[str]) -> re.Pattern[str]:
    """What finds one of the terms in a text, or its plural: the longest that fits, as group 1."""
    longest_first = sorted(terms, key=len, reverse=True)
    told = "|".join(r"\s+".join(map(re.escape, term.split())) for term in longest_first)
    return re.compile(rf"(?<![\w-])({told})s?(?![\w-])", re.IGNORECASE)


class Links(SphinxPostTransform):
    """Makes the links of one page."""

    default_priority = 400

    def run(self, **kwargs: Any) -> None:
        """Go through the page's paragraphs in order."""
        page = self.env.docname
        found = {
            name.lower(): (to, anchor)
            for name, _, kind, to, anchor, _ in self.env.get_domain("std").get_objects()
            if kind == "term"
        }
        glossary = {to for to, _ in found.values()}
        # a title of the bibliography says what its authors mean by a word
        without = page in glossary or page == "bibliography" or page.startswith("reference/")
        terms = {} if without else found
        for text in list(self.document.findall(nodes.Text)):
            if _running(text):
                self._linked(text, page, terms)

    def _linked(self, text, page, terms):
        """Put links into a text; a term that has its link here leaves `terms`, its entry whole."""
        parts, rest = [], str(text)
        while rest:
            match = _CITED.search(rest)
            word = pattern(list(terms)).search(rest) if terms else None
            if match is None and word is None:
                break
            if word is None or (match is not None and match.start() < word.start()):
                assert match is not None
                link, first = self._equation(match[1], page), match
            else:
                to, anchor = entry = terms[" ".join(word[1].lower().split())]
                shown = nodes.inline(word[0], word[0], classes=["glossary-term"])
                link, first = make_refnode(self.app.builder, page, to, anchor, shown), word
                for name in [name for name, other in terms.items() if other == entry]:
                    del terms[name]
            parts += [nodes.Text(rest[: first.start()]), link]
            rest = rest[first.end() :]
        if parts:
            text.parent.replace(text, [*parts, nodes.Text(rest)])

    def _equation(self, cited, page):
        cited = " ".join(cited.split())
        anchor = _anchors(self.app.srcdir).get(cited)
        if anchor is None:
            told = ("book/equations.yml has no [%s]", cited)
            logging.getLogger(__name__).warning(*told, location=page)
        shown = nodes.inline("", f"[{cited}]")
        return make_refnode(self.app.builder, page, EQUATIONS, anchor or "", shown)


def _running(text):
    """Whether a text stands in a paragraph of prose, and in nothing that keeps links out."""
    inside, node = False, text.parent
    while node is not None:
        if isinstance(node, _APART) or "cell_output" in node.get("classes", ()):
            return False
        inside = inside or isinstance(node, nodes.paragraph)
        node = node.parent
    return inside


@functools.cache
def _anchors(book):
    return citations(load_equations(Path(book).parent))
