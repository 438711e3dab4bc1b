"""The server: the book's files, and what its pages ask for below /companion/."""

import asyncio
import json
import os
import re
import shlex
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pydantic
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from companion import compare, report, sweep_page
from companion import sweep as sweeps
from companion.errors import UsageError, first_mistake, known
from companion.notebooks import names
from companion.run import finished
from companion.section import beside_profile, run_command
from companion.serve import forms, pages, uploads
from companion.serve.guard import COMMANDS, ONE_FILE, policy
from companion.serve.queue import DONE, Job, Queue

MOST_ASKED = 2**16  # bytes of a request that is not an upload
MOST_TOLD = 600  # letters of a message
_LOOK, _HEARTBEAT = 0.25, 15  # seconds between two looks at the queue, between two signs of life


class Asked(pydantic.BaseModel):
    """What a form sends."""

    model_config = pydantic.ConfigDict(strict=True, extra="forbid")
    notebook: str
    profile: str
    values: dict[str, str]


def application(served: forms.Served, queue: Queue, ending: Callable[[], bool]) -> Starlette:
    """The server's application, without its guard.

    queue: where runs go to; ending: whether the server is to stop, for who looks on.
    """
    root, html = served.root, served.root / "book" / "_build" / "html"
    static = StaticFiles(directory=html)

    async def page(request: Request) -> Response:
        """A page of the book, or with ?run=NAME-KEY16 that page with the numbers of a run."""
        path = request.path_params["path"]
        if path.endswith("/") or not path:
            path += "index.html"
        if not path.endswith(".html"):
            return await static.get_response(path, request.scope)
        return await run_in_threadpool(_page, path, request.query_params.get("run", ""))

    def _page(path, run):
        try:
            found, about = static.lookup_path(path)
        except (OSError, ValueError):  # too long for a file, a null character in it
            about = None
        if about is None:
            raise HTTPException(404, f"the book has no page {path[:100]!r}")
        built, name = Path(found), re.fullmatch(r"sections/(\w+)\.html", path)
        try:
            text, rules = built.read_text(encoding="utf-8"), policy(html, built)
        except (OSError, UnicodeDecodeError) as error:  # gone since, or written to its half
            raise HTTPException(503, "the book is being built: ask again") from error
        if name is not None and name[1] in names(root):
            if run:
                text = _moved(pages.page(root, _of(name[1], run), ending), run)
            text = _marked(text, name[1], run)
        return HTMLResponse(text, headers={"content-security-policy": rules, **_FRESH})

    def form(request: Request) -> Response:
        """What the form of a page shows, and the run that the page shows."""
        name, run = request.path_params["name"], request.query_params.get("run", "")
        told = forms.described(served, name)
        built = forms.built_run(root, name)
        shown = built
        if run:
            todo, shown = pages.result(root, _of(name, run))
            told["profile"] = todo.profile
            told["run"] = {"title": pages.title(root, shown), **_again(todo)}
        same = told["profile"] == shown["profile"]
        told["values"] = pages.differs(root, shown) if same else {}
        told["published"] = f"{name}-{built['key'][:16]}"
        return JSONResponse(told)

    async def check(request: Request) -> Response:
        """Settle the values of a form without running them; what is wrong is an answer, too."""
        asked = await _asked(request)
        try:
            plans, axes = await run_in_threadpool(_settled, asked)
        except forms.FormError as error:
            return JSONResponse(_lines(error))
        done = sum(finished(todo) is not None for todo in plans)
        return JSONResponse({"points": len(plans), "done": done, "sweep": bool(axes)})

    async def start(request: Request) -> Response:
        """Put a run or a sweep into the queue; what was run before is there at once."""
        asked = await _asked(request)
        return JSONResponse(asdict(await run_in_threadpool(_start, asked)))

    def _settled(asked):
        known("notebook", asked.notebook, names(root))
        return forms.settled(served, asked.notebook, asked.profile, asked.values)

    def _start(asked):
        plans, axes = _settled(asked)
        told: dict[str, Any] = _again(plans[0])
        if axes:
            swept = dict(axis.split("=", 1) for axis in axes)
            grid, _ = sweeps.points(asked.notebook, axes, asked.profile, root=root)
            words = sweep_page.command(asked.notebook, asked.profile, grid)
            told = {"command": shlex.join(words), "link": _link(asked.profile, swept)}
            told |= {"values": swept, "result": sweeps.folder_of(plans).name}
        else:
            told |= {"result": plans[0].folder.name}
            told |= {"state": DONE} if finished(plans[0]) is not None else {}
        job = queue.add(Job(asked.notebook, asked.profile, axes=axes, **told))
        uploads.tidy(root, queue.uses)  # now that what the job uses is known
        return job

    async def events(request: Request) -> Response:
        """The jobs of a page, as often as they change: server-sent events."""
        name = known("notebook", request.path_params["name"], names(root))
        if request.method == "HEAD":  # a stream without an end has one
            return Response(media_type="text/event-stream", headers=_FRESH)

        async def stream() -> AsyncIterator[str]:
            told, quiet = "", 0.0
            while not ending():
                now = json.dumps(queue.jobs(name))
                if now != told:
                    told, quiet = now, 0.0
                    yield f"data: {now}\n\n"
                elif quiet >= _HEARTBEAT:
                    quiet = 0.0
                    yield ": \n\n"
                await asyncio.sleep(_LOOK)
                quiet += _LOOK

        return StreamingResponse(stream(), media_type="text/event-stream", headers=_FRESH)

    def change(request: Request) -> Response:
        """Cancel, resume or remove a job."""
        identity, what = request.path_params["id"], request.path_params["what"]
        if what == "cancel":
            queue.cancel(identity)
        elif what == "resume":
            queue.resume(identity)
        elif what == "remove":
            _remove(queue.remove(identity))
        else:
            raise HTTPException(404, "allowed are cancel, resume and remove")
        return JSONResponse({})

    def _remove(job):
        """With the last job that uses an image goes the image, and the run made of it."""
        sent = [text for text in job.values.values() if text.startswith(f"{uploads.UPLOADS}/")]
        for place in sent:
            if not queue.uses(place):
                uploads.remove(root, place)
        if sent and not job.axes:
            pages.remove(root, job.result)

    async def upload(request: Request) -> Response:
        """Keep an image, the body of the request, under the name that `name` gives it."""
        name = uploads.called(request.query_params.get("name", ""))
        data = await _body(request, uploads.MOST_BYTES, name)
        return JSONResponse(await run_in_threadpool(uploads.keep, root, name, data))

    def files(request: Request) -> Response:
        """A folder of those that the server was given, for a picker of paths."""
        return JSONResponse(forms.listing(served, request.query_params.get("folder", "")))

    def download(request: Request) -> Response:
        """NAME.ipynb or NAME.json of a run."""
        path = pages.file_of(root, request.path_params["run"], request.path_params["suffix"])
        return _file(path, path.name)

    def image(request: Request) -> Response:
        """A picture of the page of a run."""
        run, name = request.path_params["run"], request.path_params["file"]
        folder = root / ".companion" / "serve" / "pages" / run / "_images"
        if re.fullmatch(r"\w+-[0-9a-f]{16}", run) and os.path.isfile(folder / name):
            return _file(folder / name)
        raise HTTPException(404, "there is no such picture")

    def compared(request: Request) -> Response:
        """The comparison of two runs, as `companion compare` writes it."""
        asked = request.query_params
        runs = [pages.file_of(root, asked.get(one, ""), "json") for one in ("with", "run")]
        found = compare.compare([Path(os.path.relpath(path)) for path in runs])
        headers = {"content-security-policy": ONE_FILE, **_FRESH}
        return HTMLResponse(report.comparison_page(found), headers=headers)

    def sweep(request: Request) -> Response:
        """What there is as yet of a sweep: its records that vary, or the plot of one."""
        job = queue.job(request.path_params["id"])
        out = root / ".companion" / "sweeps" / job.result
        if not job.axes or not (out / "sweep.json").is_file():
            return JSONResponse({"points": 0, "records": []})
        record = request.query_params.get("record")
        if request.path_params["what"] == "table.csv":
            return _file(out / "table.csv", "table.csv")
        with _drawing:
            told, results = sweep_page.read(out)
            moved = sweep_page.varying(told, results)
            if record is None:
                return JSONResponse({"points": len(results), "records": list(moved)})
            plot = sweep_page.drawn(told, results, record) if record in moved else None
        if plot is None:
            raise HTTPException(404, f"there is no plot of {record!r}")
        return Response(plot, media_type="image/svg+xml", headers=_FRESH)

    routes = [
        Route("/companion/forms/{name}", form),
        Route("/companion/check", check, methods=["POST"]),
        Route("/companion/runs", start, methods=["POST"]),
        Route("/companion/events/{name}", events),
        Route("/companion/jobs/{id}/{what}", change, methods=["POST"]),
        Route("/companion/uploads", upload, methods=["POST"]),
        Route("/companion/files", files),
        Route("/companion/runs/{run}/{suffix}", download),
        Route("/companion/pages/{run}/_images/{file}", image),
        Route("/companion/compare", compared),
        Route("/companion/sweeps/{id}/{what}", sweep),
        Route("/favicon.ico", lambda _: Response(status_code=204)),  # a page names its own
        Route("/{path:path}", page),
    ]
    handlers: Any = {UsageError: _told, HTTPException: _failed, OSError: _lost}
    handlers[ClientDisconnect] = lambda *_: Response(status_code=400)  # which nobody reads
    return Starlette(routes=routes, exception_handlers=handlers)


_FRESH = {"cache-control": "no-store"}
_drawing = threading.Lock()  # matplotlib draws in one thread at a time


def _of(name, run):
    """The name of a run of a page. Raises UsageError for one of another page."""
    if run.rpartition("-")[0] != name:
        raise UsageError(f"{run!r} is no run of the page {name}")
    return run


def _again(todo):
    """What makes a run again: the values that are not its profile's, the command, the link."""
    values = {key: forms.shown(value) for key, value in beside_profile(todo).items()}
    command, link = shlex.join(run_command(todo)), _link(todo.profile, values)
    return {"values": values, "command": command, "link": link}


def _link(profile, values):
    """What follows the address of a page, to open its form filled like this."""
    return f"?{urlencode({'profile': profile, **{f'p.{k}': v for k, v in values.items()}})}#rerun"


async def _asked(request):
    """What a form sent. Raises UsageError for anything else."""
    kind = request.headers.get("content-type", "").partition(";")[0]
    if kind != "application/json":
        raise HTTPException(415, "a form is sent as application/json")
    try:
        return Asked.model_validate_json(await _body(request, MOST_ASKED, "a form"))
    except pydantic.ValidationError as error:
        place, why = first_mistake(error)
        raise UsageError(f"a form has {'.'.join(place) or 'its values'}: {why}") from error


async def _body(request, most, what):
    """The body of a request, up to so many bytes: no more of it is read; what: for a message."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > most:
            raise HTTPException(413, f"{what} is too large: allowed are {most / 2**20:.3g} MiB")
    return bytes(data)


def _file(path, name=None):
    """A file; raises FileNotFoundError, not only when it is sent."""
    return FileResponse(path, filename=name, stat_result=path.stat())


def _marked(text, name, run):
    """A page that tells its script that it is served, and which run it shows."""
    mark = f'<meta name="companion-serve" content="{escape(name)}" data-run="{escape(run)}">'
    return text.replace("</head>", f"{mark}\n</head>", 1)


def _moved(text, run):
    """The page of a run with the addresses of what is this run's own."""
    text = text.replace('="../_images/', f'="../companion/pages/{run}/_images/')
    return re.sub(r'="../_downloads/\w+/\w+\.ipynb"', f'="../companion/runs/{run}/ipynb"', text)


def _told(request, error):
    """The one line of an error of use, and a line for each field."""
    if not request.url.path.startswith(COMMANDS):
        return PlainTextResponse(_lines(error)["error"], 404)
    return JSONResponse(_lines(error), 422)


def _lines(error):
    """The one line of an error, and one for each field."""
    fields = {name: _short(told) for name, told in getattr(error, "fields", {}).items()}
    return {"error": _short(str(error)), "fields": fields}


def _short(text):
    """A message as one line; of a value that is as long as a book its two ends are enough."""
    text, half = " ".join(text.split()), MOST_TOLD // 2
    return text if len(text) <= MOST_TOLD else f"{text[:half]} … {text[-half:]}"


def _failed(request, error):
    if request.url.path.startswith(COMMANDS):
        return JSONResponse({"error": error.detail, "fields": {}}, error.status_code)
    return PlainTextResponse(error.detail, error.status_code)


def _lost(request, error):
    """What is no fault of who asks: a file went since it was looked for, the disk is full."""
    gone = isinstance(error, FileNotFoundError)
    why = "it has gone meanwhile" if gone else error.strerror or type(error).__name__
    return _failed(request, HTTPException(404 if gone else 503, f"{why}: ask again"))
