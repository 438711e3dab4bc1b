"""The runs that were asked for: made one at a time, told of while they are, kept on disk."""

import contextlib
import functools
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from companion.errors import UsageError
from companion.files import write_aside
from companion.serve.progress import CELLS

WAITING, RUNNING, RENDERING, DONE = "waiting", "running", "rendering", "done"
FAILED, CANCELLED, INTERRUPTED = "failed", "cancelled", "interrupted"
LIVE = (WAITING, RUNNING, RENDERING)
MOST_WAITING, MOST_KEPT = 100, 200  # jobs
_LONGEST = 300  # characters of what a process said last
_PATIENCE = 15  # seconds for a run to stop in, once it is told to


@dataclass
class Job:
    """A run or a sweep that was asked for."""

    notebook: str
    profile: str
    values: dict[str, str]  # what is not the profile's, as texts
    axes: list[str]  # of a sweep, as `sweep.points` takes them; [] for a run
    result: str  # name of the folder of the run, or of the sweep
    command: str  # that does the same
    link: str  # what follows the page's address, to fill the form like this
    state: str = WAITING
    message: str = ""
    made: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    id: str = field(default_factory=lambda: f"{time.time_ns():020d}-{secrets.token_hex(4)}")


class Queue:
    """The jobs and the threads that see to them."""

    def __init__(
        self, root: Path, at_once: int, render: Callable[[Job, Callable[[], bool]], object]
    ) -> None:
        """root: project folder; at_once: how many jobs; render: makes the page of a finished run.

        Of a server that was killed, what waited waits again; what it had in work may have killed
        it, and is found again as interrupted.
        """
        self.root, self.render = root, render
        self.folder = root / ".companion" / "serve" / "jobs"
        self.bars: dict[str, dict[str, dict]] = {}  # of each job that runs
        self.serial = 0  # of the state of all jobs: who looks on asks for it
        self._change = threading.Condition()
        self._jobs = {job.id: job for job in self._read()}
        self._workers: dict[str, Worker] = {}
        self._closed = False
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(at_once)]
        for thread in self._threads:
            thread.start()

    def jobs(self, notebook: str) -> list[dict[str, Any]]:
        """What is told of the jobs of a page, the newest first."""
        with self._change:
            ahead = [job.id for job in self._jobs.values() if job.state == WAITING]
            return [
                asdict(job)
                | {
                    "ahead": ahead.index(job.id) if job.id in ahead else 0,
                    "bars": list(self.bars.get(job.id, {}).values()),
                }
                for job in sorted(self._jobs.values(), key=lambda job: job.id, reverse=True)
                if job.notebook == notebook
            ]

    def job(self, identity: str) -> Job:
        """The job of an id. Raises UsageError where there is none."""
        with self._change:
            if identity not in self._jobs:
                raise UsageError("this run is removed")
            return self._jobs[identity]

    def add(self, job: Job) -> Job:
        """Put a job at the end, or find the same one; raise UsageError where too many wait.

        Of a result there is one entry: an ended job of the same one gives way.
        """
        with self._change:
            same = [other for other in self._jobs.values() if other.result == job.result]
            for other in same:
                if other.state in LIVE:
                    return other
            if sum(other.state == WAITING for other in self._jobs.values()) >= MOST_WAITING:
                raise UsageError(f"{MOST_WAITING} runs wait already: cancel one, or wait")
            for other in same:
                self._forget(other)
            self._jobs[job.id] = job
            self._keep(job)
            ended = [other for other in self._jobs.values() if other.state not in LIVE]
            for other in sorted(ended, key=lambda other: other.id)[:-MOST_KEPT]:
                self._forget(other)
            return job

    def cancel(self, identity: str) -> None:
        """Stop a job; what of it is done stays, and is not done again if it is resumed."""
        with self._change:
            job = self.job(identity)
            if job.state == WAITING:
                job.state = CANCELLED
                self._keep(job)
            elif job.state == RUNNING and identity in self._workers:
                self._workers[identity].stop()

    def resume(self, identity: str) -> None:
        """Put a job that ended without a result back to the end of the queue."""
        with self._change:
            job = self.job(identity)
            if job.state in (FAILED, CANCELLED, INTERRUPTED):
                job.state, job.message = WAITING, ""
                self._jobs[identity] = self._jobs.pop(identity)  # their order is that of work
                self._keep(job)

    def remove(self, identity: str) -> Job:
        """Forget a job. Raises UsageError for one that is at work."""
        with self._change:
            job = self.job(identity)  # once: of two who remove it one comes too late
            if job.state in LIVE:
                raise UsageError("this run is at work: cancel it first")
            self._forget(job)
        return job

    def uses(self, text: str) -> bool:
        """Whether a job has this value."""
        with self._change:
            return any(text in job.values.values() for job in self._jobs.values())

    def close(self) -> None:
        """Stop what runs, kept as interrupted, and the threads; what waits is kept waiting."""
        with self._change:
            self._closed = True
            for worker in self._workers.values():
                worker.stop()
            self._change.notify_all()
        for thread in self._threads:
            thread.join()

    def _serve(self):
        """Do one job after the other, in a process that lasts."""
        worker = Worker(self.root)
        while (job := self._next(worker)) is not None:
            ended = worker.make(job, functools.partial(self._told, job))
            with self._change:
                del self._workers[job.id]
                self.bars.pop(job.id, None)
                if ended["state"] == CANCELLED and self._closed:
                    ended["state"] = INTERRUPTED
                if ended["state"] == DONE and not job.axes:
                    job.result, job.state = ended["result"], RENDERING
                else:
                    job.state, job.message = ended["state"], ended.get("message", "")
                self._keep(job)
            if job.state == RENDERING:
                self._rendered(job)
            if job.axes:  # Dask leaves threads behind
                worker.close()
        worker.close()

    def _rendered(self, job):
        try:
            self.render(job, lambda: self._closed)
            message = ""
        except Exception as error:  # of any kind: the numbers are there, and others wait
            told = error if isinstance(error, UsageError) else f"its page was not made: {error!r}"
            message = "" if self._closed else str(told)
        with self._change:
            job.state, job.message = DONE, message
            self._keep(job)

    def _next(self, worker):
        """The job that has waited longest, as soon as there is one; None at the end."""
        with self._change:
            while not self._closed:
                waiting = [job for job in self._jobs.values() if job.state == WAITING]
                if waiting:
                    job = waiting[0]
                    job.state = RUNNING
                    self._workers[job.id] = worker
                    worker.stopped = None
                    self._keep(job)
                    return job
                self._change.wait()
            return None

    def _told(self, job, told):
        with self._change:
            if "bar" in told:
                bars = self.bars.setdefault(job.id, {})
                if told["bar"]["label"] == CELLS and bars.get(CELLS) != told["bar"]:
                    bars.clear()  # the bars inside a cell end with it
                bars[told["bar"]["label"]] = told["bar"]
            self.serial += 1

    def _keep(self, job):
        """Write a job down and tell who waits of the change."""
        with contextlib.suppress(OSError):  # a full disk: a later server does not find it
            write_aside(self.folder / f"{job.id}.json", json.dumps(asdict(job), indent=1) + "\n")
        self.serial += 1
        self._change.notify_all()

    def _forget(self, job):
        del self._jobs[job.id]
        (self.folder / f"{job.id}.json").unlink(missing_ok=True)
        self.serial += 1

    def _read(self):
        """The jobs of an earlier server; what it had in work is interrupted."""
        for path in sorted(self.folder.glob("*.json")):
            try:
                job = Job(**json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, TypeError):  # of another version, or damaged
                path.unlink()
                continue
            if job.state in (RUNNING, RENDERING):
                job.state = INTERRUPTED
                job.message = "the server was stopped; what was done of it is kept"
                write_aside(path, json.dumps(asdict(job), indent=1) + "\n")
            yield job


class Worker:
    """The process that makes runs, see `serve.worker`; started at the first need."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.process: subprocess.Popen | None = None
        self.stopped: float | None = None  # when it was told to stop its run
        self.turn = 0  # of the run that was asked for last
        self._timer: threading.Timer | None = None  # kills what was told to stop and does not
        self._lock = threading.Lock()

    def make(self, job: Job, tell: Callable[[dict], object]) -> dict[str, Any]:
        """Have a job done; tell: function of what is told meanwhile.

        Returns {"state": done, cancelled or failed, "result" or "message"}.
        """
        try:
            if self.process is None or self.process.poll() is not None:
                self.process = self._start()
        except OSError as error:  # no memory for it, say
            return {"state": FAILED, "message": f"no process for the runs: {error.strerror}"}
        self.turn += 1
        request: dict[str, Any] = {"turn": self.turn, "root": str(self.root)}
        request |= {"notebook": job.notebook, "profile": job.profile}
        request |= {"values": job.values, "axes": job.axes}
        process, stdout = self.process, self.process.stdout
        assert stdout is not None
        self._write(request)
        if self.stopped is not None:  # before it was asked
            self._write({"stop": self.turn})
        for line in stdout:
            told = json.loads(line)
            if "state" in told:
                self._spare()
                return told
            tell(told)
        code = process.wait()
        self._spare()
        if self.stopped is not None:
            return {"state": CANCELLED, "message": ""}
        why = f"the process of the runs ended with {code}: {self._last_words()}"
        return {"state": FAILED, "message": why}

    def stop(self) -> None:
        """Have the present run stopped; what does not stop soon is killed."""
        self.stopped = time.monotonic()
        process = self.process
        if process is not None and process.poll() is None:
            self._write({"stop": self.turn})
            self._spare()
            self._timer = threading.Timer(_PATIENCE, self._kill, (process, self.stopped))
            self._timer.daemon = True
            self._timer.start()

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            assert self.process.stdin is not None and self.process.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_PATIENCE)
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.process = None

    def _write(self, told):
        """Tell the process; one that died gives no answer either."""
        process: Any = self.process
        with self._lock, contextlib.suppress(BrokenPipeError, ValueError):  # ValueError: closed
            process.stdin.write(json.dumps(told) + "\n")
            process.stdin.flush()

    def _spare(self):
        """What was told to stop has, or is told again."""
        if self._timer is not None:
            self._timer.cancel()

    def _kill(self, process, stopped):
        if self.stopped == stopped:  # the run that was to stop still does not
            process.kill()

    def _last_words(self):
        """The last line that the process wrote."""
        said = ""
        with contextlib.suppress(OSError):  # somebody took the log away
            said = self._log().read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        return lines[-1][:_LONGEST] if lines else "it said nothing"

    def _log(self):
        return self.root / ".companion" / "serve" / "worker.log"

    def _start(self):
        log = self._log()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as err:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "companion.serve.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
                env={**os.environ, "PYTHONUTF8": "1"},
                start_new_session=True,  # Ctrl-C is for the server
            )
