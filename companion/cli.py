"""The command `companion`: list, run, sweep, build, compare, check, archive."""

import functools
import os
import re
import sys
from pathlib import Path

import click

from companion import archive as archives
from companion import build as book
from companion import cluster, report, results, sweep_page
from companion import compare as comparison
from companion import sweep as sweeps
from companion.claims import SYMBOLS, judge, load_claims
from companion.errors import UsageError, known
from companion.files import plain, project_root, write_aside
from companion.markdown import number
from companion.notebooks import DEFAULT_PROFILE, load, names, read_profiles, resolve
from companion.run import RunFailed, export, finished, plan
from companion.run import run as run_notebook
from companion.start import INTERRUPTED


def main(arguments=None):
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


def _unlike_profile(root, run):
    """What a run was given beside its profile, in words; seed and device make no other claim."""
    if run["profile"] not in read_profiles(root):
        return []
    expected = plain(resolve(root, load(root, run["notebook"]), run["profile"]))
    return [
        f"{key} is {run['parameters'].get(key)!r}, not {value!r}"
        for key, value in expected.items()
        if key not in ("seed", "device") and run["parameters"].get(key) != value
    ]


def _device(_context, _option, value):
    if value is not None and not re.fullmatch(r"cpu|cuda(:\d+)?", value):
        raise UsageError(f"--device {value!r}: allowed are cpu, cuda and cuda:N")
    return value


PROFILE = click.option(
    "--profile", default=DEFAULT_PROFILE, show_default=True, help="Sizes, from profiles.yml."
)
DEVICE = click.option("--device", callback=_device, help="cpu, cuda or cuda:N, for all notebooks.")


@click.group()
def app():
    """Run the notebooks of the paper companion, build its book, check its claims."""


@app.command("list")
def list_():
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
def run(notebook, profile, overrides, out):
    """Run one notebook, or reuse its finished run, and print where the results are."""
    if out is not None and out.exists() and not out.is_dir():
        raise UsageError(f"--out {str(out)!r} is a file, needs a folder")
    todo = plan(notebook, overrides, profile)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
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
def sweep(notebook, profile, axes, seeds, workers, scheduler, slurm, dry_run, out, page):
    """Run a notebook over a grid of parameters; exit 1 where a point failed."""
    if sum(option is not None for option in (workers, scheduler, slurm)) > 1:
        raise UsageError("--workers, --scheduler and --slurm exclude each other")
    if dry_run and slurm is None:
        raise UsageError("--dry-run shows a job script: needs --slurm")
    grid, plans = sweeps.points(notebook, axes, profile, seeds)
    if dry_run:
        with cluster.slurm_cluster(slurm, sweeps.on_gpu(plans)) as (made, jobs):
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
def build(profile, device):
    """Run what is not run yet, build the book and print the path of its index page."""
    print(book.build(profile, device))


RUNS = click.Path(path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)


@app.command()
@click.argument("runs", nargs=-1, required=True, type=RUNS)
@click.option("--out", type=FILE, default="comparison.html", show_default=True, help="The page.")
def compare(runs, out):
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
@click.option("--reference", type=RUNS, help="Runs that the records must agree with.")
@click.option("--junit", type=FILE, help="Write the verdicts as JUnit XML.")
@click.option("--html", type=FILE, help="Write the verdicts as one HTML page.")
@click.pass_context
def check(context, runs, profile, device, reference, junit, html):
    """Judge the claims on RUNS; exit 1 where one we stand by does not hold.

    RUNS are .json files of runs and folders of them, each at its own profile; without any, the
    finished runs of the present sources. With --reference each run is also held to the runs there
    of the same parameters, record by record, within what their seeds spread.
    """
    root = project_root()
    claims = load_claims(root)
    if runs:
        for name in ("profile", "device"):
            if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
                raise UsageError(f"--{name} is for the book's own runs: RUNS tell theirs")
        checked = [run for path in runs for run in results.read(path)]
        for run in checked:
            known(f"notebook in {run['path']}", run["notebook"], names(root))
    else:
        checked = book.finished_runs(claims, profile, device, root)
    suites, rows = [], [("claim", "published", "ours", "verdict", "")]
    for run in checked:
        own = [claim for claim in claims if claim.notebook == run["notebook"]]
        judged = judge(own, {run["notebook"]: run["records"]}, run["profile"])
        suites.append(report.of_claims(judged, run))
        for item in judged:
            verdict = f"{SYMBOLS[item.verdict]} {item.verdict}"
            rows.append(
                (item.claim.id, number(item.claim.published), item.ours, verdict, item.note)
            )
    tables = [report.columns(rows)]
    if reference is not None:
        sides = results.settings(reference)
        held = {side.notebook for side in sides}
        # of the whole book, those that the reference has; of RUNS, all
        own = [run for run in checked if runs or run["notebook"] in held]
        against = [report.of_reference(run, comparison.of_same_setting(run, sides)) for run in own]
        rows = [("record", "reference", "this run", "verdict", "")]
        for case in (case for suite in against for case in suite.cases):
            verdict = f"{case.symbol} {case.verdict}"
            rows.append((case.name, case.expected, case.found, verdict, case.remark))
        suites += against
        tables.append(report.columns(rows))
    for run in checked if runs else ():
        for told in _unlike_profile(root, run):
            book.say(f"{run['path']}: {told}; the claims are stated for the profile")
    if junit is not None:
        write_aside(junit, report.junit(suites))
    if html is not None:
        write_aside(html, report.check_page(suites))
    print("\n\n".join("\n".join(table) for table in tables))
    raise click.exceptions.Exit(1 if any(suite.failed for suite in suites) else 0)


@app.command()
@click.argument("result", type=click.Path(path_type=Path))
@click.argument("label")
def archive(result, label):
    """Keep records and small figures of RESULT, the .json of a finished run, in book/archive/."""
    for path in archives.archive(project_root(), result, label):
        print(path)
