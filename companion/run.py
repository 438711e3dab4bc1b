"""Run a notebook once for each source, parameters and code; keep what finished."""

import fcntl
import functools
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from companion import kernels, provenance
from companion.errors import UsageError
from companion.files import (
    notebook_text,
    numbers,
    plain,
    project_root,
    read_sealed,
    write_aside,
)
from companion.keys import code, key
from companion.notebooks import DEFAULT_PROFILE, Notebook, Overrides, load, resolve, written
from companion.page import facts
from companion.page.record import collect

_STARTS = 3  # of a kernel, at most
# what NAME.json says, and NAME.ipynb in its metadata, too
RESULT = ("notebook", "profile", "parameters", "records", "provenance", "key")


class RunFailed(Exception):
    """A notebook did not run to its end; the message names the cell and the notebook kept."""


@dataclass(frozen=True)
class Plan:
    """A run as it is to be: settled, not yet started."""

    root: Path
    notebook: Notebook
    profile: str
    parameters: dict
    key: str

    @property
    def folder(self) -> Path:
        """Where the finished run is kept."""
        return self.root / ".companion" / "runs" / f"{self.notebook.name}-{self.key[:16]}"

    @property
    def parts(self) -> Path:
        """Where the jobs that are done wait for the rest of the run: see `page.jobs`."""
        return self.root / ".companion" / "parts" / self.folder.name

    @property
    def failed(self) -> Path:
        """Where the notebook is kept if a cell fails."""
        return self.root / ".companion" / "failed"


def plan(
    name: str,
    overrides: Overrides = (),
    profile: str = DEFAULT_PROFILE,
    root: Path | None = None,
) -> Plan:
    """Settle a run without starting it.

    name: notebook; overrides: mapping or pairs (parameter, value); profile: name; root: project
        folder, found from the working folder if None.
    Returns a Plan. Raises UsageError as `load` and `resolve` do.
    """
    root = root or project_root()
    return settle(root, load(root, name), profile, overrides)


def settle(root: Path, notebook: Notebook, profile: str, overrides: Overrides) -> Plan:
    """As `plan`, with the notebook already read."""
    parameters = resolve(root, notebook, profile, overrides)
    return Plan(root, notebook, profile, parameters, key(root, notebook, profile, parameters))


def finished(plan: Plan) -> dict | None:
    """Return the parsed NAME.json of a finished, undamaged run of this plan, else None.

    It is none where what it wrote for the user is no longer there.
    """
    name = plan.notebook.name
    try:
        result = json.loads((plan.folder / f"{name}.json").read_text(encoding="utf-8"))
        data = (plan.folder / f"{name}.ipynb").read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
        # not run yet, cut off, or something else lies there
        return None
    if not isinstance(result, dict) or result.pop("notebook_sha256", None) != _sha256(data):
        return None
    # the notebook is whole, and vouches for each digit of the JSON
    told = json.loads(data)["metadata"]["companion"]
    if result.get("key") != plan.key or result != {name: told.get(name) for name in RESULT}:
        return None
    if not all(Path(path).exists() for path in written(plan.notebook, plan.parameters).values()):
        return None
    result["records"] = numbers(result["records"])
    return {**result, "notebook_sha256": _sha256(data)}


def times(plan: Plan) -> dict[str, float]:
    """Seconds that a notebook took when it last ran here, at each profile at which it did."""
    last: dict[str, tuple[str, float]] = {}
    name = plan.notebook.name
    for path in plan.folder.parent.glob(f"{name}-*/{name}.json"):
        try:
            past = json.loads(path.read_text(encoding="utf-8"))
            facts, profile = past["provenance"], str(past["profile"])
            told = str(facts["date"]), float(facts["wall_seconds"])
        except (OSError, ValueError, LookupError, TypeError):  # a damaged run tells no time
            continue
        last[profile] = max(last.get(profile, told), told)
    return {profile: seconds for profile, (_, seconds) in last.items()}


def run(
    name: str,
    overrides: Overrides = (),
    profile: str = DEFAULT_PROFILE,
    *,
    root: Path | None = None,
    keep: Path | None = None,
    label: str | None = None,
) -> Path:
    """Run a notebook, or find the finished run of the same plan.

    name, overrides, profile, root: as for `plan`; keep: folder for the notebook of a failed run
        (default .companion/failed); label: text before the progress bar.
    Returns the folder that holds NAME.ipynb and NAME.json.
    Raises UsageError before anything runs, RunFailed where a cell failed.
    """
    todo = plan(name, overrides, profile, root)
    if finished(todo) is None:
        execute(todo, keep or todo.failed, label or name)
    return todo.folder


def at_hand(plan: Plan) -> None:
    """Raise UsageError, before any work, where the autoencoder that a plan asks for cannot be had.

    plan: Plan. `otlib` takes another in its place, with a warning, which is no run of the plan.
    """
    name = plan.parameters.get("autoencoder", "pca16")
    if name.startswith("pca"):  # which come with the project
        return
    try:
        _loaded(name)
    except (OSError, ValueError) as error:
        told = f"{plan.notebook.name}: autoencoder={name!r} cannot be had"
        raise UsageError(f"{told}: {error}") from error


@functools.cache  # what is raised is not kept: asked again, it is looked for again
def _loaded(name):
    """Load an autoencoder, once a process, as its weights are large; ValueError for another."""
    from otlib.assets import autoencoders  # late: torch takes its time

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = autoencoders.load(name)
    if found.name != name:  # why is told once a process
        why = [str(each.message) for each in said if "In its place" in str(each.message)]
        raise ValueError(why[0].partition(". In its place")[0] if why else "as told before")


def execute(plan: Plan, keep: Path, label: str | None) -> dict:
    """Run a plan and put the result into its folder, whole or not at all.

    keep: folder for the notebook with its traceback if a cell fails; label: before the progress
        bar, None for none. Another process that runs the same plan is waited for, not doubled.
    Returns the content of NAME.json.
    Raises RunFailed where a cell failed and where the code is no longer the one of the plan, and
    UsageError as `at_hand` does.
    """
    name = plan.notebook.name
    at_hand(plan)
    if key(plan.root, plan.notebook, plan.profile, plan.parameters) != plan.key:
        # in a long build; the result would be filed under what the code was before
        raise RunFailed(f"{name}: its source or its code changed since the start; run again")
    plan.folder.parent.mkdir(parents=True, exist_ok=True)
    _clear(plan)
    with _locked(plan.root, plan.folder.name):
        # by another process, while this one waited
        return finished(plan) or _execute(plan, Path(keep), label)


def export(folder: Path, name: str, out: Path) -> list[Path]:
    """Copy NAME.ipynb and NAME.json of a finished run into the folder `out`; return their paths."""
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"{name}.ipynb", out / f"{name}.json"]
    for path in paths:
        write_aside(path, (folder / path.name).read_text(encoding="utf-8"))
    return paths


def _execute(plan, keep, label):
    name = plan.notebook.name
    checkout = provenance.commit(plan.root)
    # before it runs: what is edited meanwhile did not run
    used = code(plan.root, plan.notebook, plan.parameters)
    resumed = sum(read_sealed(part) is not None for part in plan.parts.glob("*"))
    prefix = f".{plan.folder.name}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=plan.folder.parent) as scratch:
        started, clock = datetime.now(UTC), time.perf_counter()
        nb = _papermill(plan, Path(scratch), keep, label)
        records = _records(nb, plan, keep)
        result = {
            "notebook": name,
            "profile": plan.profile,
            "parameters": plain(plan.parameters),
            "records": records,
            "provenance": {
                **checkout,
                "code": used,
                "date": started.isoformat(timespec="seconds"),
                "wall_seconds": round(time.perf_counter() - clock, 1),
                "resumed_jobs": resumed,
                "seed": plan.parameters.get("seed"),
                **_kernel_facts(nb, plan, keep),
            },
            "key": plan.key,
        }
        told = plain(result)
        nb["metadata"]["companion"].update(told)  # the notebook alone tells it all, too
        text = notebook_text(nb)
        result["notebook_sha256"] = _sha256(text.encode())
        whole = Path(scratch) / "whole"
        whole.mkdir()
        (whole / f"{name}.ipynb").write_text(text, encoding="utf-8")
        (whole / f"{name}.json").write_text(
            _json({**told, "notebook_sha256": result["notebook_sha256"]}), encoding="utf-8"
        )
        if plan.folder.is_dir():  # a damaged run
            shutil.rmtree(plan.folder)
        plan.folder.unlink(missing_ok=True)  # what is no folder
        os.replace(whole, plan.folder)
    shutil.rmtree(plan.parts, ignore_errors=True)
    return result


@contextmanager
def _locked(root, name, wait=True):
    """Hold the lock of a run; give whether it was got. A process that dies lets go of it."""
    path = root / ".companion" / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _clear(plan):
    """Remove the scratch folders (.NAME-KEY16-RANDOM) that killed processes left behind."""
    for left in plan.folder.parent.glob(".*-*-*"):
        with _locked(plan.root, left.name[1:].rpartition("-")[0], wait=False) as nobody_runs_it:
            if nobody_runs_it:
                shutil.rmtree(left, ignore_errors=True)  # another may be at it


def _papermill(plan, scratch, keep, label):
    """Execute in a kernel; return the executed notebook or keep the failed one and raise."""
    import jupytext
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    source, executed = scratch / "source.ipynb", scratch / "executed.ipynb"
    nb = jupytext.read(plan.notebook.path, fmt="md:myst")
    heavy = kernels.HEAVY if any("otlib" in cell.source for cell in nb.cells) else ()
    restored = plan.root / ".companion" / "restored"
    variables = {"COMPANION_PARTS": str(plan.parts), "COMPANION_RESTORED": str(restored)}
    # the user's paths, from where the user is: the kernel works in the project's folder
    given = {name: path for name, path in os.environ.items() if name.startswith("OTLIB_") and path}
    variables |= {name: os.path.abspath(path) for name, path in given.items()}
    kernel = kernels.manager(plan.root, heavy, variables)
    cell = nbformat.v4.new_code_cell(provenance.CELL, metadata={"tags": provenance.TAGS})
    nb.cells.append(cell)
    nbformat.write(nb, source)
    changed = {
        key: value
        for key, value in plan.parameters.items()
        if value != plan.notebook.parameters[key].default
    }
    if changed:
        nb = load_notebook_node(str(source))
        nb = parameterize_notebook(nb, changed, kernel_name="python3", language="python")
        nb.metadata.papermill["parameters"] = plain(changed)  # Infinity is not JSON
        nbformat.write(nb, source)
    execute_once = functools.partial(
        papermill.execute_notebook,
        # papermill fills in what stands between braces
        *(str(path).replace("{", "{{").replace("}", "}}") for path in (source, executed)),
        kernel_name="python3",
        language="python",
        progress_bar={"desc": label} if label else False,
        kernel_manager_class=kernel,
        # else each kernel warns of its local port, and Ctrl-C shows the kernel's traceback
        extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
        # progress bars inside a long cell are for a person who watches
        stderr_file=sys.stderr if label and sys.stderr.isatty() else None,
    )
    try:
        _patiently(execute_once, plan.notebook.name)
    except papermill.PapermillExecutionError as error:
        why = f"{error.ename}: {error.evalue}"
        raise _failure(_cleaned(executed, plan), plan, keep, why) from error
    except DeadKernelError as error:
        raise _failure(_cleaned(executed, plan), plan, keep, "the kernel died") from error
    return _cleaned(executed, plan)


def _patiently(execute_once, name):
    """Execute, again where the kernel died before it began.

    Its ports are chosen before it takes them: another program may have been faster.
    """
    for left in reversed(range(_STARTS)):
        try:
            return execute_once()
        except RuntimeError as error:
            if "died before replying" not in str(error):
                raise
            if not left:
                why = f"its kernel died {_STARTS} times before it began; is there memory enough?"
                raise RunFailed(f"notebook {name!r}: {why}") from error


def _cleaned(path, plan):
    """Read an executed notebook; leave no path of this machine in it."""
    import nbformat

    nb = nbformat.read(path, as_version=4)
    nb.metadata.papermill.update(
        input_path=f"notebooks/{plan.notebook.path.name}", output_path=f"{plan.notebook.name}.ipynb"
    )
    nb.metadata.setdefault("companion", {})
    return nb


def _records(nb, plan, keep):
    try:
        return collect(nb)
    except ValueError as error:
        raise _failure(nb, plan, keep, str(error)) from error


def _kernel_facts(nb, plan, keep):
    for output in nb.cells[-1].get("outputs", ()):
        if facts.MIME in output.get("data", {}):
            return output["data"][facts.MIME]
    # a cell that raises SystemExit(0) ends the notebook without an error
    raise _failure(nb, plan, keep, "the notebook stopped before its last cell")


def _failure(nb, plan, keep, why):
    """Keep the notebook of a failed run, and no JSON beside it; return the error to raise."""
    name = plan.notebook.name
    path = keep / f"{name}.ipynb"
    write_aside(path, notebook_text(nb))
    path.with_suffix(".json").unlink(missing_ok=True)
    return RunFailed(
        f"{name}: {_last_cell(nb)} failed: {why.splitlines()[0]}\nnotebook kept at {path}"
    )


def _last_cell(nb):
    """Name the last cell that was started: its place, and its `name` or else its first line."""
    own = [c for c in nb.cells if "papermill-error-cell-tag" not in c.metadata.get("tags", ())]
    started = [i for i, c in enumerate(own) if c.metadata.get("papermill", {}).get("start_time")]
    if not started:
        return "the kernel's start"
    cell = own[started[-1]]
    first = next((line.strip() for line in cell.source.splitlines() if line.strip()), "")
    return f"cell {started[-1] + 1} `{cell.metadata.get('name') or first}`"


def _sha256(data):
    return hashlib.sha256(data).hexdigest()


def _json(content):
    return json.dumps(content, indent=1, allow_nan=False) + "\n"
