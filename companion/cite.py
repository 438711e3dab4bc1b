"""How to cite the book, its documents and each figure, made from what they say of themselves."""

import os
import re
from pathlib import Path
from typing import Any

import yaml

from companion.errors import UsageError
from companion.site import URL

# an equation's role holds its name and no words; an abbreviation ends no sentence
_ROLE = re.compile(r" \{eq\}`[^`]*`|\{[\w:]+\}`([^`]*)`|`")
_FIRST = re.compile(r".*?(?<!Fig)(?<!Figs)(?<!eq)(?<!al)[.:?](?=\s|$)", re.DOTALL)


def about(root: Path) -> dict[str, Any]:
    """What CITATION.cff says of the book.

    root: project folder. Returns {"title", "version", "license", "authors": list of names as BibTeX
    writes them}. Raises UsageError where the file is missing or says less.
    """
    path = root / "CITATION.cff"
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
        names = [
            f"{{{by['name']}}}" if "name" in by else f"{by['family-names']}, {by['given-names']}"
            for by in told["authors"]
        ]
        return {key: str(told[key]) for key in ("title", "version", "license")} | {"authors": names}
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UsageError(f"CITATION.cff: {' '.join(str(error).split())}") from error


def of_book(root: Path, year: str) -> str:
    """The BibTeX entry of the book. root: project folder; year: of its newest run, as text."""
    book = about(root)
    fields = {"title": f"{{{book['title']}}}", "year": year, "version": book["version"]}
    if url := os.environ.get(URL, ""):
        fields["url"] = url
    return _entry("companion", book["authors"], fields)


def of_document(root: Path, key: str) -> str:
    """The BibTeX entry of a document as book/references.bib has it, "" where it has none."""
    text = (root / "book" / "references.bib").read_text(encoding="utf-8")
    found = re.search(rf"^@\w+\{{{re.escape(key)},.*?^\}}$", text, re.MULTILINE | re.DOTALL)
    return found[0] if found else ""


def of_figure(root: Path, page: str, name: str, caption: str, result: dict) -> str:
    """The BibTeX entry of a figure of a page.

    root: project folder; page: name of the notebook; name: of the figure, its anchor; caption: in
        Markdown, of which the first sentence counts; result: content of the run's NAME.json.
    """
    book, facts = about(root), result["provenance"]
    words = _ROLE.sub(lambda role: role[1] or "", " ".join(caption.split()))
    first = _FIRST.match(words)
    title = _escaped((first[0] if first else words).rstrip(".:"))
    where = f"sections/{page}.html#{name}"
    how = [f"profile {result['profile']}"]
    how += [f"seed {facts['seed']}"] if facts["seed"] is not None else []
    how += [f"commit {facts['commit'][:12]}"] if facts["commit"] else []
    fields = {"title": title, "year": facts["date"][:4]}
    fields["howpublished"] = f"Figure of {{{book['title']}}}, version {book['version']}"
    base = os.environ.get(URL, "").rstrip("/")
    fields |= {"url": f"{base}/{where}"} if base else {"note": f"{_escaped(where)}; "}
    fields["note"] = f"{fields.get('note', '')}{', '.join(how)}"
    return _entry(f"companion-{page}-{name}", book["authors"], fields)


def fold(title: str, entries: list[str]) -> str:
    """A folded box of a page that shows BibTeX entries, in MyST Markdown."""
    shown = "\n\n".join(filter(None, entries))
    lines = [f"::::{{admonition}} {title}", ":class: dropdown note", ""]
    return "\n".join([*lines, "```bibtex", shown, "```", "::::"])


def of_page(root: Path, page: str, document: str, cells: list[Any], result: dict) -> str:
    """The fold of a page with the entries of the book, its document and each of its figures.

    root: project folder; page: name of the notebook; document: key of book/references.bib or "";
        cells: of the executed notebook; result: content of the run's NAME.json.
    """
    entries = [of_book(root, result["provenance"]["date"][:4])]
    entries += [of_document(root, document)] if document else []
    for cell in cells:
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        if "name" in figure:
            entries.append(of_figure(root, page, figure["name"], figure["caption"], result))
    return fold("Cite this page and its figures", entries)


def colophon(root: Path, documents: list[str], date: str) -> str:
    """Who made the book, which version this is, and the entries of it and of its documents.

    root: project folder; documents: keys of book/references.bib; date: of the newest run, as text.
    Returns MyST Markdown, without a head.
    """
    book = about(root)
    names = "; ".join(name.strip("{}") for name in book["authors"])
    entries = [of_book(root, date[:4]), *(of_document(root, key) for key in documents)]
    rows = [f"Authors: {names}.", f"Version {book['version']}, its runs up to {date}."]
    return "\n".join([*rows, "", fold("BibTeX of the book and of its documents", entries), ""])


def _entry(key, authors, fields):
    told = {"author": " and ".join(authors)} | fields
    lines = [f"  {name} = {{{value}}}" for name, value in told.items()]
    return "\n".join([f"@misc{{{key},", ",\n".join(lines), "}"])


def _escaped(text):
    """Text as BibTeX takes it; formulas stay."""
    parts = re.split(r"(\$[^$]*\$)", text)
    return "".join(p if p.startswith("$") else re.sub(r"([#%&_])", r"\\\1", p) for p in parts)
