"""The form of a served page in a browser: from values to a page with their numbers, by each way."""

import functools
import http.server
import json
import re
import threading
import urllib.request
from urllib.parse import parse_qsl, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from companion.run import plan

DESKTOP, PHONE = 1280, 390
SLOW = 180_000  # milliseconds at most, of a run and its page on a busy machine


@pytest.fixture(scope="module")
def browser(chromium):
    browser = chromium()
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder that the server is given, with an image below."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "below").mkdir()
    Image.new("L", (3, 3)).save(folder / "below" / "three.png")
    return folder


@pytest.fixture(scope="module")
def address(server, folder):
    """Where one server of all tests here is; each has values of its own."""
    return server("--folder", str(folder))[1]


@pytest.fixture
def visit(browser):
    """A function that opens the page of a server; nothing but it is asked, the console is clean."""
    pages, strangers, errors = [], [], []

    def heard(line):
        if line.type == "error":
            errors.append(f"{line.text} {line.location['url']}")

    def visit(address, rest="", width=DESKTOP, scheme="light"):
        # without motion: a fold that still fades in has less contrast than it will have
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
        )
        context.set_default_timeout(SLOW)
        page = context.new_page()
        origin = "http://" + urlsplit(address).netloc + "/"
        page.on(
            "request",
            lambda told: (
                strangers.append(told.url)
                if not told.url.startswith((origin, "data:", "blob:"))
                else None
            ),
        )
        page.on("console", heard)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.errors = errors
        page.goto(f"{address}sections/naps.html{rest}")
        pages.append(context)
        page.locator(".rerun-form").wait_for(state="attached")
        return page

    yield visit
    for context in pages:
        context.close()
    assert strangers == []
    assert errors == []


def opened(page):
    fold = page.locator(".admonition.rerun")
    if "toggle-hidden" in fold.get_attribute("class"):
        fold.locator(".toggle-button").click()
    return page.get_by_role("form", name="Rerun this page")


def refused(page):
    """Forget the browser's own lines on what the server refused."""
    page.errors[:] = [line for line in page.errors if " 422 " not in line]


def card(page, text):
    return page.locator(".rerun-runs article", has_text=text)


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_from_the_form_to_a_page_with_its_numbers(visit, address, width):
    page = visit(address, width=width)
    form = opened(page)
    rho = "0.3" if width == DESKTOP else "0.35"
    form.get_by_label("rho").fill(rho)
    form.get_by_role("button", name="Run", exact=True).click()
    done = card(page, f"rho = {rho}")
    done.get_by_text("is done").wait_for()
    done.get_by_role("link", name="Page with its numbers").click()
    page.locator(".rerun-shown").wait_for()
    assert f"rho = {rho}" in page.locator(".rerun-shown").inner_text()
    table = page.locator("#published-archived-and-here table.scoreboard").inner_text()
    assert f"{rho} dB" in table and "0.1 dB" in table
    assert page.locator("#rerun-rho").input_value() == rho  # the form has what the page shows
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("link", name="Compared with it").click()
    page.wait_for_url("**/companion/compare?*")
    assert "loss" in page.locator("main, body").first.inner_text()


def test_wrong_values_are_told_at_their_fields_and_the_first_is_found(visit, address):
    page = visit(address)
    form = opened(page)
    form.get_by_label("rho").fill("-1")
    form.get_by_label("naps", exact=True).fill("many")
    page.keyboard.press("Tab")
    form.get_by_text("'-1', expected float > 0").wait_for()
    form.get_by_role("button", name="Run", exact=True).click()
    form.get_by_text("'many', expected int >= 1").wait_for()
    page.wait_for_function("() => document.activeElement.id === 'rerun-rho'")
    assert form.get_by_label("rho").get_attribute("aria-invalid") == "true"
    assert page.locator(".told").inner_text() == "2 values are not possible."
    assert card(page, "rho = -1").count() == 0
    form.get_by_role("button", name="Values of the profile").click()
    page.locator("[aria-invalid]").first.wait_for(state="detached")
    assert form.get_by_label("rho").input_value() == "0.1"
    refused(page)


def test_the_keyboard_alone_runs_a_page(visit, address):
    page = visit(address)
    page.locator(".admonition.rerun .toggle-button").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "rerun-profile"
    page.keyboard.press("ArrowDown")  # from the first profile to the second and back
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "rerun-rho"
    assert page.locator("#rerun-rho").input_value() == "0.2"  # of smoke
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("0.45")
    page.keyboard.press("Enter")
    done = card(page, "smoke, rho = 0.45")
    done.get_by_text("is done").wait_for()
    assert "is done" in page.locator(".rerun [role=status]").first.inner_text()
    link = done.get_by_role("link", name="Page with its numbers")
    while not link.evaluate("e => e === document.activeElement"):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator(".rerun-shown").wait_for()


def test_progress_is_live_in_two_tabs_and_cancel_keeps_what_is_done(visit, address, built_book):
    one, two = visit(address), visit(address)
    form = opened(one)
    opened(two)
    form.get_by_label("naps", exact=True).fill("6")
    form.get_by_label("nap", exact=True).fill("1.5")
    form.get_by_role("button", name="Run", exact=True).click()
    for page in (one, two):
        card(page, "naps = 6").get_by_text(re.compile(r"naps: [1-5] of 6, .* left")).wait_for()
        assert card(page, "naps = 6").locator("progress").count() == 2
        told = page.locator(".rerun .visually-hidden[role=status]").inner_text()
        assert told.startswith("laptop, naps = 6") and re.search(r"cells: \d of \d", told)
    card(two, "naps = 6").get_by_role("button", name="Cancel").click()
    for page in (one, two):
        card(page, "naps = 6").get_by_text("was cancelled").wait_for()
    todo = plan("naps", {"naps": 6, "nap": 1.5}, root=built_book)
    assert len(list(todo.parts.glob("*"))) >= 1
    one.close()  # the tab may go
    card(two, "naps = 6").get_by_role("button", name="Go on").click()
    again = visit(address)
    opened(again)
    card(again, "naps = 6").get_by_text("is done").wait_for()


def test_a_link_opens_the_filled_form_and_names_what_it_does_not_know(visit, address):
    page = visit(address, "?profile=smoke&p.rho=0.7&p.rhoo=1#rerun")
    page.get_by_text("The link names unknown parameters: rhoo.").wait_for()
    assert page.locator("#rerun-rho").input_value() == "0.7"
    assert page.locator("#rerun-profile").input_value() == "smoke"
    assert page.locator("#rerun-rho").is_visible()
    page = visit(address, "?profile=smok&p.rhoo=1#rerun")
    page.get_by_text("The link names an unknown profile: smok.").wait_for()
    page.get_by_text("The link names unknown parameters: rhoo.").wait_for()
    page = visit(address, "?p.rho=-7#rerun")
    page.get_by_text("'-7', expected float > 0").wait_for()


def test_a_link_without_the_prefix_is_told_what_to_write(visit, address):
    page = visit(address, "?rho=.3&rho=.4&mood=good")
    page.get_by_text("unknown parameters: rho (write p.rho), mood.").wait_for()
    assert page.locator("#rerun-rho").is_visible()
    assert page.locator("#rerun-rho").input_value() == "0.1"
    assert page.locator("#rerun-profile").input_value() == "laptop"


def test_what_the_search_asks_of_a_page_is_no_parameter(visit, address):
    page = visit(address, "?q=loss&highlight=loss&p.rho=-7")
    page.get_by_text("1 value is not possible.").wait_for()
    assert page.locator(".told").inner_text() == "1 value is not possible."
    # Sphinx's search begins wherever an address has a q, and finds no place here for its results
    page.errors[:] = [line for line in page.errors if "'appendChild'" not in line]


def test_a_sweep_s_plots_come_and_its_link_fills_the_form_again(visit, address):
    page = visit(address)
    form = opened(page)
    form.get_by_label("rho").fill("1:4:3")
    form.get_by_label("seed").fill("0, 1")
    page.keyboard.press("Tab")
    page.get_by_text("6 points, 0 of them run already.").wait_for()
    form.get_by_role("button", name="Run 6 points").click()
    sweep = card(page, "rho = 1,2.5,4")
    sweep.get_by_text("is done").wait_for()
    plot = sweep.locator("img")
    plot.wait_for()
    page.wait_for_function("e => e.complete && e.naturalWidth > 0", arg=plot.element_handle())
    assert plot.get_attribute("alt") == "loss over seed, rho"
    link = sweep.get_by_role("link", name="Form with its values").get_attribute("href")
    assert dict(parse_qsl(urlsplit(link).query))["p.rho"] == "1,2.5,4"


def test_an_image_of_ones_own_is_sent_and_a_text_is_not(visit, address, tmp_path):
    Image.new("L", (31, 17)).save(tmp_path / "mine.png")
    (tmp_path / "text.png").write_text("no image")
    page = visit(address)
    form = opened(page)
    form.locator("input[type=file]").set_input_files(tmp_path / "text.png")
    form.get_by_text("text.png: no image; allowed are PNG").wait_for()
    refused(page)
    form.locator("input[type=file]").set_input_files(tmp_path / "mine.png")
    page.get_by_text("mine.png: 31 × 17 pixels.").wait_for()
    form.get_by_role("button", name="Run", exact=True).click()
    done = card(page, "picture = .companion/uploads/")
    done.get_by_text("is done").wait_for()
    with page.expect_download() as download:
        done.get_by_role("link", name="JSON").click()
    told = json.loads(download.value.path().read_text())
    assert told["records"]["width"]["value"] == 31
    done.get_by_role("button", name="Remove").click()
    done.wait_for(state="detached")
    page.get_by_text(re.compile(r"^The run laptop, picture = .* is removed\.$")).wait_for()


def test_a_path_is_picked_inside_of_a_folder(visit, address, folder):
    page = visit(address)
    opened(page).get_by_role("button", name="Choose a path").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name=str(folder)).wait_for()
    page.keyboard.press("Enter")  # the one folder has the focus
    dialog.get_by_role("button", name="below/").click()
    dialog.get_by_role("button", name="three.png").click()
    dialog.wait_for(state="detached")
    assert page.locator("#rerun-picture").input_value() == str(folder / "below" / "three.png")
    assert page.evaluate("document.activeElement.id") == "rerun-picture"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_axe_finds_nothing_serious_and_nothing_is_cut(visit, address, width, scheme):
    page = visit(address, width=width, scheme=scheme)
    form = opened(page)
    assert page.evaluate("document.getAnimations().length") == 0  # no fold fades in
    form.get_by_label("rho").fill("-1")
    page.keyboard.press("Tab")
    form.get_by_text("'-1', expected float > 0").wait_for()
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    grave = [rule for rule in found if rule["impact"] in ("serious", "critical")]
    assert [(rule["id"], rule["nodes"][0]["html"]) for rule in grave] == []
    # axe asks for what a style sheet imports, by the wrong address
    page.errors[:] = [line for line in page.errors if not line.endswith("/basic.css")]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_from_disk_the_page_shows_its_commands_and_asks_for_nothing(browser, built_book):
    context = browser.new_context()
    page, seen, errors = context.new_page(), [], []
    page.on("request", lambda request: seen.append(request.url))
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    page.goto((built_book / "book/_build/html/sections/naps.html").as_uri() + "?p.rho=1#rerun")
    page.wait_for_timeout(500)
    assert page.locator(".rerun-form").count() == 0
    assert "companion run naps" in page.locator(".admonition.rerun").text_content()
    assert [url for url in seen if "/companion/" in url] == [] and errors == []
    context.close()


@pytest.fixture
def other_site(tmp_path):
    """The address of a server of another origin, with an empty page."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    (tmp_path / "index.html").write_text("<title>Another site</title>")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{site.server_port}/"
        site.shutdown()
        thread.join()


def known(address):
    """The jobs that the server knows of the page, as its stream of events begins."""
    with urllib.request.urlopen(address + "companion/events/naps", timeout=60) as stream:
        return [job["id"] for job in json.loads(next(stream).removeprefix(b"data: "))]


def test_another_site_cannot_start_runs(browser, address, other_site):
    """A page of another origin, in the reader's own browser."""
    before = known(address)  # other tests' runs, where they ran first
    context = browser.new_context()
    page = context.new_page()
    page.goto(other_site)
    told = page.evaluate(
        """async (address) => {
            const body = '{"notebook": "naps", "profile": "laptop", "values": {}}';
            const codes = [];
            const json = {headers: {"content-type": "application/json"}};
            for (const how of [{}, {mode: "no-cors"}, json]) {
                const sent = {method: "POST", body, ...how};
                const answer = await fetch(address + "companion/runs", sent)
                    .catch((error) => ({status: String(error)}));
                codes.push(answer.status);
            }
            return codes;
        }""",
        address,
    )
    assert 200 not in told
    context.close()
    assert known(address) == before


def test_a_server_killed_and_started_again_is_found_by_the_page(visit, server):
    process, address = server()  # the last test: the one above is gone
    page = visit(address)
    form = opened(page)
    form.get_by_label("naps", exact=True).fill("5")
    form.get_by_label("nap", exact=True).fill("1.1")
    form.get_by_role("button", name="Run", exact=True).click()
    card(page, "naps = 5").get_by_text(re.compile("naps: [1-4] of 5")).wait_for()
    process.kill()
    process.wait()
    page.get_by_text("The server does not answer; this page tries again.").wait_for()
    form.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("is companion serve still running?").wait_for()
    server("--port", str(urlsplit(address).port))
    card(page, "naps = 5").get_by_text("was interrupted").wait_for()
    card(page, "naps = 5").get_by_role("button", name="Go on").click()
    card(page, "naps = 5").get_by_text("is done").wait_for()
    page.errors.clear()  # the browser tells of each request that nobody answered
