"""Who may ask a server for what: host, origin and token of a request, rules for its answer."""

import base64
import functools
import hashlib
import ipaddress
import re
import secrets
import socket
from html import unescape
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COMMANDS = "/companion/"  # paths below it start, stop and tell of runs
_STRICT = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_ALWAYS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_INLINE = re.compile(r"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", re.DOTALL)
_HANDLER = re.compile(r'\son[a-z]+="([^"]*)"')


class Guard:
    """Lets pass what the reader's own browser asks for at one of the server's own addresses."""

    def __init__(self, app: ASGIApp, host: str | None, port: int, token: str | None) -> None:
        """host: that was given beside the loopback ones, or None; token: to be shown, or None."""
        self.app, self.host, self.port, self.token = app, host, port, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request by the rules, or pass it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def ruled(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in {**_ALWAYS, "content-security-policy": _STRICT}.items():
                    headers.setdefault(name, value)
            await send(message)

        await (self._refused(scope) or self.app)(scope, receive, ruled)

    def _refused(self, scope: Scope) -> Response | None:
        headers, command = Headers(scope=scope), scope["path"].startswith(COMMANDS)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._ours(host):
            return _no(f"this server does not answer as {host[:100]!r}")
        asks = scope["method"] in ("GET", "HEAD")
        if origin is None and not asks:
            return _no("a request that changes something has to tell its Origin")
        if origin is not None and origin != f"http://{host}":
            return _no(f"another site, {origin[:100]!r}, may not ask")
        if command and headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return _no("another site may not ask")
        return self._unknown(scope, headers, asks) if self.token else None

    def _unknown(self, scope, headers, asks):
        """The answer to who does not show the token; who shows it in the address gets a cookie."""
        name, query = f"companion-{self.port}", parse_qsl(scope["query_string"].decode("latin-1"))
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(name)
        except CookieError:
            cookie = None
        if cookie is not None and self._is_token(cookie.value):
            return None
        if asks and self._is_token(dict(query).get("token", "")):
            rest = urlencode([(key, value) for key, value in query if key != "token"])
            path = "/" + scope["path"].lstrip("/\\")  # or it would name a host
            answer = RedirectResponse(path + f"?{rest}" * bool(rest), 303)
            answer.set_cookie(name, str(self.token), httponly=True, samesite="strict")
            return answer
        return PlainTextResponse("open the address that the server printed: it holds a token", 401)

    def _is_token(self, text):
        return secrets.compare_digest(text.encode(), str(self.token).encode())

    def _ours(self, host):
        """Whether a Host header names this server; a name of somebody else's may lead here."""
        name, _, port = host.rpartition(":")
        if port != str(self.port):
            name, port = host, "80"
        if port != str(self.port):
            return False
        if name in ("127.0.0.1", "localhost", "[::1]"):
            return True
        if self.host is None:
            return False
        if name.strip("[]") == self.host:
            return True
        if self.host not in ("0.0.0.0", "::"):
            return False
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name in (socket.gethostname(), socket.getfqdn())
        return True


def policy(html: Path, page: Path) -> str:
    """The Content-Security-Policy of a page: the book's files, and the code written in its pages.

    html: folder of the book's pages; page: one of them, as it was built. What a run writes into the
    same page runs no code. What reacts to a click in any page counts: the search looks into all.
    """
    scripts = [_hash(code) for code in _INLINE.findall(page.read_text(encoding="utf-8"))]
    handlers = _handlers(html, (html / "index.html").stat().st_mtime_ns)
    allowed = dict.fromkeys(["'self'", *scripts, "'unsafe-hashes'", *handlers])
    return "; ".join(
        [
            _STRICT,
            f"script-src {' '.join(allowed)}",
            "style-src 'self' 'unsafe-inline'",  # MathJax sizes its glyphs so
            "img-src 'self' data:",
            "font-src 'self' data:",
            "connect-src 'self'",
        ]
    )


@functools.lru_cache(1)
def _handlers(html, _time):
    """The hashes of what reacts to a click and the like, in all pages."""
    texts = (page.read_text(encoding="utf-8") for page in sorted(html.rglob("*.html")))
    codes = dict.fromkeys(code for text in texts for code in _HANDLER.findall(text))
    return [_hash(unescape(code)) for code in codes]


#: Of a page that brings its style and its pictures in its one file, and runs nothing.
ONE_FILE = f"{_STRICT}; style-src 'unsafe-inline'; img-src data:"


def _hash(code):
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"


def _no(why):
    return PlainTextResponse(why, 403)
