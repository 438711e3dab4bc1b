"""A page of the book, made from a finished run: what is told around the executed notebook."""

import base64
import itertools
import math
import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from companion import cite
from companion.anchors import claim_anchor, claim_link
from companion.departures import departures
from companion.equations import functions_of, load_equations
from companion.errors import UsageError
from companion.files import notebook_text, write_aside
from companion.long_tables import folded
from companion.markdown import cards, duration, number, table
from companion.notebooks import of_profile
from companion.opening import opened
from companion.page.letters import lettered
from companion.page.record import collect
from companion.quoted import quoted
from companion.run import Plan
from companion.scoreboard import PUBLISHED
from companion.verdicts import SYMBOLS, Judged

_LINES = 8  # of code that a page shows open
_MOST = 100_000  # characters of a picture in a notebook that is offered
_ENDS = (math.inf, -math.inf)
_GLUE = re.compile(r"\{glue:text\}`(\w+)(:[^`]*)?`")


def write_section(
    sections: Path, todo: Plan, result: dict, judged: list[Judged], kept: list[dict]
) -> None:
    """Write a page of the book from a finished run, and its two downloads beside it.

    sections: folder book/sections; todo: Plan; result: content of the run's NAME.json; judged:
        list of Judged, the page's claims; kept: runs of `verdicts.kept_runs`.
    The picture of a cell tagged `cover` becomes cover.png, for the title page; the card of a lead
    that is no plot becomes small/NAME.webp.
    Raises UsageError where such a cell shows no PNG picture.
    """
    import nbformat

    from companion.page.figures import CARD  # late: matplotlib takes its time

    name = todo.notebook.name
    executed = (todo.folder / f"{name}.ipynb").read_text(encoding="utf-8")
    write_aside(sections / "files" / f"{name}.ipynb", _offered(executed))
    write_aside(sections / "files" / f"{name}.md", todo.notebook.path.read_text(encoding="utf-8"))
    nb = nbformat.reads(executed, as_version=4)
    tags = [set(cell.metadata.get("tags", ())) for cell in nb.cells]
    cells = [cell for cell, own in zip(nb.cells, tags, strict=True) if "provenance" not in own]
    after = max(i for i, own in enumerate(tags) if own & {"parameters", "injected-parameters"})
    used = functions_of(load_equations(todo.root), name)
    code = f"Its formulas in `otlib`: {', '.join(used)}.\n" if used else ""
    told = "\n".join(filter(None, [code, departures(todo), rerun_box(todo)]))
    cells.insert(after + 1, _page_cell("companion-rerun", told))
    if judged:
        own = [run for run in kept if run["notebook"] == name]
        cells = _anchored(cells, judged)
        told = f"(numbers-{name})=\n{numbers(judged, own)}"
        cells.append(_page_cell("companion-numbers", told))
    cells.append(_page_cell("companion-provenance", provenance_box(result)))
    entries = cite.of_page(todo.root, name, todo.notebook.document, cells, result)
    cells.append(_page_cell("companion-cite", entries))
    nb.cells = cells = opened(folded(_labelled(cells), name), name, judged)
    infinite = {n: r["value"] for n, r in result["records"].items() if r["value"] in _ENDS}
    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = quoted(cell.source, name, kept)
        if cell.cell_type == "markdown" and infinite:
            cell.source = _GLUE.sub(lambda told: _infinite(told, infinite), cell.source)
        if cell.cell_type == "code":
            shown = map(_without_progress, _joined(cell.outputs))
            cell.outputs = [output for output in shown if output is not None]
            _with_data(sections, name, cell)
            cards_of = [o.data.pop(CARD) for o in cell.outputs if CARD in o.get("data", {})]
            if cards_of and cell.id == "companion-lead":
                card = base64.b64decode(cards_of[0])
                write_aside(sections / "small" / f"{name}.webp", card)
    write_aside(sections / f"{name}.ipynb", notebook_text(nb))
    for cell in cells:
        if "cover" in cell.metadata.get("tags", ()):
            write_aside(sections / "cover.png", _picture(cell, name))


def _with_data(sections, name, cell):
    """Write the numbers that a figure plots beside the page, and link them in its caption."""
    from companion.page.plotted import MIME  # late: matplotlib takes its time

    figure = cell.metadata.get("mystnb", {}).get("figure")
    told = [output.data.pop(MIME) for output in cell.outputs if MIME in output.get("data", {})]
    if figure and told:
        file = f"files/{name}-{figure['name'].removeprefix('fig-')}.csv"
        write_aside(sections / file, told[0])
        link = f"{{download}}`Its data as CSV <{file}>`."
        figure["caption"] = f"{figure['caption'].strip()} {link}\n"


def _offered(executed):
    """An executed notebook without its large pictures, which the page has and a run makes again."""
    import nbformat

    from companion.page.figures import CARD  # late, as above

    nb = nbformat.reads(executed, as_version=4)
    for output in (output for cell in nb.cells for output in cell.get("outputs", ())):
        data = output.get("data", {})
        data.pop(CARD, None)
        for kind in [kind for kind, shown in data.items() if len(shown) > _MOST]:
            if kind.startswith(("image/", "text/html")):
                del data[kind]
                data["text/plain"] = "a picture, to be seen on the page of the book"
    return notebook_text(nb)


def beside_profile(todo: Plan) -> dict[str, Any]:
    """The parameters of a plan that are not those of its profile: {name: value}."""
    at_profile = of_profile(todo.root, todo.notebook, todo.profile)
    return {name: value for name, value in todo.parameters.items() if value != at_profile[name]}


def run_command(todo: Plan) -> list[str]:
    """The words of the command that runs a plan."""
    other = beside_profile(todo).items()
    told = [word for name, value in other for word in ("-p", name, str(value))]
    return ["companion", "run", todo.notebook.name, "--profile", todo.profile, *told]


def rerun_box(todo: Plan) -> str:
    """Return the folded box that says with which parameters a page ran and how to rerun it.

    The three commands, here, on SLURM and by papermill alone, are for exactly these parameters.
    """
    name, values = todo.notebook.name, todo.parameters
    other = beside_profile(todo)
    cluster = ["companion", "sweep", name, "--profile", todo.profile]
    first = "seed" if "seed" in values else next(iter(values), None)
    # a sweep has an axis at least
    axes = {} if first is None else {first: values[first], **other}
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
            ":class: dropdown tip rerun",
            "",
            f"Profile `{todo.profile}`, with these parameters:",
            "",
            *table(("Parameter", "This run", "Meaning"), rows),
            "",
            "In a checkout of the project, on this machine:",
            "",
            *_shell([*run_command(todo), "--out", "out"]),
            "",
            "On a SLURM cluster that a file describes (see the page *Rerunning*):",
            "",
            *_shell([*cluster, "--slurm", "book/slurm.yaml", "--out", "sweep"]),
            "",
            f"In a folder that holds {{download}}`the executed notebook <files/{name}.ipynb>`",
            "(without its largest pictures) alone, where the project is installed with pip:",
            "",
            *_shell(alone),
            "",
            "Give any of them another value with `-p NAME VALUE`, in the second several with",
            "`--grid NAME=A,B`. To download, too:",
            f"{{download}}`the notebook's source <files/{name}.md>`.",
            "::::",
        ]
    )


def numbers(judged: list[Judged], kept: list[dict]) -> str:
    """Return the section that puts the published values beside what each run says.

    judged: list of Judged of one page; kept: the archived runs of its notebook.
    """
    answered = [item for item in judged if not item.claim.takes]
    depths = {a.run: (a.depth, a.kept) for item in answered for a in item.answers}
    # at one distance from the document what is kept stands before what was run here
    runs = sorted(depths, key=lambda title: (depths[title][0], not depths[title][1]))
    grades = {a.run: a.rank.grade for item in answered for a in item.answers}
    short = _short(runs)
    columns = (f"{grades[title]}: {name}" for title, name in short.items())
    head = ("Statement", "Verdict", "Published", *columns)
    lines = ["## Published, archived and here", ""]
    published = [item for item in answered if item.claim.kind in PUBLISHED]
    if published:
        lines += [*cards(head, [_row(item, runs) for item in published]), ""]
    if others := [item for item in answered if item not in published]:
        told = f"Identities, and what is said by us alone: {len(others)}"
        lines += [f"::::{{admonition}} {told}", ":class: dropdown note", ""]
        lines += [*cards(head, [_row(item, runs) for item in others]), "", "::::", ""]
    lines += _of_runs(short, kept)
    beyond = [item.claim for item in judged if item.claim.takes]
    if beyond:
        why = claim_link("scoreboard", beyond[0].id, "why")
        more = "more " * bool(answered)
        noun = "number" if len(beyond) == 1 else "numbers"
        lines += ["", f"{len(beyond)} {more}{noun} that no run here can answer: {why}."]
    for run in kept:
        shown = [about for about in run.get("figures", {}).values() if "file" in about]
        if not shown:
            continue
        lines += ["", f"::::{{admonition}} Figures of the archived run: {run['kept']}"]
        lines += [":class: dropdown note", ""]
        for about in shown:
            smaller = f" Shown at 1/{2 ** about['halved']} of its size." if about["halved"] else ""
            picture = [f"```{{image}} ../archive/{about['file']}", f":alt: {about['alt']}"]
            picture += [":loading: lazy", "```"]  # who does not open the fold does not wait for it
            lines += [*picture, "", f"{about['caption']}{smaller}", ""]
        lines.append("::::")
    return "\n".join(lines)


def _row(item, runs):
    """The cells of a claim: statement, verdict, what is published, what each run says."""
    said = {a.run: f"{SYMBOLS[a.verdict]} {a.ours}" for a in item.answers}
    where = lettered(f"{item.claim.where}: {item.claim.statement}")
    row = claim_link("scoreboard", item.claim.id, item.shown)
    return where, row, number(item.claim.published), *(said.get(title, "–") for title in runs)


def _short(titles):
    """The name of each run's column: the first words of its title, numbered where shared."""
    first = [title.partition(", ")[0] for title in titles]
    nth = {name: itertools.count(1) for name in first}
    names = [f"{name} {next(nth[name])}" if first.count(name) > 1 else name for name in first]
    return dict(zip(titles, names, strict=True))


def _of_runs(short, kept):
    """A list that says of each run, by the name of its column, what and of when it is."""
    files = {
        run["kept"]: f"{run['notebook']}-{run['kept'].partition(', ')[0]}.json" for run in kept
    }
    lines = []
    for title, name in short.items():
        file = files.get(title)
        data = f"; {{download}}`its records <../archive/{file}>`" if file else ""
        lines.append(f"- **{name}**: {title.partition(', ')[2]}{data}")
    return lines


def provenance_box(result: dict) -> str:
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


def _labelled(cells):
    """The cells with names on their folds; the fold *Rerun this page* holds the parameters.

    Code that a page shows open is short, so that the text around it can be read on.
    """
    for cell in cells:
        tags = cell.metadata.get("tags", [])
        if {"parameters", "injected-parameters"} & set(tags):
            cell.metadata["tags"] = [*tags, "remove-cell"]
        elif cell.cell_type == "code" and (
            "hide-input" in tags or len(cell.source.splitlines()) > _LINES
        ):
            cell.metadata["tags"] = sorted({*tags, "hide-input"})
            told = cell.metadata.get("mystnb", {})
            figure = told.get("figure", {}).get("name", "").removeprefix("fig-")
            made = cell.metadata.get("name", f"figure {figure}" if figure else "this table")
            told["code_prompt_show"] = f"Code: {made.replace('-', ' ')}"
            told["code_prompt_hide"] = "Hide the code"
            cell.metadata["mystnb"] = told
    return cells


def _anchored(cells, judged):
    """The cells with the anchors of the claims before those that make their records.

    What no cell here records, such as a claim that no run can answer, has its anchor at the end.
    """
    left = {item.claim.id: item.claim.record for item in judged}
    found: list = []
    for cell in cells:
        made = collect({"cells": [cell]})
        here = [name for name, record in left.items() if record in made]
        if here:
            found.append(_page_cell(f"companion-claims-{len(found)}", _anchors(here)))
        found.append(cell)
        left = {name: record for name, record in left.items() if name not in here}
    return [*found, _page_cell("companion-claims", _anchors(left))] if left else found


def _anchors(names):
    """One element around all, so that the style sheet finds the cell behind it."""
    return f'<div class="claims">{"".join(map(claim_anchor, names))}</div>'


def _infinite(told, infinite):
    """A role that quotes a record, as the sign where the record is infinite: it would say inf."""
    return number(infinite[told[1]]) if told[1] in infinite else told[0]


def _shell(command):
    """Lines of a block that shows a command, quoted for a shell."""
    return ["```bash", shlex.join(command), "```"]


def _page_cell(identity, text):
    """A Markdown cell of a fixed id, so that the same run gives the same file."""
    import nbformat

    return nbformat.v4.new_markdown_cell(text, id=identity)


def _joined(outputs):
    """Join the pieces in which what a command prints arrives: they end anywhere in a line."""
    found: list = []
    streams: dict = {}
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
