"""A Sphinx extension: what the head of a page tells other programs; a visit loads little."""

import html
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

URL = "BOOK_URL"  # environment variable: where the site will be, if that is known
CARD = "_static/denoising.png"  # the picture beside a link to a page
CARD_ALT = "Grey textures, denoised by three forms of optimal transport"
# The parts of MathJax that pages ask for, in place of one file that holds its menu, too.
_PARTS = ("core", "input/tex", "output/chtml", "a11y/assistive-mml")
_KEPT = re.compile(
    rf"(startup|{'|'.join(_PARTS)})\.js|output/chtml/fonts/.*|"
    r"input/tex/extensions/(?!all-packages)\w+\.js"
)
_DESCRIPTION = re.compile(r'<meta name="description" content="([^"]*)"')
# The theme draws its icons by its style sheet; this script would draw them once more.
_ICONS = re.compile(r'^.*<script[^>]* src="[^"]*/fontawesome\.js[^"]*"></script>\n', re.MULTILINE)
_TWICE = re.compile(r"<title>(.+) &#8212; \1</title>")
_PICTURE = re.compile(
    r'<img(?P<told>[^>]*? src="(?:\.\./)*(?P<file>_images/[^"]+\.png)"[^>]*?) ?/?>'
)
_CSS = 96  # pixels of a page in an inch
_WORDS = 240  # letters of a description, at most


def setup(app: Any) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.connect("config-inited", _configured)
    app.connect("html-page-context", _headed)
    app.connect("build-finished", _slimmed, priority=900)  # after what others copy at the end
    return {"parallel_read_safe": True}


def described(text: str) -> str:
    """A description of at most some 240 letters, of whole sentences where one fits.

    text: the first words of a page. Returns the text.
    """
    words = " ".join(text.split())
    if len(words) <= _WORDS:
        return words
    sentences = re.match(rf".{{1,{_WORDS - 1}}}(?<!\bFig)(?<!\bal)(?<!\beq)[.?!](?= )", words)
    return sentences[0] if sentences else f"{words[: _WORDS - 1].rpartition(' ')[0]}…"


def slim(folder: Path) -> None:
    """Take out of a built site what no page asks for, and the script that draws icons twice.

    folder: of the HTML. Pictures that say how large they are get that width. What each page is
    about is written into a script for the page of the search: a browser lets no page that lies on
    a disk read the others.
    """
    mathjax = folder / "_static" / "mathjax"
    for path in [*mathjax.rglob("*"), *(folder / "_static").rglob("*.map")]:
        of_mathjax = mathjax in path.parents
        if path.is_file() and not (of_mathjax and _KEPT.fullmatch(_within(path, mathjax))):
            path.unlink()
    for path in (folder / "_static" / "vendor").rglob("*.ttf"):  # each browser reads the other kind
        path.unlink()
    (folder / "_static" / "scripts" / "fontawesome.js").unlink(missing_ok=True)
    # of a build that still made them; of the theme's words in other languages
    for name in ("_sources", "_static/locales"):
        shutil.rmtree(folder / name, ignore_errors=True)
    about = {}
    for path in sorted(folder.rglob("*.html")):
        text = path.read_text(encoding="utf-8")
        if found := _DESCRIPTION.search(text):
            about[_within(path, folder)] = html.unescape(found[1])
        lighter = _TWICE.sub(r"<title>\1</title>", _ICONS.sub("", text))
        lighter = _PICTURE.sub(lambda found: _sized(found, folder), lighter)
        if lighter != text:
            path.write_text(lighter, encoding="utf-8")
    script = f"window.DESCRIPTIONS = {json.dumps(about, indent=1)};\n"
    (folder / "_static" / "descriptions.js").write_text(script, encoding="utf-8")


def _sized(found, folder):
    """The element of a picture, with its width where the picture tells its dots an inch."""
    from PIL import Image

    path = folder / found["file"]
    if " width=" in found["told"] or " style=" in found["told"] or not path.is_file():
        return found[0]
    with Image.open(path) as picture:
        dots = picture.info.get("dpi", (0,))[0]
        width = round(picture.width / dots * _CSS) if dots else 0
    return f'<img{found["told"]} width="{width}" />' if width else found[0]


def _within(path, folder):
    return path.relative_to(folder).as_posix()


def _configured(app, config):
    config.mathjax_path = "mathjax/startup.js"
    config.mathjax3_config = {**(config.mathjax3_config or {}), "loader": {"load": [*_PARTS]}}
    if base := os.environ.get(URL, ""):
        config.html_baseurl = f"{base.rstrip('/')}/"


def _headed(app, page, template, context, doctree):
    """Add what a search engine and a message with a link to the page show."""
    from docutils import nodes  # type: ignore[import-untyped]

    if doctree is None:
        return
    first = next(doctree.findall(nodes.paragraph), None)
    told = {"og:title": context["title"], "og:site_name": app.config.html_title}
    told |= {"og:type": "website" if page == app.config.root_doc else "article"}
    base = app.config.html_baseurl
    told["og:image"] = f"{base}{CARD}" if base else context["pathto"](CARD, 1)
    told |= {"og:image:alt": CARD_ALT, "twitter:card": "summary_large_image"}
    if base:
        told["og:url"] = context["pageurl"]
    if first is not None:
        told["description"] = told["og:description"] = described(first.astext())
    lines = [
        f'<meta {"property" if ":" in name else "name"}="{name}" '
        f'content="{html.escape(html.unescape(re.sub("<[^>]+>", "", str(value))))}" />'
        for name, value in told.items()
    ]
    context["metatags"] = "\n".join([context.get("metatags", ""), *lines])


def _slimmed(app, exception):
    if exception is None and app.builder.format == "html":
        slim(Path(app.outdir))
