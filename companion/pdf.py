"""The whole book as one PDF: its pages as Chromium prints them, and the links between them."""

import io
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

from companion.errors import UsageError
from companion.files import write_aside

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
# the equations stand, the pictures further down are there
_READY = """async () => {
  if (window.MathJax) await MathJax.startup.promise;
  for (const image of document.images) { image.loading = 'eager'; await image.decode(); }
}"""


def needed() -> str:
    """The path of the browser. Raises UsageError without one, ImportError without the extra."""
    import playwright.sync_api  # noqa: F401
    import pypdf  # noqa: F401

    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise UsageError(f"a PDF needs one of these programs: {', '.join(BROWSERS)}")
    return found


def write_pdf(root: Path, path: Path) -> int:
    """Print the built book, in the order of its table of contents.

    root: project folder, with book/_build/html; path: the PDF.
    Returns the number of its pages. Raises UsageError as `needed` does.
    """
    browser_file = needed()
    from playwright.sync_api import PdfMargins, sync_playwright
    from pypdf import PdfReader, PdfWriter
    from tqdm import tqdm

    html, whole = root / "book" / "_build" / "html", PdfWriter()
    margin: PdfMargins = {"top": "15mm", "bottom": "15mm", "left": "15mm", "right": "15mm"}
    begins: dict[str, int] = {}  # of each page of the book, its first in the PDF
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_file, args=_FLAGS)
        page = browser.new_page()
        for name in tqdm(in_order(root), desc="PDF"):
            page.goto((html / f"{name}.html").as_uri())
            page.evaluate(_READY)
            printed = page.pdf(format="A4", print_background=True, margin=margin)
            begins[name] = len(whole.pages)
            whole.append(PdfReader(io.BytesIO(printed)), import_outline=False)
            title = page.title().partition(" — ")[0]
            whole.add_outline_item(title=title, page_number=begins[name])
        browser.close()
    _link(whole, html, begins)
    whole.add_metadata({"/Title": _title(root)})
    content = io.BytesIO()
    whole.write(content)
    write_aside(path, content.getvalue())
    return len(whole.pages)


def in_order(root: Path) -> list[str]:
    """The names of the book's pages, such as "sections/denoising", as its contents have them."""
    toc = yaml.safe_load((root / "book" / "_toc.yml").read_text(encoding="utf-8"))
    found, parts = [toc["root"]], toc.get("parts", [toc])
    for chapter in (chapter for part in parts for chapter in part["chapters"]):
        pages = [chapter, *chapter.get("sections", ())]
        found += [page["file"] for page in pages if "file" in page]
        several = sorted((root / "book").glob(f"{chapter.get('glob', '')}.md"))
        found += [path.relative_to(root / "book").with_suffix("").as_posix() for path in several]
    return found


def _link(whole, html, begins):
    """Lead links to another page of the book to where it begins here; other files are not here."""
    from pypdf.annotations import Link
    from pypdf.generic import ArrayObject, NameObject

    places = {(html / f"{name}.html").as_posix(): start for name, start in begins.items()}
    for number, page in enumerate(whole.pages):
        kept, inside = ArrayObject(), []
        for reference in page.get("/Annots", ()):
            annotation = reference.get_object()
            uri = urlsplit(annotation.get("/A", {}).get("/URI", ""))
            if uri.scheme not in ("file", "data"):
                kept.append(reference)
            elif (start := places.get(unquote(uri.path))) is not None:
                inside.append(Link(rect=annotation["/Rect"], target_page_index=start))
        page[NameObject("/Annots")] = kept
        for link in inside:
            whole.add_annotation(number, link)


def _title(root):
    return yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["title"]
