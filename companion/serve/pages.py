"""A run as a page of the book: its numbers beside the published, kept and former ones."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from companion.claims import load_claims
from companion.errors import UsageError
from companion.files import INFINITE, write_aside
from companion.keys import changed
from companion.notebooks import load, of_profile
from companion.results import read
from companion.run import Plan, finished, settle
from companion.section import write_section
from companion.serve.forms import built_run, shown
from companion.verdicts import judge, kept_runs

FORMER = 3  # runs that stand beside one
MOST = 30  # pages that are kept made: they take megabytes, and seconds to make again
_RUN = re.compile(r"([a-z0-9_]+)-([0-9a-f]{16})")
_LOOK = 0.1  # seconds
_lock = threading.Lock()  # one Sphinx at a time: each takes a core and 300 MiB


def result(root: Path, run: str) -> tuple[Plan, dict[str, Any]]:
    """The plan and the content of NAME.json of a finished run.

    root: project folder; run: name of its folder, NAME-KEY16. Raises UsageError where there is
    none, and for a run of earlier code.
    """
    path = file_of(root, run, "json")
    (told,) = read(path)
    notebook = load(root, told["notebook"])
    given = {
        name: _numbers(value)
        for name, value in told["parameters"].items()
        if name in notebook.parameters
    }
    todo = settle(root, notebook, told["profile"], given)
    now = finished(todo)
    if todo.folder.name != run or now is None:
        raise UsageError(f"{run} is a run of other code or data than the present: run it again")
    return todo, now


def file_of(root: Path, run: str, suffix: str) -> Path:
    """NAME.ipynb or NAME.json of a run. Raises UsageError where there is no such run."""
    found = _RUN.fullmatch(run)
    path = root / ".companion" / "runs" / run / f"{found[1] if found else ''}.{suffix}"
    # os.path: a name too long for a file is the name of none
    if not found or suffix not in ("ipynb", "json") or not os.path.isfile(path):
        raise UsageError(f"there is no run {run!r}")
    return path


def differs(root: Path, told: dict[str, Any]) -> dict[str, str]:
    """The parameters of a run that are not its profile's, as texts.

    told: content of its NAME.json.
    """
    notebook = load(root, told["notebook"])
    values = of_profile(root, notebook, told["profile"])
    return {
        name: shown(_numbers(value))
        for name, value in told["parameters"].items()
        if name in values and _numbers(value) != values[name]
    }


def title(root: Path, told: dict[str, Any]) -> str:
    """A run in words: its profile, what is not the profile's, its date."""
    other = [f"{name} = {value}" for name, value in differs(root, told).items()]
    return ", ".join([told["profile"], *other, told["provenance"]["date"][:16].replace("T", " ")])


def former(root: Path, run: str, name: str) -> list[dict[str, Any]]:
    """The runs that stand beside one: the published page's, then the newest of its notebook.

    Returns contents of their NAME.json, each with its title as `kept`, as `verdicts.judge` has it.
    """
    built = f"{name}-{built_run(root, name)['key'][:16]}"
    times = {}
    for path in (root / ".companion" / "runs").glob(f"{name}-*/{name}.json"):
        if path.parent.name != run:
            with contextlib.suppress(FileNotFoundError):  # removed since it was listed
                times[path] = path.stat().st_mtime
    order = lambda path: (path.parent.name == built, times[path])
    paths = sorted(times, key=order, reverse=True)
    found: dict[str, dict[str, Any]] = {}
    for path in paths:
        if len(found) == FORMER:
            break
        try:
            (told,) = read(path)
            words = title(root, told)
        except UsageError:  # damaged, or of a profile that is no more
            continue
        start = "the published page" if path.parent.name == built else "a former run"
        since = changed(told["provenance"]["code"], root)
        more = f", changed since: {', '.join(since[:3])}" if since else ""
        found[f"{start}, {words}{more}"] = told
    return [told | {"kept": words} for words, told in found.items()]


def page(root: Path, run: str, ending: Callable[[], bool]) -> str:
    """The HTML of a run's page, made by Sphinx unless it is there.

    root, run: as for `result`; ending: whether to give up. Raises UsageError as `result` does, and
    where Sphinx refuses the page.
    """
    folder, stamp = _folder(root, run), root / ".companion" / "book.sha256"
    with _lock:  # to its end: a page may be removed, or make room for another
        todo, told = result(root, run)
        name = todo.notebook.name
        path, made = folder / f"{name}.html", folder / "book.sha256"
        state = b""
        with contextlib.suppress(FileNotFoundError):  # while the book is built
            state = stamp.read_bytes()
        if path.is_file() and made.is_file() and made.read_bytes() == state:
            return path.read_text(encoding="utf-8")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{run}-", dir=folder.parent) as scratch:
            sections = Path(scratch) / "sections"
            kept = kept_runs(root)
            judged = judge(load_claims(root), [told, *former(root, run, name), *kept])
            own = [item for item in judged if item.claim.notebook == name]
            write_section(sections, todo, told, own, kept)
            _sphinx(root, sections / f"{name}.ipynb", Path(scratch), ending)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(Path(scratch) / "html", folder)
            os.replace(folder / "sections" / f"{name}.html", path)
            for rest in set(folder.iterdir()) - {path, folder / "_images"}:
                shutil.rmtree(rest) if rest.is_dir() else rest.unlink()
            write_aside(made, state)
        pages = sorted(folder.parent.glob(f"*/{made.name}"), key=lambda at: at.stat().st_mtime)
        for old in pages[:-MOST]:
            shutil.rmtree(old.parent)
        return path.read_text(encoding="utf-8")


def remove(root: Path, run: str) -> None:
    """Delete a run and its page, as soon as no page is being made of it."""
    with _lock:
        for folder in ("runs", "parts"):
            shutil.rmtree(root / ".companion" / folder / run, ignore_errors=True)
        shutil.rmtree(_folder(root, run), ignore_errors=True)


def _folder(root, run):
    """Where the page of a run is kept."""
    return root / ".companion" / "serve" / "pages" / run


def _sphinx(root, notebook, scratch, ending):
    """Make html/sections/NAME.html in a scratch folder; the book is what is around it."""
    log = scratch / "log"
    with log.open("wb") as out:
        words = [sys.executable, "-P", "-m", "companion.serve.render", root, notebook, scratch]
        process = subprocess.Popen(words, stdout=out, stderr=out)
    while process.poll() is None:
        if ending():
            process.kill()
        time.sleep(_LOOK)
    if process.returncode != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise UsageError(f"the page of the run was not made: {lines[-1] if lines else ''}")


def _numbers(value):
    """A parameter as `plain` left it in a file, with its infinite numbers again."""
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return INFINITE.get(value, value) if isinstance(value, str) else value
