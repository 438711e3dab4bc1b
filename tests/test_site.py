"""The built pages, looked at in a browser without a network: `make test` builds them before."""

import csv
import json
import math
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlparse

import nbformat
import pytest
import torch
import yaml
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from pypdf import PdfReader

from companion.page.record import collect
from companion.pdf import in_order
from companion.scoreboard import PUBLISHED
from companion.verdicts import SYMBOLS
from otlib import sinkhorn

ROOT = Path(__file__).parents[1]
HTML = ROOT / "book" / "_build" / "html"
TOC = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())
CHAPTERS = [page for part in TOC["parts"] for page in part["chapters"]]
PAGES = [TOC["root"], *(page["file"] for page in CHAPTERS if "file" in page)]
REFERENCE = [below["file"] for page in CHAPTERS for below in page.get("sections", ())]
NOTEBOOKS = [f"sections/{source.stem}" for source in sorted((ROOT / "notebooks").glob("*.md"))]
# A machine may have one set alone, and a text's width depends on it: each of these that is here.
FONTS = Path("/usr/share/fonts/truetype")
SETS = {
    "dejavu": ("DejaVu Sans", "DejaVu Sans Mono"),
    "liberation": ("Liberation Sans", "Liberation Mono"),
}
HERE = [faces for folder, faces in SETS.items() if (FONTS / folder).is_dir()] or [
    ("sans-serif", "monospace")
]
DESKTOP, PHONE, SMALL = 1280, 390, 320

# The same, opened once for all tests that only look: `--dist loadgroup` leaves them together.
together = lambda names, place: [
    pytest.param(name, marks=pytest.mark.xdist_group(f"{place}-{name}")) for name in names
]
each_page = lambda names: pytest.mark.parametrize("desk", together(names, "desk"), indirect=True)
each_dark_page = pytest.mark.parametrize("phone", together(PAGES, "phone"), indirect=True)


@pytest.fixture(scope="module")
def launch(chromium):
    """A function that starts the browser, and what it is to find in its environment."""
    if not (HTML / "index.html").is_file():
        pytest.fail("the book is not built: run `make test`", pytrace=False)
    return chromium


@pytest.fixture(scope="module")
def browser(launch):
    browser = launch()
    yield browser
    browser.close()


@contextmanager
def visit(browser, name, width=DESKTOP, scheme="light"):
    """Open a page and wait until its equations stand; `page.seen` and `page.errors` fill."""
    # without motion: a fold that still fades in has less contrast than it will have
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.seen, page.errors = [], []
    page.on("request", lambda request: page.seen.append(request.url))
    page.on("console", lambda line: page.errors.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto((HTML / f"{name}.html").as_uri())
    page.evaluate("window.MathJax ? MathJax.startup.promise.then(() => true) : true")
    yield page
    context.close()


@pytest.fixture(scope="module")
def desk(browser, request):
    """A page on a desk, in the light, and what it asked for; its tests leave it as it is."""
    with visit(browser, request.param) as page:
        page.evaluate("document.fonts.ready.then(() => true)")
        page.wait_for_timeout(500)  # what a script asks for a moment later counts too
        page.name = request.param
        yield page


@pytest.fixture(scope="module")
def phone(browser, request):
    """The same on a phone, in the dark."""
    with visit(browser, request.param, width=PHONE, scheme="dark") as page:
        page.name = request.param
        yield page


@each_page(PAGES)
def test_no_request_leaves_the_book_and_the_console_is_clean(desk):
    ours = HTML.as_uri()
    assert [url for url in desk.seen if not url.startswith((ours, "data:", "blob:"))] == []
    assert desk.errors == []


def test_the_site_is_light():
    sizes = {path: path.stat().st_size for path in HTML.rglob("*") if path.is_file()}
    assert sum(sizes.values()) <= 30e6
    assert [path.name for path, size in sizes.items() if size > 1.5e6] == []


@each_page(PAGES)
def test_a_page_and_a_first_visit_are_light(desk):
    files = {Path(unquote(urlparse(url).path)) for url in desk.seen if url.startswith("file:")}
    size = {file: file.stat().st_size for file in files}
    shared = HTML / "_static"
    own = sum(size[f] for f in files if shared not in f.parents and f.name != "searchindex.js")
    assert own <= 1.5e6
    assert desk.name != "index" or sum(size.values()) <= 2.5e6  # where a first visit begins


@each_page([*PAGES, REFERENCE[0]])
def test_the_head_tells_what_the_page_is(desk):
    told = desk.locator("meta").evaluate_all(
        "all => all.map(e => [e.getAttribute('name') ?? e.getAttribute('property'), e.content])"
    )
    title, icon = desk.title(), desk.locator("link[rel=icon]").get_attribute("href")
    told = dict(told)
    assert title.startswith(told["og:title"]) and title.count("Optimal transport in imaging") == 1
    assert 20 <= len(told["description"]) <= 240 and told["description"] == told["og:description"]
    folder = (HTML / f"{desk.name}.html").parent
    assert (folder / told["og:image"]).is_file() and (
        folder / unquote(urlparse(icon).path)
    ).is_file()


@each_page(NOTEBOOKS)
def test_a_page_opens_with_its_answer_and_a_figure_before_any_code(desk):
    source = (ROOT / "notebooks" / f"{Path(desk.name).name}.md").read_text(encoding="utf-8")
    kinds = {"answer": ".admonition.answer", "img": "figure img", "code": "div.cell_input"}
    seen = desk.locator(", ".join(f".bd-article {kind}" for kind in kinds.values()))
    found = seen.evaluate_all(
        "(all, kinds) => all.filter(e => !e.closest('details'))"
        ".map(e => Object.keys(kinds).find(kind => e.matches(kinds[kind])))",
        kinds,
    )
    lead = re.search(r"tags: \[[^\]]*\blead\b", source)
    order = ["answer"] * ("} Answer\n" in source) + ["img"] * bool(lead)
    assert order == found[: len(order)]
    assert "document:" not in source or "answer" in found


@each_page(PAGES)
def test_equations_are_set(desk):
    formulas = desk.locator(".bd-content .math")
    assert formulas.count() > 0 or desk.name not in NOTEBOOKS
    assert desk.locator(".math:not(:has(mjx-container))").count() == 0
    assert desk.locator("mjx-merror").count() == 0
    assert "\\(" not in desk.locator("main").inner_text()


def grave(page):
    """What axe finds on a page that shuts someone out."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    rules = [rule for rule in found if rule["impact"] in ("serious", "critical")]
    return [(rule["id"], rule["nodes"][0]["html"]) for rule in rules]


@each_page([*PAGES, REFERENCE[0], "_modules/otlib/softmin"])
def test_axe_finds_nothing_serious(desk):
    assert grave(desk) == []


@pytest.mark.parametrize("name", ["index", "sections/scoreboard", "sections/dot_pd_curves"])
def test_axe_finds_nothing_serious_in_the_dark(browser, name):
    with visit(browser, name, scheme="dark") as page:
        assert grave(page) == []


@each_dark_page
def test_axe_finds_nothing_serious_on_a_phone_in_the_dark(phone):
    assert grave(phone) == []


# Each piece of a page, opened to the last fold, lies in the box that would cut it: the nearest one
# that lets nothing hang out, or the screen. To the right it may lie behind, where that box scrolls.
CUT = """() => {
    const screen = document.documentElement, found = [];
    const cuts = new Map([[screen, null], [document.body, null]]);
    const cutter = element => {
        if (!cuts.has(element)) {
            const style = getComputedStyle(element);
            const cut = style.overflowX !== "visible" && style.display !== "inline";
            cuts.set(element, cut ? element : cutter(element.parentElement));
        }
        return cuts.get(element);
    };
    const scrolls = box => /auto|scroll/.test(getComputedStyle(box).overflowX);
    const told = node => (node.outerHTML ?? node.data).trim().slice(0, 120);
    const look = (node, parent, place) => {
        const box = cutter(parent);
        const edge = box ? box.getBoundingClientRect().left + box.clientLeft : 0;
        const left = edge - (box?.scrollLeft ?? 0), right = edge + (box ?? screen).clientWidth;
        if (!place.width || !place.height) return;
        if (place.left < left - 1 || (place.right > right + 1 && !(box && scrolls(box))))
            found.push(`cut at a side: ${told(node)}`);
    };
    if (screen.scrollWidth > screen.clientWidth) found.push("the page scrolls sideways");
    for (const part of document.querySelectorAll("article, .prev-next-area")) {
        const shown = NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT;
        const nodes = document.createTreeWalker(part, shown);
        for (let node = nodes.nextNode(); node; node = nodes.nextNode()) {
            const element = node.nodeType === Node.ELEMENT_NODE ? node : node.parentElement;
            // what is for screen readers alone is a point
            if (!element.checkVisibility() || element.closest("mjx-assistive-mml, svg")) continue;
            if (node !== element) {
                const range = document.createRange();
                range.selectNodeContents(node);
                const place = range.getBoundingClientRect(), cell = element.closest("td, th");
                look(node, element, place);
                const beyond = cell && !cell.contains(cutter(element))
                    && place.right > cell.getBoundingClientRect().right + 1;
                if (beyond) found.push(`over the next cell: ${told(node)}`);
                continue;
            }
            look(node, element.parentElement, element.getBoundingClientRect());
            const style = getComputedStyle(element);
            if (style.display === "inline") continue;
            const below = element.scrollHeight - element.clientHeight;
            if (/hidden|clip/.test(style.overflowY) && below > 1)
                found.push(`cut above or below: ${told(element)}`);
            if (scrolls(element) && element.scrollWidth > element.clientWidth + 1) {
                if (style.maskImage === "none") found.push(`no cue: ${told(element)}`);
                if (element.tabIndex < 0) found.push(`not for the keyboard: ${told(element)}`);
            }
        }
    }
    for (const number of document.querySelectorAll("article .eqno")) {
        const formula = number.parentElement.querySelector("mjx-container");
        if (number.getBoundingClientRect().left < formula.getBoundingClientRect().right - 1)
            found.push(`covers its equation: ${told(number)}`);
    }
    return found;
}"""
FACES = """faces => ["base", "monospace"].forEach((kind, i) =>
    document.documentElement.style.setProperty(`--pst-font-family-${kind}-system`, faces[i]))"""
FRAMES = "() => new Promise(go => requestAnimationFrame(() => requestAnimationFrame(go)))"
WIDE = """[...document.querySelectorAll("article div.math mjx-container")].filter(
    formula => formula.scrollWidth > formula.clientWidth + 1).map(formula => formula.innerText)"""


@pytest.mark.parametrize("name", [*PAGES, *REFERENCE, "genindex"])
def test_nothing_is_cut(browser, name):
    with visit(browser, name) as page:
        page.add_style_tag(content="* { transition: none !important }")
        page.evaluate(
            """() => {
                document.querySelectorAll("article details").forEach(fold => fold.open = true);
                document.querySelectorAll(".toggle-hidden").forEach(
                    fold => fold.classList.remove("toggle-hidden"));
            }"""
        )
        for faces in HERE:
            page.evaluate(FACES, faces)
            for width in (PHONE, SMALL, DESKTOP):
                page.set_viewport_size({"width": width, "height": 900})
                page.evaluate(FRAMES)  # the marks on what scrolls follow the size
                assert page.evaluate(CUT) == [], (width, faces)
            assert page.evaluate(WIDE) == [], faces
        page.evaluate("document.documentElement.dataset.theme = 'dark'")
        for width in (PHONE, DESKTOP):
            page.set_viewport_size({"width": width, "height": 900})
            page.evaluate(FRAMES)
            assert page.evaluate(CUT) == [], (width, "dark")


@each_page(NOTEBOOKS)
def test_pictures_of_images_are_as_large_as_they_say(desk):
    """So that each pixel of an image is a whole number of the page's: see `figures.images`."""
    sizes = "all => all.map(e => [e.getBoundingClientRect().width, +e.getAttribute('width')])"
    for wide, told in desk.locator("figure img[width]").evaluate_all(sizes):
        assert wide == told > 0


@each_page(NOTEBOOKS)
def test_no_warning_stands_on_a_page(desk):
    assert desk.locator(".output.stderr").all_inner_texts() == []
    printed = desk.locator(".cell_output").evaluate_all("all => all.map(e => e.textContent)")
    assert [text for text in printed if "Warning" in text or "[KeOps]" in text] == []


@pytest.mark.parametrize("name", ["bibliography", *REFERENCE])
def test_lists_hold_items(browser, name):
    with visit(browser, name) as page:
        lists = page.locator("article [role=list]")
        items = "lists => lists.every(e => [...e.children].every(i => i.role === 'listitem'))"
        assert lists.evaluate_all(items)
        assert lists.count() > 0 or name != "bibliography"


@each_dark_page
def test_images_have_words_and_keep_their_grey_levels_in_the_dark(phone):
    assert phone.evaluate("document.documentElement.dataset.theme") == "dark"
    images = phone.evaluate(
        """Promise.all([...document.querySelectorAll(".bd-content img")].map(async image => {
            image.loading = "eager";  // what a closed fold holds waits for its opening
            await image.decode().catch(() => 0);
            const style = getComputedStyle(image);
            const opacity = image.closest(".toggle-hidden") ? "1" : style.opacity;
            return {alt: image.alt.trim(), complete: image.naturalWidth > 0,
                    look: [style.filter, opacity, style.mixBlendMode,
                           style.backgroundColor].join()};
        }))"""
    )
    assert images or phone.name not in ("index", "sections/denoising")
    for image in images:
        assert image["alt"] and image["complete"], image
        assert image["look"] == "none,1,normal,rgb(255, 255, 255)", image


def look(page, width, scheme, tmp_path):
    """Its picture is kept where SCREENSHOTS names a folder: continuous integration shows it."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    path = folder / f"{page.name.replace('/', '-')}-{width}-{scheme}.png"
    page.screenshot(path=path, full_page=True)
    with Image.open(path) as picture:
        assert picture.width == width and picture.height >= 900
        dark = picture.convert("L").reduce(8).histogram()
    ground = max(range(256), key=dark.__getitem__)
    assert (ground < 64) == (scheme == "dark") and dark[ground] < sum(dark)


@each_page(PAGES)
def test_a_page_is_more_than_its_ground(desk, tmp_path):
    look(desk, DESKTOP, "light", tmp_path)


@each_dark_page
def test_a_page_on_a_phone_is_more_than_its_ground(phone, tmp_path):
    look(phone, PHONE, "dark", tmp_path)


def searches(page):
    buttons = page.locator("button[class*=search-button]").all()
    return sum(button.is_visible() for button in buttons)


@each_page(PAGES)
def test_there_is_one_search(desk):
    assert searches(desk) == 1


@each_dark_page
def test_there_is_one_search_on_a_phone(phone):
    assert searches(phone) == 1


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("Sinkhorn", "sections/sinkhorn"),
        ("semi-unbalanced", "sections/sinkhorn"),
        ("Gelbrich", "sections/dot_2d"),
        ("inpainting", "sections/texture_inpainting"),
        ("misprint", "errata"),
        ("KID", "dot_pd_curves"),
        ("majorisation", "reference/restore"),
        ("perception", "dot_pd_curves"),
        ("scoreboard", "scoreboard"),
        ("ρ", "sections/denoising"),
        ("ε", "sections/denoising"),
    ],
)
def test_search_finds_the_page(browser, asked, name):
    with visit(browser, "search") as page:
        page.goto(f"{page.url}?q={quote(asked)}")
        results = page.locator("#search-results ul.search > li a")
        results.first.wait_for()
        pages = [result.get_attribute("href") for result in results.all()][:3]
        assert page.errors == []
    assert any(name in found for found in pages), pages


@each_page(PAGES)
def test_the_keyboard_reaches_the_text(desk):
    desk.keyboard.press("Tab")
    skip = desk.locator(":focus")
    assert skip.get_attribute("href") == "#main-content"
    assert skip.evaluate("e => getComputedStyle(e).outlineStyle") != "none"
    desk.keyboard.press("Enter")
    desk.keyboard.press("Tab")
    assert desk.evaluate("document.activeElement.closest('#main-content') !== null")
    desk.evaluate("document.activeElement.blur(), scrollTo(0, 0)")


@each_page(PAGES)
def test_downloads_resolve(desk):
    offered = desk.locator("a.download")
    links = offered.evaluate_all("links => links.map(link => link.href)")
    files = [Path(unquote(urlparse(link).path)) for link in links]
    assert [file for file in files if not file.is_file()] == []
    if desk.name in NOTEBOOKS:  # the executed notebook and its source
        assert {".ipynb", ".md"} <= {file.suffix for file in files}


def test_each_plot_has_its_data():
    linked = {}
    for name in NOTEBOOKS:
        page = (HTML / f"{name}.html").read_text(encoding="utf-8")
        for figure in re.findall(r"<figure.*?</figure>", page, re.DOTALL):
            if re.search(r'<img[^>]*src="[^"]*\.svg"', figure):
                (file,) = re.findall(r'href="([^"]*\.csv)"', figure)
                head, *rows = (HTML / name).parent.joinpath(file).read_text().splitlines()
                assert head.startswith("panel,") and rows
                linked[file] = name
    assert len(set(linked.values())) > len(NOTEBOOKS) / 2


def test_a_search_from_the_disk_tells_what_each_page_is_about(browser):
    with visit(browser, "search") as page:
        page.goto(f"{page.url}?q=inpainting")
        page.locator("#search-results li .about").first.wait_for()
        told = page.locator("#search-results li:has(a[href*='texture_inpainting']) .about")
        with visit(browser, "sections/texture_inpainting") as other:
            about = other.locator("meta[name=description]").get_attribute("content")
        assert about in told.all_inner_texts()


def test_each_link_within_the_book_leads_somewhere():
    built = [path for path in HTML.rglob("*.html") if HTML / "_static" not in path.parents]
    pages = {path: path.read_text(encoding="utf-8") for path in built}
    anchors = {path: set(re.findall(r'\b(?:id|name)="([^"]+)"', pages[path])) for path in pages}
    lost = set()
    for path, text in pages.items():
        for link in map(
            unescape, re.findall(r'<(?:a|img|link|script)\b[^>]*? (?:href|src)="([^"]+)"', text)
        ):
            to = urlparse(link)
            if to.scheme or to.netloc:
                continue
            target = path if not to.path else (path.parent / unquote(to.path)).resolve()
            known = target.is_file() or (target / "index.html").is_file()
            if not known or (to.fragment and to.fragment not in anchors.get(target, {to.fragment})):
                lost.add((path.relative_to(HTML).as_posix(), link))
    assert sum(text.count("href=") for text in pages.values()) > 1000
    assert sorted(lost) == []


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_a_figure_opens_in_a_window_of_its_own_by_keyboard(browser, width):
    with visit(browser, "sections/texture_multiscale", width=width) as page:
        figures = page.locator("article figure:has(figcaption):has(img)")
        opens = page.locator("figcaption button[aria-label^='Enlarge']")
        assert opens.count() == figures.count() > 2
        for place in range(2):
            name = opens.nth(place).get_attribute("aria-label")
            opens.nth(place).focus()
            page.keyboard.press("Enter")
            window = page.get_by_role("dialog")
            assert name == f"Enlarge {window.get_attribute('aria-label')}"
            shown = window.locator("img").evaluate(
                "e => [e.src.endsWith('.svg'), e.width * devicePixelRatio / e.naturalWidth, e.alt]"
            )
            assert shown[0] or (shown[1] >= 1 and abs(shown[1] - round(shown[1])) < 0.01)
            assert shown[2] == figures.nth(place).locator("img").first.get_attribute("alt")
            screen = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert screen[0] <= screen[1]
            page.keyboard.press("Escape")
            assert page.get_by_role("dialog").count() == 0
            assert page.evaluate("document.activeElement.getAttribute('aria-label')") == name
        opens.first.click()
        page.get_by_role("dialog").get_by_role("button", name="Close").click()
        figures.first.locator("img").click()
        page.mouse.click(2, 2)  # beside the window
        assert page.get_by_role("dialog").count() == 0
        codes = page.locator("figcaption button[aria-label^='Code of']")
        assert codes.count() == figures.count() - 1  # the code of the lead stands below it
        codes.first.press("Enter")
        assert page.locator("details.above-input[open] .cell_input").is_visible()
        assert page.errors == []


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_the_keys_move_the_slider_between_two_images(browser, width):
    with visit(browser, "sections/super_resolution", width=width) as page:
        page.locator(".compare input").first.focus()
        seen = []
        for key in ("ArrowRight", "Home", "End"):
            page.keyboard.press(key)
            seen.append(
                page.evaluate(
                    """() => {
                        const [below, above] = document.querySelectorAll(".compare img");
                        const [one, other] = [below, above].map(e => e.getBoundingClientRect());
                        return [one.width === other.width && one.top === other.top,
                                getComputedStyle(above).clipPath];
                    }"""
                )
            )
            handle = page.locator(".compare input").first
            left = page.locator(".compare p span").first.inner_text()
            told = handle.get_attribute("aria-valuetext")
            assert told == f"{handle.input_value()} % {left}"
        assert all(same for same, _ in seen)
        assert len({cut for _, cut in seen}) == 3


def test_two_lists_choose_what_lies_beside_the_handle(browser):
    with visit(browser, "sections/super_resolution") as page:
        wipe = page.locator(".compare:has(select)")
        offered = wipe.locator("select").first.locator("option").all_inner_texts()
        assert len(offered) > 4
        for side, image in ((0, 1), (1, 0)):  # the left picture lies above
            choice = wipe.locator("select").nth(side)
            seen = set()
            for title in offered:
                choice.select_option(title)
                shown = wipe.locator("img").nth(image)
                assert shown.get_attribute("alt") == title
                assert wipe.locator("p span").nth(side).inner_text() == title
                seen.add(shown.get_attribute("src"))
            assert len(seen) > 4
        assert page.errors == []


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_keys_move_the_alpha_slider_along_equation_4(browser, width, scheme):
    with visit(browser, "sections/dot_pd_curves", width=width, scheme=scheme) as page:
        slider = page.locator(".along input").first
        slider.focus()
        for key in ("Home", "End", "ArrowLeft"):
            page.keyboard.press(key)
            alpha, text, said, shown, apart = slider.evaluate(
                """input => {
                    const box = input.parentNode, canvas = box.querySelector("canvas");
                    const [one, zero] = box.querySelectorAll("img");
                    const pixels = image => {
                        const copy = document.createElement("canvas");
                        [copy.width, copy.height] = [canvas.width, canvas.height];
                        const pen = copy.getContext("2d");
                        pen.drawImage(image, 0, 0);
                        return pen.getImageData(0, 0, copy.width, copy.height).data;
                    };
                    const [alpha, text] = JSON.parse(input.dataset.stops)[input.value];
                    const [x, y, z] = [canvas, zero, one].map(pixels);
                    const off = x.map((v, i) => Math.abs(
                        v - Math.min(255, Math.max(0, (1 - alpha) * y[i] + alpha * z[i]))));
                    const frame = e => JSON.stringify(e.getBoundingClientRect());
                    return [alpha, text, box.querySelector("p").textContent,
                            frame(canvas) === frame(zero), Math.max(...off)];
                }"""
            )
            assert text == said == slider.get_attribute("aria-valuetext")
            assert shown and apart <= 1
        assert alpha != 0


FILMS = sorted(
    f"sections/{source.stem}"
    for source in (ROOT / "notebooks").glob("*.md")
    if "frames.show(" in source.read_text(encoding="utf-8")
)
# what a figure of frames says of itself, and what its film says that it should
FILM = """host => {
    const film = JSON.parse(host.querySelector("script").textContent);
    const slider = host.querySelector("input");
    const chosen = [...host.querySelectorAll("select")].map(list => list.value);
    const stops = film.frames.filter(f => chosen.every((value, i) => f.key[i] === value));
    const frame = stops[slider.value];
    const of = image => film.sources.indexOf(image.getAttribute("src"));
    const images = [...host.querySelectorAll(".panels img")];
    const circles = [...host.querySelectorAll("svg")].map(svg => [...svg.querySelectorAll("circle")]
        .flatMap(c => [Number(c.getAttribute("cx")), Number(c.getAttribute("cy"))]));
    return {
        seen: [images.map(of), circles, images.map(image => image.alt),
               host.querySelector(".told").textContent, slider.getAttribute("aria-valuetext"),
               Number(slider.max)],
        meant: [frame.shown, frame.marks, film.titles.map(title => `${title}: ${frame.told}`),
                frame.told, frame.key.at(-1), stops.length - 1],
        stop: Number(slider.value),
    };
}"""


def turned(host):
    """What a figure of frames says at some stops of its slider."""
    said = []
    for key in ("Home", "ArrowRight", "ArrowRight", "End"):
        host.locator("input").press(key)
        now = host.evaluate(FILM)
        assert now["seen"] == now["meant"]
        assert (now["stop"] == 0) == (key == "Home" or now["meant"][-1] == 0)
        said.append(now["meant"][3])
    return said


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
@pytest.mark.parametrize("name", FILMS)
def test_the_keys_turn_the_frames(browser, name, width):
    with visit(browser, name, width=width) as page:
        for host in page.locator(".frames").all():
            said = turned(host)
            for choice in host.locator("select").all():
                for place in range(choice.locator("option").count()):
                    choice.select_option(index=place)
                    said += turned(host)
                choice.press("ArrowUp")  # by the keyboard, too
                assert choice.evaluate("list => list.selectedIndex") == max(0, place - 1)
                now = host.evaluate(FILM)
                assert now["seen"] == now["meant"]
            assert len(set(said)) > 3
        assert FILMS and page.errors == []


LOUPES = sorted(
    f"sections/{source.stem}"
    for source in (ROOT / "notebooks").glob("*.md")
    if "frames.loupe(" in source.read_text(encoding="utf-8")
)
# where a loupe's square is in each picture, and what its magnified image shows, in pixels of these
MAGNIFIED = """host => {
    const [height, width, side] =
        ["height", "width", "side"].map(name => Number(host.style.getPropertyValue(`--${name}`)));
    const data = JSON.parse(host.querySelector("script").textContent);
    const boxes = [...host.querySelectorAll(".panels > div")].map(panel => {
        const [whole, square] = [".picture img", "i"].map(
            name => panel.querySelector(name).getBoundingClientRect());
        const pixel = whole.width / width, glass = panel.querySelector("svg").viewBox.baseVal;
        return [(square.x - whole.x) / pixel, (square.y - whole.y) / pixel, square.width / pixel,
                glass.x, glass.y, glass.width];
    });
    const [shown, large] = [["img", "src"], ["image", "href"]].map(([what, name]) =>
        [...host.querySelectorAll(what)].map(
            image => data.sources.indexOf(image.getAttribute(name))));
    if (shown.join() !== large.join()) throw Error("another image is magnified");
    return {height, width, side, boxes, shown, views: data.views};
}"""


def same_square(host):
    """The corner of the square of a loupe, the same in all its pictures and their enlargements."""
    now = host.evaluate(MAGNIFIED)
    (left, top, *_), *_ = now["boxes"]
    for box in now["boxes"]:
        assert box == pytest.approx([left, top, now["side"]] * 2, abs=1)
    assert -1 < left < now["width"] - now["side"] + 1 and -1 < top < now["height"] - now["side"] + 1
    return left, top, now


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
@pytest.mark.parametrize("name", LOUPES)
def test_a_loupe_is_moved_by_keys_and_by_hand(browser, name, width):
    with visit(browser, name, width=width) as page:
        for host in page.locator(".loupe").all():
            left, top, now = same_square(host)
            across, down = host.locator("input").all()
            across.press("Home")
            down.press("End")
            assert same_square(host)[:2] == pytest.approx((0, now["height"] - now["side"]), abs=0.1)
            assert down.get_attribute("aria-valuetext") == "100 % from the top"
            box = host.locator(".picture").last.bounding_box()
            page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
            assert same_square(host)[:2] == pytest.approx((left, top), abs=1)
            (choice,) = host.locator("select").all()
            for place in range(choice.locator("option").count()):
                choice.select_option(index=place)
                now = same_square(host)[2]
                view = now["views"][place]
                assert (now["shown"], [now["height"], now["width"]]) == (
                    view["shown"],
                    view["shape"],
                )
        assert LOUPES and page.errors == []


@pytest.mark.parametrize("name", FILMS)
def test_without_scripts_and_in_print_one_frame_stands(browser, name):
    context = browser.new_context(java_script_enabled=False)
    still = context.new_page()
    still.goto((HTML / f"{name}.html").as_uri())
    with visit(browser, name) as page:
        page.emulate_media(media="print")
        for here, there in zip(
            page.locator(".frames").all(), still.locator(".frames").all(), strict=True
        ):
            for host in (here, there):
                assert not host.locator(".controls").is_visible()
                assert host.locator(".panels img").first.is_visible()
            # the first frame that a script shows is the one that stands there without
            sources = [
                host.locator("img").evaluate_all("all => all.map(e => [e.src, e.alt])")
                for host in (here, there)
            ]
            assert sources[0] == sources[1]
    context.close()


@pytest.mark.parametrize("rho", [(math.inf, math.inf), (math.inf, 0.05), (0.3, 0.05)])
def test_the_live_solver_is_that_of_otlib(browser, rho):
    with visit(browser, "index") as page:
        x, y, value, plan = page.evaluate(
            """rho => {
                const [x, y] = liveSinkhorn.clouds(60, 12, 3);
                const prices = rho.map(price => price ?? Infinity);
                const found = liveSinkhorn.solve(x, y, 0.02, prices, {updates: 20000});
                return [x, y, found.value, found.plan];
            }""",
            [None if math.isinf(price) else price for price in rho],
        )
    x, y = (torch.tensor(points, dtype=torch.float64) for points in (x, y))
    ours = sinkhorn.solve(x, y, eps=0.02, rho=rho, tol=1e-8, max_iter=10000)
    assert value == pytest.approx(float(ours.value), rel=1e-4)
    # the largest entry of a plan between sixty points is some 1 / 60
    here = sinkhorn.plan(x, y, ours)
    torch.testing.assert_close(torch.tensor(plan, dtype=torch.float64), here, rtol=0, atol=1e-6)


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
@pytest.mark.parametrize("name", ["index", "sections/sinkhorn"])
def test_the_live_figure_by_keyboard_and_by_hand(browser, name, width):
    with visit(browser, name, width=width) as page:
        figure = page.locator(".live-sinkhorn")
        said = figure.locator("p")
        changed = lambda before: page.wait_for_function(
            "told => document.querySelector('.live-sinkhorn p').textContent !== told", arg=before
        )
        page.wait_for_function("document.querySelector('.live-sinkhorn p')?.textContent")
        assert "mass moved 100 %, of it on the wrong points 20 %" in said.inner_text()  # balanced
        second = figure.locator("input").nth(2)
        for key, words in (("Home", "0.001"), ("End", "infinite")):
            before = said.inner_text()
            second.press(key)
            changed(before)
            assert second.get_attribute("aria-valuetext") == words
            assert ("points 20 %" in said.inner_text()) == (words == "infinite")
        before = said.inner_text()
        canvas = figure.locator("canvas")
        canvas.press("PageDown")
        canvas.press("ArrowRight")
        changed(before)
        before, box = said.inner_text(), canvas.bounding_box()
        at = [box["x"] + 0.3 * box["width"], box["y"] + 0.62 * box["height"]]
        page.mouse.move(*at)
        page.mouse.down()
        page.mouse.move(at[0], at[1] - 0.4 * box["height"], steps=4)
        page.mouse.up()
        changed(before)
        assert page.errors == []


@pytest.mark.parametrize("name", ["errata", "solver"])  # one only computes, one shows the archive
def test_the_downloaded_notebook_runs_alone(name, run_alone, tmp_path):
    page = nbformat.read(ROOT / "book" / "sections" / f"{name}.ipynb", 4)
    (box,) = [cell.source for cell in page.cells if cell.id == "companion-rerun"]
    (offered,) = (HTML / "_downloads").glob(f"*/{name}.ipynb")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert collect(run_alone(box, offered, empty)) == collect(nbformat.read(offered, 4))


@each_page(NOTEBOOKS)
def test_a_term_leads_to_the_glossary_once_and_a_citation_to_its_equation(desk):
    links = "all => all.map(e => [e.textContent, e.closest('a').href])"
    terms = desk.locator(".glossary-term").evaluate_all(links)
    cited = desk.locator("article a[href*='equations.html#']").evaluate_all(links)
    source = desk.locator("article").inner_text()
    files = {"glossary": HTML / "glossary.html", "equations": HTML / "sections/equations.html"}
    ids = {key: set(re.findall(r'id="([^"]*)"', file.read_text())) for key, file in files.items()}
    ends = [urlparse(link) for _, link in terms]
    assert {Path(end.path) for end in ends} <= {files["glossary"]}
    assert {end.fragment for end in ends} <= ids["glossary"]
    assert len({end.fragment for end in ends}) == len(ends)
    assert terms or desk.name == "sections/rerunning"
    assert {urlparse(link).fragment for _, link in cited} <= ids["equations"]
    assert len(re.findall(r"\[[MHAS], eq\. \d+\]", source)) >= len(cited)


BOARD = "sections/scoreboard"
ROWS = "table.scoreboard tbody tr:not([hidden])"
SQUARES = ".squares a.square:not([hidden])"


@contextmanager
def visit_board(browser, address="", **options):
    with visit(browser, BOARD, **options) as page:
        if address:
            page.goto((HTML / f"{BOARD}.html").as_uri() + address)
        yield page


def claims():
    """The claims as the page offers them to download: (JSON, CSV)."""
    (whole,) = HTML.glob("_downloads/*/claims.json")
    (flat,) = HTML.glob("_downloads/*/claims.csv")
    with flat.open(encoding="utf-8", newline="") as lines:
        return json.loads(whole.read_text(encoding="utf-8")), list(csv.DictReader(lines))


def test_the_scoreboard_has_a_row_and_a_square_a_claim_and_both_downloads(browser):
    entries, lines = claims()
    assert entries and [line["id"] for line in lines] == [entry["id"] for entry in entries]
    with visit_board(browser) as page:
        offered = page.locator("a.download").evaluate_all("all => all.map(e => e.href)")
        assert [Path(urlparse(url).path).name for url in offered] == ["claims.csv", "claims.json"]
        rows = page.locator(f"{ROWS} [data-verdict]").evaluate_all(
            "all => all.map(e => [e.id, e.dataset.document, e.dataset.verdict, e.dataset.grade])"
        )
        told = [[f"claim-{e['id']}", e["document"], e["verdict"], e["grade"]] for e in entries]
        assert sorted(rows) == sorted(told)
        squares = page.locator(SQUARES).evaluate_all(
            "all => all.map(e => [decodeURIComponent(e.hash.slice(1)), e.textContent])"
        )
        assert sorted(squares) == sorted([t[0], SYMBOLS[t[2]]] for t in told)


@pytest.mark.parametrize("name", ["document", "kind", "verdict", "grade"])
def test_a_filter_stands_in_the_address_and_is_opened_again(browser, name):
    entries, _ = claims()
    with visit_board(browser) as page:
        status = page.locator(".filters [role=status][aria-live=polite]")
        assert status.inner_text() == f"{len(entries)} of {len(entries)} claims shown."
        for value in {entry[name] for entry in entries} - {""}:
            page.locator(f"select[name={name}]").select_option(value)
            said = {f"claim-{entry['id']}" for entry in entries if entry[name] == value}
            find = "all => all.map(e => e.querySelector('[id]').id)"
            assert set(page.locator(ROWS).evaluate_all(find)) == said
            assert page.locator(SQUARES).count() == len(said)
            assert status.inner_text() == f"{len(said)} of {len(entries)} claims shown."
            # no head stands over nothing, and no row is left in a closed fold that was asked for
            sections = page.locator("#scoreboard > section:visible")
            assert sections.count() == len({e["document"] for e in entries if e[name] == value})
            if name == "verdict":
                assert page.locator(f"{ROWS}:visible").count() == len(said)
        address = page.url
        assert parse_qs(urlparse(address).query) == {name: [value]}
        page.goto("about:blank")
        page.goto(address)
        assert page.locator(f"select[name={name}]").input_value() == value
        assert set(page.locator(ROWS).evaluate_all(find)) == said
        page.get_by_role("button", name="Show all").click()
        assert page.locator(ROWS).count() == len(entries) and "?" not in page.url
        assert page.errors == []


def test_filters_meet_and_an_unknown_one_asks_for_nothing(browser):
    entries, _ = claims()
    first = entries[0]
    both = [(e["document"], e["kind"]) for e in entries].count((first["document"], first["kind"]))
    address = f"?document={first['document']}&kind={first['kind']}&grade=Z&other=1"
    with visit_board(browser, address) as page:
        assert 0 < page.locator(ROWS).count() == both < len(entries)
    with visit_board(browser, "?verdict=mixed&kind=ours&grade=A") as page:
        assert page.locator(".filters [role=status]").inner_text().startswith("0 of ")
        assert page.locator("table.scoreboard:visible").count() == 0
        assert page.locator(".squares:visible").count() == 0


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_the_keyboard_filters_and_walks_along_the_squares(browser, width):
    with visit_board(browser, width=width) as page:
        page.locator("select[name=document]").focus()
        for _ in range(2):
            page.keyboard.press("Tab")
        for _ in range(1 + list(SYMBOLS).index("differs")):
            page.keyboard.press("ArrowDown")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Show all"
        assert "verdict=differs" in page.url
        group = page.locator(".squares:visible").first
        squares = group.locator("a.square:not([hidden])")
        page.keyboard.press("Tab")  # to the document's name
        page.keyboard.press("Tab")
        where = "() => document.activeElement.href"
        links = squares.evaluate_all("all => all.map(e => e.href)")
        assert len(links) > 1 and page.evaluate(where) == links[0]
        for key, at in [("ArrowRight", 1), ("End", -1), ("ArrowRight", -1), ("Home", 0)]:
            page.keyboard.press(key)
            assert page.evaluate(where) == links[at]
        page.keyboard.press("End")
        page.keyboard.press("Tab")  # one stop a group
        assert page.evaluate(where) not in links
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Enter")
        page.locator("tr:has(:target) details[open]").wait_for()
        assert page.url.endswith(links[-1].split("#")[1]) and "verdict=differs" in page.url


def test_a_claim_leads_to_its_cell_and_back(browser):
    entries, _ = claims()
    own = [e for e in entries if e["runs"] and e["runs"][0]["run"].startswith("this run")]
    answered = [e for e in own if e["kind"] in PUBLISHED]  # the others stand in a fold there
    for entry in (answered[0], answered[-1]):
        nb = nbformat.read(ROOT / "book" / "sections" / f"{entry['page']}.ipynb", 4)
        (made,) = [cell for cell in nb.cells if entry["record"] in collect({"cells": [cell]})]
        with visit_board(browser, f"#claim-{entry['id']}") as page:
            page.locator("tr:has(:target) a").first.click()
            page.wait_for_url(f"**/{entry['page']}.html#*")
            cell = page.locator(".claims:has(:target) + .cell")
            assert cell.locator(".cell_input pre").text_content().strip() == made.source.strip()
            assert cell.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
            back = page.locator(f'table.scoreboard a[href$="#claim-{entry["id"]}"]')
            assert back.inner_text().endswith(entry["verdict"])
            back.click()
            page.wait_for_url(f"**/{BOARD}.html#*")
            page.locator("tr:has(:target)").wait_for()
            assert page.errors == []


def test_each_link_to_a_claim_leads_somewhere():
    pages = {path.name: path.read_text("utf-8") for path in (HTML / "sections").glob("*.html")}
    ids = {name: set(re.findall(r'id="(claim-[^"]*)"', text)) for name, text in pages.items()}
    found = [
        (name, to or name, unescape(unquote(anchor)))
        for name, text in pages.items()
        for to, anchor in re.findall(r'href="([^"#]*)#(claim-[^"]*)"', text)
    ]
    assert [link for link in found if link[2] not in {*map(unescape, ids[link[1]])}] == []
    board = {unescape(one) for one in ids["scoreboard.html"]}
    assert board == {f"claim-{entry['id']}" for entry in claims()[0]}
    # from each claim to its page, and each claim that a run answers back
    assert board == {to for name, page, to in found if name != page and name == "scoreboard.html"}
    answered = {f"claim-{entry['id']}" for entry in claims()[0] if not entry["takes"]}
    assert answered <= {to for name, page, to in found if page == "scoreboard.html" != name}


def test_an_address_opens_what_holds_its_claim(browser):
    folded = next(entry for entry in claims()[0] if entry["takes"])
    # a filter that would hide it is no reason not to show it
    with visit_board(browser, f"?verdict=reproduced#claim-{folded['id']}") as page:
        row = page.locator("tr:has(:target)")
        row.wait_for()
        assert 0 <= row.evaluate("e => e.getBoundingClientRect().top") < 900
        assert "?" not in page.url


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_square_tells_its_verdict_by_a_readable_sign(browser, width, scheme):
    with visit_board(browser, width=width, scheme=scheme) as page:
        squares = page.locator("tbody tr .square, .squares a.square").evaluate_all(
            """all => all.map(e => {
                const style = getComputedStyle(e), box = e.getBoundingClientRect();
                return [e.textContent, style.color, style.backgroundColor, style.backgroundImage,
                        box.width, box.height];
            })"""
        )
        shown = {tuple(square[:4]) for square in squares if square[4]}
        assert len(shown) == len({sign for sign, *_ in shown}) > 1  # one look a verdict
        assert {tuple(square[4:]) for square in squares if square[4]} == {(24, 24)}
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        for _, colour, back, picture in shown:
            if picture == "none":
                under = ground if back == "rgba(0, 0, 0, 0)" else back
                assert contrast(colour, under) >= 4.5


def contrast(one, other):
    """Contrast of two colours "rgb(r, g, b)", by WCAG 2."""

    def light(colour):
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def test_without_scripts_the_scoreboard_is_a_plain_table(browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((HTML / f"{BOARD}.html").as_uri() + "?verdict=differs")
    assert page.locator(ROWS).count() == len(claims()[0])
    assert not page.locator(".filters").is_visible()
    page.locator(".squares a.square").first.click()
    page.locator("tr:has(:target)").wait_for()
    context.close()


def test_the_whole_book_is_one_pdf(launch, tmp_path):
    """Each page begins where its outline says; links stay inside it or go out to the net."""
    path, names = tmp_path / "book.pdf", in_order(ROOT)
    assert names[0] == TOC["root"] and set(PAGES) | set(REFERENCE) <= set(names)
    code = (
        "import sys, pathlib, companion.pdf as pdf; pdf.write_pdf(*map(pathlib.Path, sys.argv[1:]))"
    )
    # a process of its own: Playwright drives one browser a thread
    subprocess.run([sys.executable, "-c", code, ROOT, path], check=True, capture_output=True)
    whole = PdfReader(path)
    assert len(whole.pages) > len(names)
    starts = [whole.get_destination_page_number(item) for item in whole.outline]
    assert starts[0] == 0 and starts == sorted(set(starts)) and len(starts) == len(names)
    texts = ["".join(page.extract_text().split()) for page in whole.pages]
    for item, start in zip(whole.outline[1:], starts[1:], strict=True):
        assert "".join(item.title.split())[:20] in texts[start].replace("ﬁ", "fi"), item.title
    text = "".join(texts)
    assert "\ufffd" not in text and set("ρελ✔✘○") <= set(text)
    assert "fromcompanion.page.jobsimport" not in text  # which stands in folds: they are closed
    notes = [note.get_object() for page in whole.pages for note in page.get("/Annots", ())]
    uris = [note["/A"]["/URI"] for note in notes if "/URI" in note.get("/A", {})]
    assert {urlparse(uri).scheme for uri in uris} == {"https"}
    assert sum("/Dest" in note for note in notes) > len(names)
