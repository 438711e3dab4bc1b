"""`companion serve`: bind, say where, serve until Ctrl-C."""

import contextlib
import fcntl
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from companion.build import say
from companion.errors import UsageError, known
from companion.files import writable
from companion.notebooks import read_profiles
from companion.serve import pages, uploads
from companion.serve.app import application
from companion.serve.forms import Served
from companion.serve.guard import Guard
from companion.serve.queue import Queue

LOOPBACK = "127.0.0.1"


def serve(
    root: Path,
    host: str | None,
    port: int,
    profile: str | None,
    device: str | None,
    folders: Sequence[Path],
    at_once: int,
) -> None:
    """Serve the built book until Ctrl-C.

    root: project folder; host: address to listen at, then with a token, the loopback one if None;
        port: 0 for any that is free; profile, device: of the forms; folders: whose files may be
        named in them; at_once: how many runs are made side by side.
    Raises UsageError for a book that is not built, an unknown profile, a folder that is none, an
    address that is taken, and where another server is at work on this project.
    """
    if not (root / "book" / "_build" / "html" / "index.html").is_file():
        on = f" --profile {profile}" if profile else ""
        raise UsageError(f"the book is not built: first companion build{on}")
    if profile is not None:
        known("profile", profile, list(read_profiles(root)))
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"--folder {str(folder)!r} is no folder")
    served = Served(root, tuple(folder.absolute() for folder in folders), profile, device)
    writable(root / ".companion" / "serve")
    token = secrets.token_urlsafe(32) if host else None
    with contextlib.suppress(KeyboardInterrupt), _alone(root), _bound(host, port) as bound:
        port = bound.getsockname()[1]
        render = lambda job, ending: pages.page(root, job.result, ending)
        with contextlib.closing(Queue(root, at_once, render)) as queue:
            uploads.tidy(root, queue.uses)
            server: uvicorn.Server
            app = application(served, queue, lambda: server.should_exit)
            config = uvicorn.Config(
                Guard(app, host, port, token),
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=3,
                limit_concurrency=200,
                h11_max_incomplete_event_size=2**15,
            )
            server = uvicorn.Server(config)
            shown = f"[{host}]" if host and ":" in host else host or LOOPBACK
            print(f"http://{shown}:{port}/" + f"?token={token}" * bool(token), flush=True)
            say("Ctrl-C stops; what was run is kept")
            server.run(sockets=[bound])


@contextmanager
def _bound(host: str | None, port: int) -> Iterator[socket.socket]:
    """A socket that listens. Raises UsageError where it cannot."""
    host = host or LOOPBACK
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.create_server(address[:2], family=family)
    except (OSError, OverflowError) as error:
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        raise UsageError(f"cannot listen at {host}:{port}: {why}; give another --port") from error
    with bound:
        yield bound


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Hold the lock of the project's server; it is let go of by a process that dies."""
    path = root / ".companion" / "locks" / "serve"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError("another companion serve is at work on this project") from error
        yield
