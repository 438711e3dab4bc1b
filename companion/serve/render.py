"""The program that makes one page of the book again: Sphinx, which no process runs twice well.

python -m companion.serve.render ROOT NOTEBOOK SCRATCH makes SCRATCH/html/sections/NAME.html of
the NOTEBOOK as if it lay in ROOT/book/sections, from what the last build of the book knows.
"""

import shutil
import sys
from pathlib import Path
from typing import Any


def render(root: Path, notebook: Path, scratch: Path) -> None:
    """Make the page; root: project folder; notebook: of `write_section`; scratch: a folder."""
    from jupyter_book.config import get_final_config
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    book, name = root / "book", f"sections/{notebook.stem}"
    if (book / "_build" / ".doctrees").is_dir():
        shutil.copytree(book / "_build" / ".doctrees", scratch / "doctrees")
    # as `companion.build` has it made, or all of the book would be read again
    as_built = {
        "latex_individualpages": False,
        "nitpicky": True,
        "external_toc_path": (book / "_toc.yml").as_posix(),
    }
    told = root / "_config.yml"
    config, _ = get_final_config(user_yaml=told, cli_config=as_built, sourcedir=book)

    def read(_app: Any, page: str, source: list[str]) -> None:
        if page == name:
            source[0] = notebook.read_text(encoding="utf-8")

    (scratch / "html" / "_static").mkdir(parents=True)  # where an extension leaves its own
    with patch_docutils(str(book)), docutils_namespace():
        app = Sphinx(
            srcdir=str(book),
            confdir=None,
            outdir=str(scratch / "html"),
            doctreedir=str(scratch / "doctrees"),
            buildername="html",
            confoverrides=config,
        )
        app.connect("env-get-outdated", lambda *_: [name])
        app.connect("source-read", read, priority=1)  # before what others make of it
        # the book has the rest
        builder: Any = app.builder
        builder.copy_assets, builder.finish = (lambda: None), builder.copy_image_files
        app.build(filenames=[str(book / f"{name}.ipynb")])


if __name__ == "__main__":
    render(*map(Path, sys.argv[1:]))
