"""Run every notebook, write the pages made from the runs, build the book."""

import base64
import glob
import hashlib
import json
import math
import shlex
import subprocess
import sys
import time

import yaml

from companion.claims import SYMBOLS, counts, judge, load_claims, needed, scoreboard, summary
from companion.equations import equations_page, load_equations
from companion.errors import UsageError
from companion.files import notebook_text, project_root, write_aside
from companion.markdown import number, table
from companion.notebooks import DEFAULT_PROFILE, names, resolve
from companion.page.facts import versions
from companion.page.kept import archived
from companion.run import execute, finished, plan


def build(profile=DEFAULT_PROFILE, device=None, root=None):
    """Run what is not run yet and build the HTML book.

    profile: name; device: torch device for every notebook with a `device` parameter, None for
        each notebook's own; root: project folder, found from the working folder if None.
    Returns the path of the index page.
    Raises UsageError before anything runs, RunFailed where a cell failed, BookFailed where Sphinx
    refuses the pages.
    """
    root = root or project_root()
    claims, titles = load_claims(root), document_titles(root)
    equations = equations_page(load_equations(root), claims, titles)
    plans = plans_of_book(root, profile, device)
    runs = run_all(plans)
    judged = judge(claims, {name: run["records"] for name, run in runs.items()}, profile)
    board = scoreboard(judged, titles, profile)
    sections = root / "book" / "sections"
    for todo in plans:
        own = [item for item in judged if item.claim.notebook == todo.notebook.name]
        write_section(sections, todo, runs[todo.notebook.name], own)
    date = max((run["provenance"]["date"][:10] for run in runs.values()), default="")
    write_aside(sections / "scoreboard.md", board)
    write_aside(sections / "equations.md", equations)
    write_aside(sections / "summary.md", summary(judged, profile, date))
    say("claims: " + ", ".join(f"{n} {verdict}" for verdict, n in counts(judged).items()))
    return sphinx(root)


class BookFailed(Exception):
    """Sphinx refused the pages; the message holds its warnings."""


def plans_of_book(root, profile, device=None):
    """Return the Plan of every notebook of the book, at a profile and on a device."""
    plans = []
    for name in names(root):
        todo = plan(name, (), profile, root)
        if device is not None and "device" in todo.parameters:
            todo = plan(name, {"device": device}, profile, root)
        plans.append(todo)
    return plans


def finished_runs(claims, profile=DEFAULT_PROFILE, device=None, root=None):
    """Read the finished runs of the current sources.

    claims: list of Claim; profile, device, root: as for `build`.
    Returns a list of results, each the content of a NAME.json with its `path`.
    Raises UsageError where a notebook that a claim needs was not run.
    """
    found = {}
    root = root or project_root()
    for todo in plans_of_book(root, profile, device):
        result = finished(todo)
        if result is not None:
            path = todo.folder.relative_to(root) / f"{todo.notebook.name}.json"
            found[todo.notebook.name] = {**result, "path": str(path)}
    missing = [name for name in needed(claims, profile) if name not in found]
    if missing:
        on = f" --device {device}" if device else ""
        raise UsageError(
            f"not run yet with the present sources: {', '.join(missing)}; "
            f"first: companion build --profile {profile}{on}"
        )
    return list(found.values())


def run_all(plans):
    """Run or reuse the plans, saying on stderr which of how many and how long it takes.

    Returns {notebook name: content of its NAME.json}. Raises RunFailed at the first failure.
    """
    runs = {}
    past = {todo.notebook.name: _last_time(todo) for todo in plans}
    for index, todo in enumerate(plans):
        name, place = todo.notebook.name, f"[{index + 1}/{len(plans)}]"
        result = finished(todo)
        if result is not None:
            say(f"{place} {name}: already run, reused")
        else:
            left = [past[other.notebook.name] for other in plans[index:] if finished(other) is None]
            known = [seconds for seconds in left if seconds is not None]
            more = " or more" if len(known) < len(left) else ""
            about = f"about {duration(sum(known))}{more} left" if known else "time left not known"
            say(f"{place} {name}: running, {about} for the notebooks")
            keep = todo.root / ".companion" / "failed"
            result = execute(todo, keep, f"{place} {name}")
        runs[name] = result
    return runs


def write_section(sections, todo, result, judged):
    """Write a page of the book from a finished run, and its two downloads beside it.

    sections: folder book/sections; todo: Plan; result: content of the run's NAME.json; judged:
        list of Judged, the page's claims.
    The picture of a cell tagged `cover` becomes cover.png, for the title page.
    Raises UsageError where such a cell shows no PNG picture.
    """
    import nbformat

    name = todo.notebook.name
    executed = (todo.folder / f"{name}.ipynb").read_text(encoding="utf-8")
    write_aside(sections / "files" / f"{name}.ipynb", executed)
    write_aside(sections / "files" / f"{name}.md", todo.notebook.path.read_text(encoding="utf-8"))
    nb = nbformat.reads(executed, as_version=4)
    tags = [set(cell.metadata.get("tags", ())) for cell in nb.cells]
    cells = [cell for cell, own in zip(nb.cells, tags, strict=True) if "provenance" not in own]
    after = max(i for i, own in enumerate(tags) if own & {"parameters", "injected-parameters"})
    cells.insert(after + 1, _page_cell("companion-rerun", rerun_box(todo)))
    if judged:
        found = archived(f"{glob.escape(str(todo.root))}/book/archive/{name}-*.json")
        # what has no records is of `make bench`
        kept = {title: run for title, run in found.items() if "records" in run}
        cells.append(_page_cell("companion-numbers", numbers(judged, result, kept)))
    cells.append(_page_cell("companion-provenance", provenance_box(result)))
    nb.cells = cells
    for cell in cells:
        if cell.cell_type == "code":
            shown = map(_without_progress, _joined(cell.outputs))
            cell.outputs = [output for output in shown if output is not None]
    write_aside(sections / f"{name}.ipynb", notebook_text(nb))
    for cell in cells:
        if "cover" in cell.metadata.get("tags", ()):
            write_aside(sections / "cover.png", _picture(cell, name))


def rerun_box(todo):
    """Return the folded box that says with which parameters a page ran and how to rerun it.

    The three commands, here, on SLURM and by papermill alone, are for exactly these parameters.
    """
    name, values = todo.notebook.name, todo.parameters
    at_profile = resolve(todo.root, todo.notebook, todo.profile)
    other = {key: value for key, value in values.items() if value != at_profile[key]}
    start = ["companion", "run", name, "--profile", todo.profile]
    here = [*start, *(text for key in other for text in ("-p", key, str(other[key])))]
    cluster = ["companion", "sweep", name, "--profile", todo.profile]
    first = "seed" if "seed" in values else next(iter(values), None)
    axes = {first: values[first], **other} if values else {}  # a sweep has an axis at least
    cluster += [text for key in axes for text in ("--grid", f"{key}={axes[key]}")]
    # the notebook's own defaults stand in it: only what was set has to be said again
    changed = {k: v for k, v in values.items() if v != todo.notebook.parameters[k].default}
    alone = ["papermill", f"{name}.ipynb", "again.ipynb", "-k", "python3"]
    if changed:
        told = yaml.safe_dump(changed, default_flow_style=True, width=math.inf, sort_keys=False)
        alone += ["-y", told.strip()]
    rows = [
        (f"`{key}`", f"`{value!r}`", todo.notebook.parameters[key].meaning)
        for key, value in values.items()
    ]
    return "\n".join(
        [
            "::::{admonition} Rerun this page",
            ":class: dropdown tip",
            "",
            f"Profile `{todo.profile}`, with these parameters:",
            "",
            *table(("Parameter", "This run", "Meaning"), rows),
            "",
            "In a checkout of the project, on this machine:",
            "",
            *_shell([*here, "--out", "out"]),
            "",
            "On a SLURM cluster that a file describes (see the page *Rerunning*):",
            "",
            *_shell([*cluster, "--slurm", "book/slurm.yaml", "--out", "sweep"]),
            "",
            f"In a folder that holds {{download}}`the executed notebook <files/{name}.ipynb>`",
            "alone, where the project is installed with pip:",
            "",
            *_shell(alone),
            "",
            "Give any of them another value with `-p NAME VALUE`, in the second several with",
            "`--grid NAME=A,B`. To download, too:",
            f"{{download}}`the notebook's source <files/{name}.md>`.",
            "::::",
        ]
    )


def numbers(judged, result, kept):
    """Return the section that puts the published values beside kept runs and this one.

    judged: list of Judged of one page; result: content of the run's NAME.json; kept: {title:
        archived run} of the same notebook, from `archive.archived`.
    """
    facts = result["provenance"]
    here = f"This run, {result['profile']}, {facts['device']}, {facts['date'][:10]}"
    rows = []
    for item in judged:
        records = [run["records"].get(item.claim.record) for run in kept.values()]
        theirs = [f"{number(r['value'])} {r['unit']}".strip() if r else "–" for r in records]
        verdict = f"{SYMBOLS[item.verdict]} {item.verdict}"
        where = f"{item.claim.where}: {item.claim.statement}"
        rows.append((where, number(item.claim.published), *theirs, item.ours or "–", verdict))
    head = ("Statement", "Published", *(f"Kept: {title}" for title in kept), here, "Verdict")
    lines = ["## Published, kept and here", "", ":::{table}", ":class: scoreboard", ""]
    lines += [*table(head, rows), ":::"]
    for title, run in kept.items():
        shown = [about for about in run.get("figures", {}).values() if "file" in about]
        if not shown:
            continue
        lines += ["", f"::::{{admonition}} Figures of the run kept: {title}"]
        lines += [":class: dropdown note", ""]
        for about in shown:
            smaller = f" Shown at 1/{2 ** about['halved']} of its size." if about["halved"] else ""
            picture = f"![{about['alt']}](../archive/{about['file']})"
            lines += [picture, "", f"{about['caption']}{smaller}", ""]
        lines.append("::::")
    return "\n".join(lines)


def provenance_box(result):
    """Return the folded box that says where the numbers of a page come from."""
    facts = result["provenance"]
    dirty = ", with uncommitted changes" if facts["dirty"] else ""
    earlier = facts["resumed_jobs"]
    resumed = f", without the {earlier} jobs done before an interruption" if earlier else ""
    rows = [
        ("Commit", f"`{facts['commit']}`{dirty}" if facts["commit"] else "not a checkout"),
        ("Date", facts["date"]),
        ("Profile", f"`{result['profile']}`"),
        ("Seed", "none" if facts["seed"] is None else facts["seed"]),
        ("Device", f"{facts['device']}, {facts['threads']} threads"),
        ("Wall time", duration(facts["wall_seconds"]) + resumed),
        ("Peak memory", f"{facts['peak_memory_mib']} MiB"),
    ]
    if facts["peak_cuda_mib"] is not None:
        rows.append(("Peak GPU memory", f"{facts['peak_cuda_mib']} MiB"))
    rows += [("Versions", ", ".join(f"{k} {v}" for k, v in facts["versions"].items() if v))]
    opened = [
        f"{asset['name']} from {asset['source']} "
        f"(SHA-256 {asset['sha256'][:12]}, licence: {asset['licence']})"
        for asset in facts["assets"]
    ]
    if opened:
        rows.append(("Data and weights", "; ".join(opened)))
    rows += [("Key of the run", f"`{result['key'][:16]}`")]
    return "\n".join(
        [
            "::::{admonition} Provenance of this run",
            ":class: dropdown note",
            "",
            *table(("What", "This run"), rows),
            "::::",
        ]
    )


def sphinx(root):
    """Build the HTML of book/, strictly, unless nothing of it changed since the last time.

    Returns the path of the index page. Raises BookFailed with Sphinx's warnings.
    """
    html = root / "book" / "_build" / "html"
    stamp, log = root / ".companion" / "book.sha256", root / ".companion" / "book.log"
    state = _state(root)
    if (html / "index.html").is_file() and stamp.is_file() and stamp.read_text() == state:
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


def document_titles(root):
    """Return {bib key: title} of book/references.bib. Raises UsageError where it is missing."""
    from pybtex.database import parse_file

    path = root / "book" / "references.bib"
    if not path.is_file():
        raise UsageError("book/references.bib is missing")
    entries = parse_file(str(path)).entries
    plain = str.maketrans("", "", "{}")
    return {key: entry.fields.get("title", key).translate(plain) for key, entry in entries.items()}


def duration(seconds):
    """Return seconds as text: seconds up to two minutes, then minutes."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def say(text):
    """Tell the person who waits."""
    print(text, file=sys.stderr, flush=True)


def _shell(command):
    """Lines of a block that shows a command, quoted for a shell."""
    return ["```bash", shlex.join(command), "```"]


def _page_cell(identity, text):
    """A Markdown cell of a fixed id, so that the same run gives the same file."""
    import nbformat

    return nbformat.v4.new_markdown_cell(text, id=identity)


def _joined(outputs):
    """Join the pieces in which what a command prints arrives: they end anywhere in a line."""
    found, streams = [], {}
    for output in outputs:
        name = output.get("name") if output["output_type"] == "stream" else None
        if name in streams:
            streams[name]["text"] += output["text"]
            continue
        streams = {**streams, name: output} if name else {}
        found.append(output)
    return found


def _without_progress(output):
    """Take the lines of progress bars, which were for who waited, out of an output."""
    if output["output_type"] == "stream":
        lines = output["text"].split("\n")
        output["text"] = "\n".join(line for line in lines if "\r" not in line)
        return output if output["text"].strip() else None
    return output


def _picture(cell, name):
    """Return the bytes of the PNG picture that a cell tagged `cover` shows."""
    for output in cell.outputs:
        if "image/png" in output.get("data", {}):
            return base64.b64decode(output["data"]["image/png"])
    raise UsageError(f"notebook {name!r}: the cell tagged `cover` shows no PNG picture")


def _last_time(todo):
    """Seconds the notebook took when it last ran at this profile, None if it never did."""
    times = []
    pattern = f"{todo.notebook.name}-*/{todo.notebook.name}.json"
    for path in todo.folder.parent.glob(pattern):
        try:
            past = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:  # a damaged run tells no time
            continue
        if past["profile"] == todo.profile:
            times.append((past["provenance"]["date"], past["provenance"]["wall_seconds"]))
    return max(times)[1] if times else None


def _state(root):
    """Hash all that the pages are made of."""
    files = [root / "_config.yml", *sorted((root / "book").rglob("*"))]
    files += sorted((root / "otlib").rglob("*.py"))  # the reference is made from its docstrings
    digest = hashlib.sha256()
    tools = ("jupyter-book", "sphinx", "sphinx-book-theme", "myst-nb", "sphinx-mathjax-offline")
    digest.update(json.dumps(versions(tools)).encode())
    for path in files:
        if path.is_file() and "_build" not in path.relative_to(root).parts:
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
