"""The command `companion`: list, run, sweep, campaign, pack, build, serve, compare, ..."""

import functools
import os
import re
import signal
import sys
from pathlib import Path
from typing import NoReturn

import click

from companion import archive as archives
from companion import build as book
from companion import campaign as campaigns
from companion import check as checking
from companion import cluster, report, sweep_page
from companion import compare as comparison
from companion import pack as packing
from companion import pdf as printer
from companion import sweep as sweeps
from companion.errors import UsageError
from companion.files import project_root, writable, write_aside
from companion.notebooks import DEFAULT_PROFILE, load, names, read_profiles
from companion.run import RunFailed, export, finished, plan
from companion.run import run as run_notebook
from companion.start import INTERRUPTED


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit; errors of use are one line on stderr and exit code 2.

    arguments: list of str, the process's own if None; then Python is started anew in UTF-8 where
        the locale has another encoding, for files and arguments in it could not be told apart.
    """
    if arguments is None and sys.getfilesystemencoding().lower() != "utf-8":
        os.environ.setdefault("PYTHONIOENCODING", f"{sys.stdout.encoding}:replace")
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, sys.orig_argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a mark that a log cannot show is no failure
    try:
        code = app(arguments, prog_name="companion", standalone_mode=False) or 0
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        code = 0
    except (UsageError, click.ClickException) as error:
        text = error.format_message() if isinstance(error, click.ClickException) else str(error)
        print("companion: " + " ".join(text.split()), file=sys.stderr)
        code = 2
    except (RunFailed, book.BookFailed, OSError) as error:
        print(f"companion: {error}", file=sys.stderr)
        code = 1
    except (KeyboardInterrupt, click.Abort):
        print(INTERRUPTED, file=sys.stderr)
        code = 130
    sys.exit(code)


def _device(_context, _option, value):
    if value is not None and not re.fullmatch(r"cpu|cuda(:\d+)?", value):
        raise UsageError(f"--device {value!r}: allowed are cpu, cuda and cuda:N")
    return value


def _with_device(overrides, device):
    return [*overrides, *([("device", device)] if device else [])]


FILE = click.Path(dir_okay=False, path_type=Path)
PROFILE = click.option(
    "--profile", default=DEFAULT_PROFILE, show_default=True, help="Sizes, from profiles.yml."
)
DEVICE = click.option("--device", callback=_device, help="cpu, cuda or cuda:N, for all notebooks.")
PAGES = click.option(
    "--page",
    "--pages",
    "pages",
    multiple=True,
    callback=lambda _context, _option, values: [n for text in values for n in text.split(",")],
    metavar="NAME[,NAME]",
    help="Only these notebooks.",
)
EVERYWHERE = click.option(
    "-p",
    "overrides",
    nargs=2,
    multiple=True,
    metavar="NAME VALUE",
    help="Set a parameter of all notebooks that have it.",
)


@click.group()
def app() -> None:
    """Run the notebooks of the paper companion, build its book, check its claims."""


@app.command("list")
def list_() -> None:
    """Show the notebooks, their parameters and the profiles."""
    root = project_root()
    for name in names(root):
        notebook = load(root, name)
        source = ", ".join(part for part in (notebook.document, notebook.section) if part)
        print(f"{name}: {notebook.title}" + (f" ({source})" if source else ""))
        for p in notebook.parameters.values():
            print(f"  {p.name}: {p.type} = {p.default!r}" + (f"  # {p.meaning}" * bool(p.meaning)))
    print("profiles: " + ", ".join(read_profiles(root)))


@app.command()
@click.argument("notebook")
@PROFILE
@click.option(
    "-p", "overrides", nargs=2, multiple=True, metavar="NAME VALUE", help="Set a parameter."
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the .ipynb and .json.")
def run(
    notebook: str, profile: str, overrides: tuple[tuple[str, str], ...], out: Path | None
) -> None:
    """Run one notebook, or reuse its finished run, and print where the results are."""
    if out is not None and out.exists() and not out.is_dir():
        raise UsageError(f"--out {str(out)!r} is a file, needs a folder")
    todo = plan(notebook, overrides, profile)
    if out is not None:
        writable(out)
    if finished(todo):
        book.say(f"{notebook}: already run, reused")
    folder = run_notebook(notebook, overrides, profile, root=todo.root, keep=out)
    paths = [folder / f"{notebook}.ipynb", folder / f"{notebook}.json"]
    for path in paths if out is None else export(folder, notebook, out):
        print(path)


@app.command()
@click.argument("notebook")
@PROFILE
@click.option(
    "--grid", "axes", multiple=True, metavar="NAME=VALUE,VALUE", help="Values of a parameter."
)
@click.option("--seeds", type=click.IntRange(min=1), help="Seeds 0, 1, ... at each point.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes here.  [default: cores]")
@click.option("--scheduler", metavar="ADDRESS", help="Run on this Dask cluster, tcp://HOST:PORT.")
@click.option("--slurm", type=click.Path(path_type=Path), help="Run on SLURM as a YAML file says.")
@click.option("--dry-run", is_flag=True, help="With --slurm: show the job script, run nothing.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the results.")
@click.option("--page", is_flag=True, help="Put the plots into the book, at its next build.")
def sweep(
    notebook: str,
    profile: str,
    axes: tuple[str, ...],
    seeds: int | None,
    workers: int | None,
    scheduler: str | None,
    slurm: Path | None,
    dry_run: bool,
    out: Path | None,
    page: bool,
) -> None:
    """Run a notebook over a grid of parameters; exit 1 where a point failed."""
    if sum(option is not None for option in (workers, scheduler, slurm)) > 1:
        raise UsageError("--workers, --scheduler and --slurm exclude each other")
    if dry_run and slurm is None:
        raise UsageError("--dry-run shows a job script: needs --slurm")
    grid, plans = sweeps.points(notebook, axes, profile, seeds)
    if dry_run and slurm is not None:
        with cluster.slurm_cluster(slurm, cluster.on_gpu(plans)) as (made, jobs):
            print(made.job_script())
            book.say(f"{len(plans)} points, {jobs} of these jobs; nothing was submitted")
        return
    if scheduler is not None:
        connect = functools.partial(cluster.remote, scheduler)
    elif slurm is not None:
        connect = functools.partial(cluster.slurm, slurm)
    else:
        connect = functools.partial(cluster.local, workers, len(plans))
    out, ended = sweeps.sweep(grid, plans, connect, out)
    failed = [entry for entry in ended if entry["status"] == "failed"]
    for entry in failed:
        where = ", ".join(f"{name}={entry['parameters'][name]}" for name in grid)
        book.say(f"failed at {where}: {entry['error']}")
    for name in ("sweep.json", "table.csv", "table.parquet"):
        print(out / name)
    if page:
        print(sweep_page.write(plans[0].root, out))
    raise click.exceptions.Exit(1 if failed else 0)


@app.command()
@PROFILE
@DEVICE
@PAGES
@EVERYWHERE
@click.option(
    "--budget", metavar="TIME", help="As 2h, 90m or 1h30m: then stop and keep what is done."
)
@click.option("--label", help="Archive each page that is done under this label.")
@click.option("--replace", is_flag=True, help="Also where the label holds another run.")
@click.option("--dry-run", is_flag=True, help="Show the order and the times expected, run nothing.")
@click.option(
    "--packed",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Run what `pack` wrote there, unpacked into FOLDER/unpacked, in its own environment.",
)
@click.pass_context
def campaign(
    context: click.Context,
    profile: str,
    device: str | None,
    pages: tuple[str, ...],
    overrides: tuple[tuple[str, str], ...],
    budget: str | None,
    label: str | None,
    replace: bool,
    dry_run: bool,
    packed: Path | None,
) -> None:
    """Run the pages of a profile within a budget, first what settles most claims a second.

    What was interrupted, by the budget or otherwise, goes on at its next job. Exit 1 where a page
    failed or could not be archived; the others were run.
    """
    if packed is not None:
        unpack = packed / "unpack.py"
        if not unpack.is_file():
            raise UsageError(f"--packed {str(packed)!r}: needs a folder that `pack` wrote")
        words = [sys.executable, unpack, packed / "unpacked", *_words(context, "packed")]
        os.execv(sys.executable, words)
    # as Ctrl-C: the page that runs keeps its finished jobs
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    seconds = None if budget is None else campaigns.seconds_of(budget)
    todo = campaigns.steps(project_root(), profile, pages, _with_device(overrides, device))
    if dry_run:
        print("\n".join(report.columns(campaigns.table(todo))))
        return
    ended = campaigns.campaign(todo, seconds, label, replace, book.say)
    print("\n".join(report.columns(campaigns.account(ended))))
    bad = any(end.what in ("failed", "not archived") for end in ended)
    raise click.exceptions.Exit(1 if bad else 0)


def _words(context, without):
    """The options of the command line, but one, as they would be typed again."""
    words = []
    for option in context.command.params:
        typed = context.get_parameter_source(option.name) is click.core.ParameterSource.COMMANDLINE
        if typed and option.name != without:
            value = context.params[option.name]
            for one in value if option.multiple else [value]:
                rest = [] if option.is_flag else one if option.nargs > 1 else [one]
                words += [option.opts[0], *rest]
    return words


@app.command()
@click.argument("folder", type=click.Path(path_type=Path))
@PROFILE
@EVERYWHERE
@PAGES
@click.option("--without", multiple=True, metavar="PACKAGE", help="That the other machine has.")
@click.option(
    "--part",
    "part_mib",
    type=click.IntRange(min=1),
    default=packing.PART_MIB,
    show_default=True,
    help="Size of a part at most, MiB.",
)
@click.option(
    "--python",
    default=packing.unpack.PYTHON,
    show_default=True,
    metavar="VERSION",
    help="Of the other machine.",
)
def pack(
    folder: Path,
    profile: str,
    overrides: tuple[tuple[str, str], ...],
    pages: tuple[str, ...],
    without: tuple[str, ...],
    part_mib: int,
    python: str,
) -> None:
    """Write a campaign with its packages and data into FOLDER, for a machine without a network.

    There, with that version of Python: python3 FOLDER/unpack.py NEW [arguments of campaign].
    """
    root = project_root()
    for path in packing.pack(
        root, folder, profile, overrides, pages, without, part_mib, python, say=book.say
    ):
        print(path)


@app.command()
@PROFILE
@DEVICE
@EVERYWHERE
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    help="Notebooks run side by side, the cores shared out.  [default: 1]",
)
@click.option("--pdf", type=FILE, help="Print the book into this file, too, by Chromium.")
def build(
    profile: str,
    device: str | None,
    overrides: tuple[tuple[str, str], ...],
    workers: int,
    pdf: Path | None,
) -> None:
    """Run what is not run yet, build the book and print the path of its index page."""
    if pdf is not None:
        writable(pdf.absolute().parent)
        printer.needed()
    index = book.build(profile, _with_device(overrides, device), workers=workers)
    print(index)
    if pdf is not None:
        printer.write_pdf(project_root(), pdf)
        print(pdf)


@app.command()
@click.option("--host", metavar="ADDRESS", help="Listen there, too: with a token.  [default: here]")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True)
@click.option("--profile", help="Of the forms.  [default: that of each built page]")
@DEVICE
@click.option(
    "--folder",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Whose files the forms may name, and others so.",
)
@click.option(
    "--jobs",
    "at_once",
    type=click.IntRange(1, 16),
    default=1,
    show_default=True,
    help="Runs at once.",
)
def serve(
    host: str | None,
    port: int,
    profile: str | None,
    device: str | None,
    folders: tuple[Path, ...],
    at_once: int,
) -> None:
    """Serve the built book, on this machine alone: there its pages can be rerun from a form."""
    from companion.serve.command import serve as serve_book  # late: the extra `serve`

    serve_book(project_root(), host, port, profile, device, folders, at_once)


RUNS = click.Path(path_type=Path)


@app.command()
@click.argument("runs", nargs=-1, required=True, type=RUNS)
@click.option("--out", type=FILE, default="comparison.html", show_default=True, help="The page.")
def compare(runs: tuple[Path, ...], out: Path) -> None:
    """Put RUNS side by side: .json files of runs, folders of runs, sweeps.

    The first setting of a notebook is what the others are compared with; runs that differ by their
    seed alone are one setting, whose spread tells which differences count.
    """
    found = comparison.compare(runs)
    write_aside(out, report.comparison_page(found))
    for line in report.lines(found):
        print(line)
    print(out)


@app.command()
@click.argument("runs", nargs=-1, type=RUNS)
@PROFILE
@DEVICE
@EVERYWHERE
@click.option("--reference", type=RUNS, help="Runs that the records must agree with.")
@click.option("--junit", type=FILE, help="Write the verdicts as JUnit XML.")
@click.option("--html", type=FILE, help="Write the verdicts as one HTML page.")
@click.pass_context
def check(
    context: click.Context,
    runs: tuple[Path, ...],
    profile: str,
    device: str | None,
    overrides: tuple[tuple[str, str], ...],
    reference: Path | None,
    junit: Path | None,
    html: Path | None,
) -> None:
    """Judge the claims on RUNS; exit 1 where one we stand by does not hold.

    RUNS are .json files of runs and folders of them, each at its own profile; without any, the
    finished runs of the present sources. With --reference each run is also held to the runs there
    of the same parameters, record by record, within what their seeds spread.
    """
    if runs:
        for name in ("profile", "device", "overrides"):
            if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
                option = "-p" if name == "overrides" else f"--{name}"
                raise UsageError(f"{option} is for the book's own runs: RUNS tell theirs")
    given = _with_device(overrides, device)
    found = checking.check(project_root(), runs, profile, given, reference)
    for told in found.remarks:
        book.say(told)
    if junit is not None:
        write_aside(junit, report.junit(found.suites))
    if html is not None:
        write_aside(html, report.check_page(found.suites))
    print("\n\n".join("\n".join(report.columns(rows)) for rows in found.tables))
    raise click.exceptions.Exit(1 if any(suite.failed for suite in found.suites) else 0)


@app.command()
@click.argument("result", type=click.Path(path_type=Path))
@click.argument("label")
def archive(result: Path, label: str) -> None:
    """Keep records and small figures of RESULT, the .json of a finished run, in book/archive/."""
    for path in archives.archive(project_root(), result, label):
        print(path)
