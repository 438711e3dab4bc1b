"""What a sweep costs beside the cells of its notebook: seconds a point, memory over many points."""

import argparse
import functools
import json
import statistics
import sys
import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path

import psutil

from companion import cluster, keys, provenance
from companion.files import write_aside
from companion.page import facts
from companion.sweep import points, sweep

ROOT = Path(__file__).parents[1]
EARLY = 0.1  # of the points: until then workers still import and caches still fill


def bench(notebook, seeds, workers, project=ROOT):
    """Sweep a notebook over seeds at profile smoke, with nothing run before; return the figures.

    notebook: name; seeds: number of points, 10 or more; workers: processes; project: folder.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("notebooks", "otlib", "book"):
            (root / name).symlink_to(project / name)
        grid, plans = points(notebook, (), "smoke", seeds, root)
        memory, stop = [], threading.Event()
        watcher = threading.Thread(target=_watch, args=(plans, memory, stop))
        watcher.start()
        try:
            _, ended = sweep(grid, plans, functools.partial(cluster.local, workers, seeds))
        finally:
            stop.set()
            watcher.join()
        failed = [point["error"] for point in ended if point["status"] == "failed"]
        assert not failed, failed[0]
        ends, own = [], []
        for todo in sorted(plans, key=lambda todo: todo.folder.stat().st_mtime):
            nb = json.loads((todo.folder / f"{notebook}.ipynb").read_text(encoding="utf-8"))
            ends.append(todo.folder.stat().st_mtime)
            own.append(
                sum(
                    cell["metadata"].get("papermill", {}).get("duration") or 0
                    for cell in nb["cells"]
                )
            )
    first = max(workers, int(EARLY * seeds))
    point = workers * (ends[-1] - ends[first - 1]) / (seeds - first)
    cells = statistics.mean(own[first:])
    return {
        "notebook": notebook,
        "points": seeds,
        "workers": workers,
        "seconds_a_point": round(point, 2),
        "seconds_in_its_cells": round(cells, 2),
        "seconds_beside": round(point - cells, 2),
        "memory_mib": {
            name: _early_and_late(memory, name, seeds) for name in memory[-1] if name != "done"
        },
        "provenance": {
            **provenance.commit(ROOT),
            "code": keys.whole(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "device": facts.cpu_model(),
            "load": [round(load, 1) for load in psutil.getloadavg()],
            "versions": facts.versions(("torch", "papermill", "jupyter_client", "distributed")),
        },
    }


def _watch(plans, memory, stop):
    """Sample the resident memory of this process, the workers and what their kernels fork from."""
    here = psutil.Process()
    while not stop.wait(0.5):
        sample = {"driver": here.memory_info().rss, "workers": 0, "warm": 0}
        for child in here.children(recursive=True):
            try:
                command = " ".join(child.cmdline())
                if "kernels.py" in command:
                    # a kernel looks as the process it was forked from, and is gone after its point
                    if "kernels.py" not in " ".join(child.parent().cmdline()):
                        sample["warm"] += child.memory_info().rss
                elif "spawn_main" in command:
                    sample["workers"] += child.memory_info().rss
            except (psutil.Error, AttributeError):  # it ended meanwhile
                continue
        sample["done"] = sum(todo.folder.is_dir() for todo in plans)
        memory.append(sample)


def _early_and_late(memory, name, seeds):
    """Median MiB over a tenth of the points, once they run smoothly and at the end."""
    found = {}
    for when, start in {"early": EARLY, "late": 1 - EARLY}.items():
        window = range(int(start * seeds), int((start + EARLY) * seeds))
        values = [sample[name] for sample in memory if sample["done"] in window]
        found[when] = round(statistics.median(values) / 2**20) if values else None
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--notebook", default="errata")
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    result = bench(options.notebook, options.points, options.workers)
    write_aside(options.out, json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1), file=sys.stderr)


if __name__ == "__main__":
    main()
