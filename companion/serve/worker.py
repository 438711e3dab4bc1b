"""The process in which runs are made: one after the other, its warm kernels kept between them.

It is asked in lines of JSON on stdin and answers in such lines: for a run to be made, or for the
turn of one to be stopped, which is as with Ctrl-C: the jobs of it that are done are kept. It ends
when who asks is gone.
"""

import functools
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from companion import cluster
from companion import sweep as sweeps
from companion.errors import UsageError
from companion.run import RunFailed, execute, finished, plan
from companion.serve.progress import CELLS, Bars

_OFTEN = 0.2  # seconds between two tellings of one bar
_PATIENCE = 5  # seconds to clean up in, where who asked is gone


def main() -> None:
    """Make the runs that are asked for, until nobody asks."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer

    def say(**told: Any) -> None:
        answers.write(json.dumps(told) + "\n")
        answers.flush()

    asked: queue.Queue[dict | None] = queue.Queue()
    stopped: set[int] = set()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_listen, args=(asked, stopped), daemon=True).start()
    while (request := asked.get()) is not None:
        say(**_answered(request, stopped, say))


def _listen(asked, stopped):
    """Pass on what is asked; at the end stop the run, then the process."""
    for line in sys.stdin:
        told = json.loads(line)
        if "stop" not in told:
            asked.put(told)
            continue
        stopped.add(told["stop"])
        with _turn:
            if _present == [told["stop"]]:
                os.kill(os.getpid(), signal.SIGINT)
    asked.put(None)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(_PATIENCE)
    os._exit(0)


_turn = threading.Lock()  # while a run begins or ends, or one is told to stop
_present: list[int] = []  # the turn of the run that is being made


def _answered(request, stopped, say):
    """How a run ended: {"state": done, cancelled or failed, "result" or "message"}."""
    interrupted = False

    def interrupt(_signal, _frame):
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    screen, sys.stderr = sys.stderr, Bars(_seldom(say))
    try:
        with _turn:
            signal.signal(signal.SIGINT, interrupt)
            _present[:] = [request["turn"]]
        if request["turn"] in stopped:  # before it began
            interrupt(None, None)
        work = _sweep if request["axes"] else _run
        return {"state": "done", "result": work(request)}
    except (RunFailed, UsageError, OSError) as error:
        if not interrupted:  # else that of a kernel that was stopped
            return {"state": "failed", "message": cluster.first_line(error)}
    except BaseException:
        if not interrupted:
            raise
    finally:
        with _turn:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # what comes now is too late
            _present.clear()
        sys.stderr = screen
    return {"state": "cancelled", "message": ""}


def _run(request):
    """Make one run; return the name of its folder."""
    todo = plan(request["notebook"], request["values"], request["profile"], Path(request["root"]))
    if finished(todo) is None:
        execute(todo, todo.failed, CELLS)
    return todo.folder.name


def _sweep(request):
    """Make the runs of a grid; return the name of the folder with their table."""
    root = Path(request["root"])
    grid, plans = sweeps.points(request["notebook"], request["axes"], request["profile"], root=root)
    connect = functools.partial(cluster.local, None, len(plans))
    out, ended = sweeps.sweep(grid, plans, connect)
    failed = [entry["error"] for entry in ended if entry["status"] == "failed"]
    if failed:
        raise RunFailed(f"{len(failed)} of {len(ended)} points failed; the first: {failed[0]}")
    return out.name


def _seldom(say: Callable) -> Callable[[dict], None]:
    """Tell of each bar a few times a second, and of its end."""
    last: dict[str, float] = {}

    def tell(bar):
        now = time.monotonic()
        if bar["done"] >= bar["total"] or now > last.get(bar["label"], 0) + _OFTEN:
            last[bar["label"]] = now
            say(bar=bar)

    return tell


if __name__ == "__main__":
    main()
