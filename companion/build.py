"""Run every notebook, write the pages made from the runs, build the book."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from companion import cite, keys
from companion.claims import Claim, load_claims, needed
from companion.cluster import local, on_gpu, performed
from companion.equations import equations_page, load_equations
from companion.errors import UsageError, known
from companion.files import project_root, write_aside
from companion.markdown import duration
from companion.notebooks import DEFAULT_PROFILE, Notebook, load, names
from companion.page.facts import versions
from companion.run import Plan, RunFailed, at_hand, execute, finished, settle, times
from companion.scoreboard import downloads, scoreboard, summary
from companion.section import write_section
from companion.site import URL
from companion.standing import standing
from companion.verdicts import counts, judge, kept_runs

Pairs = Sequence[tuple[str, str]]  # (parameter, value)


def build(
    profile: str = DEFAULT_PROFILE,
    overrides: Pairs = (),
    root: Path | None = None,
    workers: int = 1,
) -> Path:
    """Run what is not run yet and build the HTML book; `pdf.write_pdf` prints it.

    profile: name; overrides: as for `plans_of_book`; root: project folder, found from the working
        folder if None; workers: notebooks run side by side, >= 1.
    Returns the path of the index page.
    Raises UsageError before anything runs, RunFailed where a cell failed, BookFailed where Sphinx
    refuses the pages.
    """
    root = root or project_root()
    if "[" in str(root.absolute()):  # sphinx-external-toc takes the path for a pattern
        raise UsageError(f"no book can be built below {str(root)!r}: a path without [ is needed")
    book, titles = load_claims(root), document_titles(root)
    kept = kept_runs(root)
    equations = equations_page(load_equations(root), book.claims, titles)
    plans = plans_of_book(root, profile, overrides)
    runs = run_all(plans, workers)
    judged = judge(book, [*runs.values(), *kept])
    board = scoreboard(judged, titles, profile)
    sections = root / "book" / "sections"
    for todo in plans:
        own = [item for item in judged if item.claim.notebook == todo.notebook.name]
        write_section(sections, todo, runs[todo.notebook.name], own, kept)
    date = max((run["provenance"]["date"][:10] for run in runs.values()), default="")
    write_aside(sections / "scoreboard.md", board)
    for name, content in downloads(judged).items():
        write_aside(sections / "files" / name, content)
    write_aside(sections / "equations.md", equations)
    write_aside(sections / "summary.md", summary(judged, profile, date))
    documents = list(dict.fromkeys(item.claim.document for item in judged))
    for document in documents:
        told = standing(judged, document, book.headlines[document])
        write_aside(sections / "standing" / f"{document}.md", told)
    write_aside(sections / "colophon.md", cite.colophon(root, documents, date))
    say("claims: " + ", ".join(f"{n} {verdict}" for verdict, n in counts(judged).items()))
    return sphinx(root)


class BookFailed(Exception):
    """Sphinx refused the pages; the message holds its warnings."""


def plans_of_book(
    root: Path, profile: str, overrides: Pairs = (), pages: Sequence[str] = ()
) -> list[Plan]:
    """Return the Plan of every notebook of the book, or of those named by `pages`.

    profile: name. overrides: pairs (parameter, value), each for all notebooks that have it. Raises
    UsageError as `plan` does, for an unknown page, and for a parameter that none of them has.
    """
    for page in pages:
        known("notebook", page, names(root))
    notebooks = [load(root, name) for name in pages or names(root)]
    every = sorted({parameter for notebook in notebooks for parameter in notebook.parameters})
    for parameter, _ in overrides:
        known("parameter", parameter, every)
    return [settle(root, page, profile, given(page, overrides)) for page in notebooks]


def given(notebook: Notebook, overrides: Pairs) -> Pairs:
    """Those overrides whose parameter the notebook has."""
    return [(name, value) for name, value in overrides if name in notebook.parameters]


def finished_runs(
    claims: list[Claim],
    profile: str = DEFAULT_PROFILE,
    overrides: Pairs = (),
    root: Path | None = None,
) -> list[dict]:
    """Read the finished runs of the current sources.

    claims: list of Claim; profile, overrides, root: as for `build`.
    Returns a list of results, each the content of a NAME.json with its `path`.
    Raises UsageError where a notebook that a claim needs was not run.
    """
    found = {}
    root = root or project_root()
    for todo in plans_of_book(root, profile, overrides):
        result = finished(todo)
        if result is not None:
            path = todo.folder.relative_to(root) / f"{todo.notebook.name}.json"
            found[todo.notebook.name] = {**result, "path": str(path)}
    missing = [name for name in needed(claims, profile) if name not in found]
    if missing:
        on = "".join(f" -p {name} {value}" for name, value in overrides)
        raise UsageError(
            f"not run yet with the present sources: {', '.join(missing)}; "
            f"first: companion build --profile {profile}{on}"
        )
    return list(found.values())


def run_all(plans: list[Plan], workers: int = 1) -> dict[str, dict]:
    """Run or reuse the plans, saying on stderr which of how many and how long it takes.

    workers: how many are run at a time, >= 1.
    Returns {notebook name: content of its NAME.json}. Raises UsageError before anything runs, as
    `at_hand` does, RunFailed at the first failure.
    """
    for todo in plans:
        if finished(todo) is None:
            at_hand(todo)
    runs = {}
    past = {todo.notebook.name: times(todo).get(todo.profile) for todo in plans}
    made = []
    if workers > 1:
        made = [todo for todo in plans if finished(todo) is None]
        _side_by_side(sorted(made, key=lambda todo: -(past[todo.notebook.name] or 0)), workers)
    for index, todo in enumerate(plans):
        name, place = todo.notebook.name, f"[{index + 1}/{len(plans)}]"
        result = finished(todo)
        if result is not None:
            if todo not in made:
                say(f"{place} {name}: already run, reused")
        else:
            left = [past[other.notebook.name] for other in plans[index:] if finished(other) is None]
            known = [seconds for seconds in left if seconds is not None]
            more = " or more" if len(known) < len(left) else ""
            about = f"about {duration(sum(known))}{more} left" if known else "time left not known"
            say(f"{place} {name}: running, {about} for the notebooks")
            result = execute(todo, todo.failed, f"{place} {name}")
        runs[name] = result
    return runs


def _side_by_side(plans, workers):
    """Run plans in processes of their own, the first ones first."""
    if not plans:
        return
    with (
        local(workers, len(plans), on_gpu(plans)) as client,
        tqdm(total=len(plans), desc=f"notebooks, {workers} at a time", unit="notebook") as bar,
    ):
        for todo, error in performed(client, plans, lambda todo: todo.failed):
            if error:
                raise RunFailed(error)
            bar.set_postfix_str(f"{todo.notebook.name} done", refresh=False)
            bar.update()


def sphinx(root: Path) -> Path:
    """Build the HTML of book/, strictly, unless nothing of it changed since the last time.

    Returns the path of the index page. Raises BookFailed with Sphinx's warnings.
    """
    html = root / "book" / "_build" / "html"
    stamp, log = root / ".companion" / "book.sha256", root / ".companion" / "book.log"
    state = _state(root)
    same = stamp.is_file() and stamp.read_bytes() == state.encode()
    if same and (html / "index.html").is_file():
        say("pages: nothing changed")
        return html / "index.html"
    say("pages: building")
    clock = time.perf_counter()
    stamp.parent.mkdir(exist_ok=True)
    stamp.unlink(missing_ok=True)
    with log.open("w", encoding="utf-8") as out:
        start = "from jupyter_book.cli.main import main; main(prog_name='jupyter-book')"
        # --all: a page that quotes another's number is stale when only the other changed
        options = ["build", "book", "--path-output", "book", "-W", "-n", "--keep-going", "--all"]
        done = subprocess.run(
            [sys.executable, "-c", start, *options],
            cwd=root,
            stdout=out,
            stderr=out,
            check=False,
        )
    if done.returncode != 0 or not (html / "index.html").is_file():
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        told = [line for line in lines if "WARNING" in line or "ERROR" in line] or lines[-20:]
        raise BookFailed("\n".join(["the book was not built", *told, f"whole log: {log}"]))
    write_aside(stamp, state)
    say(f"pages: built in {duration(time.perf_counter() - clock)}")
    return html / "index.html"


def document_titles(root: Path) -> dict[str, str]:
    """Return {bib key: title} of book/references.bib.

    Raises UsageError where it is missing or no BibTeX.
    """
    from pybtex.database import parse_file
    from pybtex.exceptions import PybtexError

    path = root / "book" / "references.bib"
    if not path.is_file():
        raise UsageError("book/references.bib is missing")
    try:
        entries = parse_file(str(path)).entries
    except PybtexError as error:
        raise UsageError(f"book/references.bib: {error}") from error
    plain = str.maketrans("", "", "{}")
    return {key: entry.fields.get("title", key).translate(plain) for key, entry in entries.items()}


def say(text: str) -> None:
    """Tell the person who waits."""
    print(text, file=sys.stderr, flush=True)


def _state(root):
    """Hash all that the pages are made of."""
    files = [root / "_config.yml", root / "CHANGELOG.md", *sorted((root / "book").rglob("*"))]
    digest = hashlib.sha256(os.environ.get(URL, "").encode())
    files += sorted((root / "otlib").rglob("*.py"))  # the reference is made from its docstrings
    extensions = ("docstrings.py", "links.py", "quoted.py", "site.py")  # of Sphinx
    files += [root / "companion" / name for name in extensions]
    modules = (f"companion.{name.removesuffix('.py')}" for name in extensions)
    digest.update(keys.together(keys.imported(*modules)).encode())
    tools = ("jupyter-book", "sphinx", "sphinx-book-theme", "myst-nb", "sphinx-mathjax-offline")
    digest.update(json.dumps(versions(tools)).encode())
    for path in files:
        if path.is_file() and "_build" not in path.relative_to(root).parts:
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
