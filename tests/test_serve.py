"""`companion serve` over HTTP: forms, runs, results, who may ask for what."""

import asyncio
import contextlib
import errno
import io
import json
import os
import shlex
import signal
import socket
import sys
import threading
import time
import urllib.request
import zlib
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import psutil
import pytest
from PIL import Image
from starlette.testclient import TestClient

from companion.cli import main
from companion.files import write_aside
from companion.notebooks import Parameter
from companion.run import finished, plan
from companion.serve import forms, pages, progress, uploads
from companion.serve import queue as queues
from companion.serve.app import application
from companion.serve.guard import Guard, policy

ROOT = Path(__file__).parents[1]
PORT = 8765
HERE = f"http://127.0.0.1:{PORT}"
RUNS = "/companion/runs"


def asked(profile="laptop", notebook="naps", **values):
    return {"notebook": notebook, "profile": profile, "values": values}


@pytest.fixture(scope="module")
def one_queue(built_book):
    """The queue of a server of the built book."""
    made = queues.Queue(built_book, 1, lambda job, ending: None)
    yield made
    made.close()


@pytest.fixture
def queue(one_queue):
    """That queue, without jobs; its process is warm."""
    yield one_queue
    for job in one_queue.jobs("naps"):
        one_queue.cancel(job["id"])
        ended(one_queue, job["id"], "done", "failed", "cancelled", "interrupted")
        one_queue.remove(job["id"])


@pytest.fixture
def folder(tmp_path):
    """A folder that the server was given, with an image, and a link that leads out of it."""
    inside = tmp_path / "inside"
    inside.mkdir()
    Image.new("L", (5, 4)).save(inside / "five.png")
    (tmp_path / "secret.png").write_bytes((inside / "five.png").read_bytes())
    (inside / "out.png").symlink_to(tmp_path / "secret.png")
    return inside


@pytest.fixture
def client(built_book, queue, folder):
    served = forms.Served(built_book, (folder,))
    app = Guard(application(served, queue, lambda: False), None, PORT, None)
    with TestClient(app, base_url=HERE, headers={"origin": HERE}) as client:
        yield client


def until(what, seconds=180):
    """What a function gives as soon as it gives something."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


def ended(queue, identity, *states):
    """A job as soon as it is in one of the states."""
    return until(lambda: (job := queue.job(identity)).state in states and job)


# ---- bars


def test_a_bar_of_tqdm_is_read_back():
    line = "naps:  30%|███       | 3/10 [00:01<01:03,  2.13it/s, 1/4 done]"
    assert progress.read(line) == {"label": "naps", "done": 3, "total": 10, "left": 63}
    assert progress.read("cells:   0%|    | 0/34 [00:00<?, ?cell/s]")["left"] is None
    assert progress.read("a b: 50%|# | 1/2 [1:00:00<2:00:01]")["left"] == 7201
    assert progress.read("UserWarning: 30% of nothing") is None


def test_bars_are_told_however_their_text_is_cut():
    from tqdm import tqdm

    told = []
    stream = progress.Bars(told.append)
    bar = tqdm(total=3, desc="naps", file=stream, mininterval=0)
    for _ in range(3):
        bar.update()
    bar.close()
    assert [one["done"] for one in told][-1] == 3 and {one["label"] for one in told} == {"naps"}
    told.clear()
    for letter in "\rnaps:  50%|#####     | 1/2 [00:01<00:01]\r":
        stream.write(letter)
    assert told[-1] == {"label": "naps", "done": 1, "total": 2, "left": 1}


# ---- forms


def test_a_form_shows_what_the_notebook_tells(client):
    told = client.get("/companion/forms/naps").json()
    fields = {one["name"]: one for one in told["parameters"]}
    assert list(fields) == ["seed", "rho", "naps", "nap", "form", "fast", "sizes", "picture"]
    assert fields["rho"]["placeholder"] == "paper: .3" and fields["rho"]["numeric"]
    assert fields["form"]["choices"] == ["a", "b"] and not fields["form"]["path"]
    assert fields["picture"]["path"] and fields["picture"]["upload"]
    assert told["profiles"]["smoke"]["rho"] == "0.2" and told["profiles"]["laptop"]["rho"] == "0.1"
    assert told["profiles"]["laptop"]["fast"] == "true"
    assert told["profile"] == told["built"] == "laptop" and not told["changed"]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"rho": "-1"}, "'-1', expected float > 0"),
        ({"rho": "nan"}, "'nan', expected float > 0"),
        ({"rho": ""}, "'', expected float > 0"),
        ({"naps": "1.5"}, "'1.5', expected int >= 1"),
        ({"form": "c"}, "'c', expected str, one of a, b"),
        ({"fast": "maybe"}, "'maybe', expected true or false"),
        ({"sizes": "[0]"}, "'[0]', expected list of whole numbers >= 1"),
        ({"sizes": "__import__('os')"}, "expected list of whole numbers"),
        ({"sizes": "[{[]: 1}]"}, "expected list of whole numbers"),
        ({"rhoo": "1"}, "no parameter of naps; did you mean 'rho'?"),
        ({"rho": "1, 1"}, "'1, 1' has a value twice"),
        ({"rho": "1:0:3"}, "'1:0:3' is no range: write LOW:HIGH:COUNT"),
        ({"rho": "0:1:3 log"}, "'0:1:3 log': a range of logarithms starts above 0"),
        ({"rho": "1:2:1000"}, "1000 values, allowed are 50"),
        ({"naps": "-1e308:1e308:3"}, "'-1e308:1e308:3' is no range"),  # its step is infinite
        ({"naps": "1e-300:1e308:3 log"}, "'1e-300:1e308:3 log' is no range"),
        ({"rho": "1, 2, -3"}, "'-3', expected float > 0"),
        ({"picture": "/etc/passwd"}, "lies outside of the folders that this server was given"),
        ({"picture": "/nowhere/at/all"}, "lies outside of the folders"),  # none can tell the two
        ({"picture": "~/x.png"}, "lies outside of the folders"),
        ({"picture": "FOLDER/../secret.png"}, "lies outside of the folders"),
        ({"picture": "FOLDER/out.png"}, "lies outside of the folders"),
        ({"picture": "FOLDER/*.png"}, "lies outside of the folders"),  # a link of them leads out
        ({"picture": "FOLDER/six.png"}, "expected a file or folder, which is neither here"),
        ({"picture": "a\0b"}, "lies outside of the folders"),
        ({"picture": "~a\0b"}, "lies outside of the folders"),
    ],
)
def test_a_wrong_value_is_one_line_at_its_field(client, queue, folder, values, line):
    values = {name: text.replace("FOLDER", str(folder)) for name, text in values.items()}
    answer = client.post(RUNS, json=asked(**values))
    (name,) = values
    assert answer.status_code == 422
    told = answer.json()["fields"]
    assert list(told) == [name] and line in told[name] and "\n" not in told[name]
    assert queue.jobs("naps") == []


def test_a_long_value_is_told_in_a_short_line(client):
    for where in ("/companion/check", RUNS):
        told = client.post(where, json=asked(rho="9" * 5000 + "x")).json()
        for line in (told["error"], told["fields"]["rho"]):
            assert len(line) < 700 and line.endswith("expected float > 0")


def test_a_comma_in_a_text_is_no_sweep(client, folder):
    (folder / "a,b.png").write_bytes((folder / "five.png").read_bytes())
    name = str(folder / "a,b.png")
    told = client.post("/companion/check", json=asked(picture=name)).json()
    assert told["points"] == 1
    told = client.post("/companion/check", json=asked(picture=name, rho="1, 2")).json()
    assert "in a sweep a comma would divide it" in told["fields"]["picture"]


def test_each_wrong_field_has_its_line(client):
    told = client.post("/companion/check", json=asked(rho="-1", naps="x", seed="3")).json()
    assert sorted(told["fields"]) == ["naps", "rho"]


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (asked(notebook="nips"), "unknown notebook 'nips': did you mean 'naps'?"),
        (asked(profile="smok"), "unknown profile 'smok': did you mean 'smoke'?"),
        ({"notebook": "naps"}, "a form has profile: Field required"),
        ({**asked(), "shell": "rm"}, "a form has shell: Extra inputs are not permitted"),
        (asked(rho=1), "a form has values.rho: Input should be a valid string"),
        ([], "Input should be an object"),
    ],
)
def test_what_is_no_form_is_one_line(client, body, line):
    answer = client.post(RUNS, json=body)
    assert answer.status_code == 422 and line in answer.json()["error"]


@pytest.mark.parametrize(
    ("kind", "text", "values"),
    [
        ("float", "0.1, 1,10", ["0.1", "1", "10"]),
        ("float", "0:1:3", ["0", "0.5", "1"]),
        ("float", "0.01:1:3 log", ["0.01", "0.1", "1"]),
        ("int", "1:10:4", ["1", "4", "7", "10"]),
        ("int", "1:3:9", ["1", "2", "3"]),
        ("float", "7", ["7"]),
        ("list", "[1, 2]", ["[1, 2]"]),
        ("str", "a, b", ["a, b"]),
    ],
)
def test_a_field_of_a_number_may_hold_several(kind, text, values):
    assert forms.spread(Parameter("x", kind, None, ""), text) == values


def test_the_link_of_a_run_holds_its_values(client):
    job = client.post(RUNS, json=asked("smoke", rho="0.3", seed="0")).json()
    link = urlsplit(job["link"])
    assert dict(parse_qsl(link.query)) == {"profile": "smoke", "p.rho": "0.3"}
    assert job["values"] == {"rho": "0.3"}
    assert job["command"] == "companion run naps --profile smoke -p rho 0.3"


def test_a_page_whose_notebook_changed_says_so(client, built_book):
    path = built_book / "notebooks" / "naps.md"
    before = path.read_text()
    try:
        path.write_text(before + "\nMore words.\n")
        told = client.get("/companion/forms/naps").json()
    finally:
        path.write_text(before)
    assert told["changed"] and told["built"] == "laptop"


def test_a_picker_shows_the_folders_alone(client, folder):
    assert client.get("/companion/files").json()["folders"] == [str(folder)]
    told = client.get("/companion/files", params={"folder": str(folder)}).json()
    assert told["files"] == [str(folder / "five.png")] and told["above"] == ""
    names = ("/etc", str(folder.parent), f"{folder}/..", ".", f"{folder}/five.png")
    for outside in (*names, f"{folder}/{'x' * 300}", f"{folder}/\0"):
        answer = client.get("/companion/files", params={"folder": outside})
        assert answer.status_code == 422 and "is no folder inside" in answer.json()["error"]


def test_a_folder_that_cannot_be_read_is_one_line(client, folder, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", refuse)
    answer = client.get("/companion/files", params={"folder": str(folder)})
    assert answer.status_code == 422
    assert answer.json()["error"] == f"{str(folder)!r} cannot be listed: Permission denied"


# ---- runs


def test_a_run_is_the_command_s_and_what_was_run_is_there_at_once(
    client, queue, built_book, folder
):
    job = client.post(RUNS, json=asked(rho="0.25", picture=str(folder / "five.png"))).json()
    assert ended(queue, job["id"], "done", "failed").state == "done"
    todo = plan("naps", {"rho": 0.25, "picture": str(folder / "five.png")}, root=built_book)
    found = finished(todo)
    assert job["result"] == todo.folder.name and found["records"]["loss"]["value"] == 0.25
    assert found["records"]["width"]["value"] == 5
    again = client.post(RUNS, json=asked(rho=".25", picture=str(folder / "five.png"))).json()
    assert again["state"] == "done" and again["result"] == job["result"]
    assert len(queue.jobs("naps")) == 1  # of a result there is one entry
    told = client.get(f"{RUNS}/{job['result']}/json")
    assert told.json()["records"] == found["records"]
    notebook = client.get(f"{RUNS}/{job['result']}/ipynb")
    assert notebook.json()["metadata"]["companion"]["key"] == found["key"]
    assert "attachment" in notebook.headers["content-disposition"]


def test_what_runs_already_is_not_run_twice(client, queue):
    first = client.post(RUNS, json=asked(nap="0.5", naps="4", rho="0.5")).json()
    second = client.post(RUNS, json=asked(nap="0.5", naps="4", rho="0.50")).json()
    assert first["id"] == second["id"]
    assert ended(queue, first["id"], "done", "failed").state == "done"


def test_progress_of_cells_and_inside_them_is_told(client, queue):
    job = client.post(RUNS, json=asked(nap="0.4", naps="6", rho="0.6")).json()
    seen = {}
    while queue.job(job["id"]).state in queues.LIVE:
        (told,) = queue.jobs("naps")
        for bar in told["bars"]:
            seen.setdefault(bar["label"], []).append((bar["done"], bar["left"]))
        time.sleep(0.02)
    assert list(seen) == ["cells", "naps"]
    assert all(list(bars) == sorted(bars, key=lambda bar: bar[0]) for bars in seen.values())
    assert any(left is not None and left > 0 for _, left in seen["naps"])


def test_cancel_keeps_finished_jobs_and_going_on_takes_them_up(client, queue, built_book):
    job = client.post(RUNS, json=asked(nap="1", naps="6", rho="0.7")).json()
    todo = plan("naps", {"nap": 1.0, "naps": 6, "rho": 0.7}, root=built_book)
    until(lambda: len(list(todo.parts.glob("*"))) >= 2)
    assert client.post(f"/companion/jobs/{job['id']}/cancel").status_code == 200
    ended(queue, job["id"], "cancelled")
    kept = len(list(todo.parts.glob("*")))
    assert 2 <= kept < 6 and finished(todo) is None
    client.post(f"/companion/jobs/{job['id']}/resume")
    assert ended(queue, job["id"], "done", "failed").state == "done"
    assert finished(todo)["provenance"]["resumed_jobs"] >= kept


def test_a_waiting_job_is_cancelled_and_removed(client, queue):
    first = client.post(RUNS, json=asked(nap="1", naps="4", rho="0.8")).json()
    second = client.post(RUNS, json=asked(rho="0.81")).json()
    ended(queue, first["id"], "running")
    (told,) = [job for job in queue.jobs("naps") if job["id"] == second["id"]]
    assert told["state"] == "waiting"
    answer = client.post(f"/companion/jobs/{second['id']}/remove")
    assert answer.status_code == 422 and "cancel it first" in answer.json()["error"]
    client.post(f"/companion/jobs/{second['id']}/cancel")
    assert queue.job(second["id"]).state == "cancelled"
    client.post(f"/companion/jobs/{second['id']}/remove")
    client.post(f"/companion/jobs/{first['id']}/cancel")
    ended(queue, first["id"], "cancelled")
    assert [job["id"] for job in queue.jobs("naps")] == [first["id"]]
    assert client.post("/companion/jobs/none/cancel").status_code == 422


def test_of_two_who_remove_a_run_one_comes_too_late(client, queue, monkeypatch):
    job = client.post(RUNS, json=asked(rho="0.82")).json()
    ended(queue, job["id"], "done", "failed")
    both, find = threading.Barrier(2), queue.job

    def at_once(identity):
        found = find(identity)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.5)
        return found

    monkeypatch.setattr(queue, "job", at_once)
    with ThreadPoolExecutor(2) as pool:
        told = [pool.submit(queue.remove, job["id"]).exception for _ in range(2)]
        assert sorted(str(error()) for error in told) == ["None", "this run is removed"]


def test_a_disk_that_is_full_and_a_page_that_is_not_made_hold_nothing_up(built_book, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def render(job, ending):
        raise KeyError("a fault")

    with contextlib.closing(queues.Queue(built_book, 1, render)) as queue:
        monkeypatch.setattr(queues, "write_aside", full)
        for rho in ("0.83", "0.84"):
            todo = plan("naps", {"rho": rho}, root=built_book)
            job = queues.Job("naps", "laptop", {"rho": rho}, [], todo.folder.name, "", "")
            told = ended(queue, queue.add(job).id, "done", "failed")
            assert (told.state, told.message) == (
                "done",
                "its page was not made: KeyError('a fault')",
            )
        for job in queue.jobs("naps"):
            queue.remove(job["id"])


def test_two_runs_are_made_side_by_side_where_that_is_asked_for(built_book):
    with contextlib.closing(queues.Queue(built_book, 2, lambda job, ending: None)) as queue:
        jobs = []
        for rho in ("0.92", "0.93"):
            values = {"rho": rho, "nap": "3.0"}
            todo = plan("naps", values, root=built_book)
            job = queues.Job("naps", "laptop", values, [], todo.folder.name, "", "")
            jobs.append(queue.add(job))
        until(lambda: [len(told["bars"]) for told in queue.jobs("naps")] == [2, 2])
        for job in jobs:
            queue.cancel(job.id)
        for job in jobs:
            assert ended(queue, job.id, "cancelled", "done").state == "cancelled"
            queue.remove(job.id)


def test_a_failed_run_tells_its_cell(client, queue, folder):
    (folder / "text.png").write_text("no image")
    job = client.post(RUNS, json=asked(picture=str(folder / "text.png"))).json()
    told = ended(queue, job["id"], "done", "failed")
    assert (
        told.state == "failed"
        and "naps: cell 6 `record(" in told.message
        and "\n" not in told.message
    )


def test_a_worker_that_dies_fails_its_run_alone(client, queue):
    job = client.post(RUNS, json=asked(nap="5", naps="2", rho="0.9")).json()
    worker = until(lambda: queue._workers.get(job["id"]))
    until(lambda: queue.jobs("naps")[0]["bars"])
    (queue.root / ".companion/serve/worker.log").write_text("one\n  the last words\n\n")
    worker.process.kill()
    message = ended(queue, job["id"], "failed").message
    assert message == "the process of the runs ended with -9: the last words"
    other = client.post(RUNS, json=asked(rho="0.91")).json()
    assert ended(queue, other["id"], "done", "failed").state == "done"


def test_a_queue_that_was_left_is_found_again(built_book, queue):
    values = {"nap": "9"}
    told = dict(
        notebook="naps", profile="laptop", values=values, axes=[], result="naps-0", command=""
    )
    (queue.folder / "x.json").parent.mkdir(parents=True, exist_ok=True)
    for state in ("waiting", "running", "rendering", "done"):
        job = queues.Job(**told | {"result": state}, link="", state=state)
        write_aside(queue.folder / f"{job.id}.json", json.dumps(job.__dict__))
    write_aside(queue.folder / "0.json", "{cut off")
    again = queues.Queue(built_book, 0, lambda job, ending: None)
    found = {job["result"]: job for job in again.jobs("naps")}
    assert {of: job["state"] for of, job in found.items()} == {
        "waiting": "waiting",
        "running": "interrupted",
        "rendering": "interrupted",
        "done": "done",
    }
    assert found["running"]["values"] == values
    assert not (queue.folder / "0.json").exists()


def test_what_waited_for_a_server_that_left_is_run_by_the_next(built_book, queue):
    left = queues.Queue(built_book, 0, lambda job, ending: None)
    values = {"nap": "0.01", "rho": "0.77"}
    told = dict(notebook="naps", profile="laptop", values=values, axes=[], command="", link="")
    job = left.add(queues.Job(**told, result="naps-077"))
    left.close()
    again = queues.Queue(built_book, 1, lambda job, ending: None)
    assert ended(again, job.id, "done", "failed", "interrupted").state == "done"
    again.close()


def test_runs_in_a_row_leave_nothing_behind(client, queue):
    """Threads, open files and processes of the server, after the first runs as after more."""
    me, counts = psutil.Process(), []
    for seed in range(6):
        job = client.post(RUNS, json=asked(seed=str(100 + seed))).json()
        assert ended(queue, job["id"], "done", "failed").state == "done"
        if seed > 0:
            below = until(lambda: len(kids := me.children(recursive=True)) <= 3 and kids)
            counts.append((threading.active_count(), me.num_fds(), len(below)))
    assert len(set(counts)) == 1, counts


# ---- results


def test_the_page_of_a_run_has_its_numbers_beside_the_others(client, built_book):
    job = client.post(RUNS, json=asked(rho="0.375", seed="1")).json()
    until(lambda: finished(plan("naps", {"rho": 0.375, "seed": 1}, root=built_book)))
    answer = client.get(f"/sections/naps.html?run={job['result']}")
    assert answer.status_code == 200
    text = answer.text
    assert "0.75 dB" in text and "0.1 dB" in text  # of this run, of the published page
    assert "<strong>the published page</strong>: laptop" in text
    assert f'data-run="{job["result"]}"' in text
    assert f"../companion/runs/{job['result']}/ipynb" in text
    told = client.get("/companion/forms/naps", params={"run": job["result"]}).json()
    assert told["values"] == {"rho": "0.375", "seed": "1"} and "rho = 0.375" in told["run"]["title"]
    compared = client.get(
        "/companion/compare", params={"with": told["published"], "run": job["result"]}
    )
    assert "loss" in compared.text and "0.375" in compared.text
    assert "script-src" not in compared.headers["content-security-policy"]


@pytest.mark.parametrize(
    "address",
    [
        "/sections/naps.html?run=naps-0123456789abcdef",
        "/sections/naps.html?run=../naps",
        "/sections/other.html",
        "/companion/runs/naps-0123456789abcdef/json",
        "/companion/runs/..%2f..%2fnaps/json",
        "/companion/pages/naps-0123456789abcdef/_images/..%2fx",
        "/companion/compare?with=naps-0123456789abcdef&run=x",
        "/../../_config.yml",
        "/%2e%2e/%2e%2e/_config.yml",
        "/..%2f..%2f_config.yml",
        "/companion/nothing",
        f"/{'x' * 300}.html",
        "/%00.html",
        "/%00",
        f"/companion/runs/{'x' * 300}-0123456789abcdef/json",
        f"/companion/pages/{{run}}/_images/{'x' * 300}",
    ],
)
def test_what_is_not_there_is_no_page(client, built_book, address):
    run = "naps-0123456789abcdef"
    (built_book / ".companion" / "serve" / "pages" / run / "_images").mkdir(
        parents=True, exist_ok=True
    )
    answer = client.get(address.format(run=run))
    assert answer.status_code in (404, 422) and "title: Optimal" not in answer.text
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("name", ["sections/naps.html", "index.html"])
@pytest.mark.parametrize("half", [None, "é".encode()[:1]], ids=["gone", "half"])
def test_a_book_that_is_being_built_says_so(client, built_book, name, half):
    """What the builder has not written yet, or to the middle of a letter."""
    page, aside = built_book / "book/_build/html" / name, built_book / "aside.html"
    page.rename(aside)
    try:
        if half:
            page.write_bytes(half)
        answer = client.get("/sections/naps.html")
    finally:
        aside.rename(page)
    gone = half is None and name != "index.html"
    assert answer.status_code == (404 if gone else 503)
    assert answer.text == (
        "the book has no page 'sections/naps.html'"
        if gone
        else "the book is being built: ask again"
    )


def test_a_run_goes_when_no_page_is_made_of_it(built_book):
    place = built_book / ".companion" / "runs" / "naps-0123456789abcdee"
    place.mkdir(parents=True)
    with pages._lock:
        thread = threading.Thread(target=pages.remove, args=(built_book, place.name))
        thread.start()
        thread.join(0.2)
        assert place.is_dir()
    thread.join()
    assert not place.exists()


# ---- sweeps


def test_a_list_in_a_field_is_a_sweep_whose_plots_come(client, queue, built_book):
    told = client.post("/companion/check", json=asked(rho="1, 2, 4", naps="1")).json()
    assert told == {"points": 3, "done": 0, "sweep": True}
    job = client.post(RUNS, json=asked(rho="1, 2, 4", naps="1")).json()
    words = "companion sweep naps --profile laptop --grid rho=1.0,2.0,4.0 --grid naps=1"
    assert job["command"] == words
    assert dict(parse_qsl(urlsplit(job["link"]).query))["p.rho"] == "1,2,4"
    assert ended(queue, job["id"], "done", "failed").state == "done"
    told = client.get(f"/companion/sweeps/{job['id']}/records").json()
    assert told == {"points": 3, "records": ["loss"]}
    plot = client.get(f"/companion/sweeps/{job['id']}/plot?record=loss")
    assert plot.headers["content-type"] == "image/svg+xml" and b"<svg" in plot.content
    assert client.get(f"/companion/sweeps/{job['id']}/plot?record=width").status_code == 404
    table = client.get(f"/companion/sweeps/{job['id']}/table.csv").text
    assert table.count("\n") == 4
    (built_book / ".companion" / "sweeps" / job["result"] / "table.csv").unlink()
    answer = client.get(f"/companion/sweeps/{job['id']}/table.csv")
    assert answer.status_code == 404
    assert answer.json()["error"] == "it has gone meanwhile: ask again"


def test_a_sweep_is_cancelled_and_gone_on_with(client, queue):
    job = client.post(RUNS, json=asked(rho="1, 2, 3, 5", naps="1", nap="1.5")).json()
    told = lambda: client.get(f"/companion/sweeps/{job['id']}/records").json()["points"]
    until(told)
    client.post(f"/companion/jobs/{job['id']}/cancel")
    ended(queue, job["id"], "cancelled")
    assert 1 <= told() < 4
    client.post(f"/companion/jobs/{job['id']}/resume")
    assert ended(queue, job["id"], "done", "failed").state == "done"
    assert told() == 4


# ---- who may ask


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, 200),
        ({"host": f"localhost:{PORT}", "origin": f"http://localhost:{PORT}"}, 200),
        ({"host": f"evil.example:{PORT}"}, 403),  # a name of somebody else's that leads here
        ({"host": "127.0.0.1:1"}, 403),
        ({"host": ""}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": f"https://127.0.0.1:{PORT}"}, 403),
        ({"origin": f"http://localhost:{PORT}"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"content-type": "text/plain"}, 415),
    ],
)
def test_no_other_site_starts_runs(client, queue, headers, code):
    body = json.dumps(asked(rho="-1" if code == 200 else "0.1"))
    answer = client.post(
        RUNS, content=body, headers={"content-type": "application/json", **headers}
    )
    assert answer.status_code == (422 if code == 200 else code)
    assert queue.jobs("naps") == []


def test_a_request_that_changes_something_tells_its_origin(built_book, queue):
    app = Guard(application(forms.Served(built_book), queue, lambda: False), None, PORT, None)
    with TestClient(app, base_url=HERE) as plain:
        assert plain.get("/").status_code == 200
        assert plain.post(RUNS, json=asked()).status_code == 403


def test_another_host_needs_the_token(built_book, queue):
    served, host = forms.Served(built_book), "192.0.2.7"
    app = Guard(application(served, queue, lambda: False), host, PORT, "a-token")
    with TestClient(app, base_url=f"http://{host}:{PORT}", follow_redirects=False) as client:
        for address in ("/", "/companion/forms/naps", "/?token=other", "/_static/book.css"):
            assert client.get(address).status_code == 401
        assert client.post(RUNS, json=asked()).status_code in (401, 403)
        answer = client.get("/sections/naps.html?profile=smoke&token=a-token")
        assert answer.status_code == 303
        assert answer.headers["location"] == "/sections/naps.html?profile=smoke"
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie
        assert client.get("/companion/forms/naps").status_code == 200
        client.cookies.clear()
        away = client.get(f"http://{host}:{PORT}//evil.example/?token=a-token")
        assert away.headers["location"] == "/evil.example/"


def test_a_page_allows_the_scripts_of_the_book_alone(client, built_book):
    answer = client.get("/sections/naps.html")
    told = answer.headers["content-security-policy"]
    rules = dict(rule.split(" ", 1) for rule in told.split("; "))
    assert rules["default-src"] == "'none'" and rules["frame-ancestors"] == "'none'"
    assert "'unsafe-inline'" not in rules["script-src"] and "'self'" in rules["script-src"]
    assert "http" not in told
    for address in ("/_static/book.css", "/companion/forms/naps", "/none"):
        told = client.get(address).headers
        assert told["content-security-policy"].startswith("default-src 'none'")
        assert told["x-content-type-options"] == "nosniff"


def test_what_a_run_writes_into_a_page_runs_no_code(tmp_path):
    """The code that counts is that of the book as it was built, of a click in any of its pages."""
    script = lambda code: f"'sha256-{b64encode(sha256(code.encode()).digest()).decode()}'"
    (tmp_path / "index.html").write_text('<p onclick="open(&quot;1&quot;)"><script>two()</script>')
    page = tmp_path / "page.html"
    page.write_text('<script src="x.js"></script><script>\nthree()</script><a onclick="four(\n)">')
    rules = policy(tmp_path, page)
    assert all(script(code) in rules for code in ('open("1")', "\nthree()", "four(\n)"))
    assert all(script(code) not in rules for code in ("two()", "", "five()"))


def test_a_request_has_a_limit(client):
    answer = client.post(RUNS, json=asked(rho="1" * 2**17))
    assert answer.status_code == 413


def test_who_leaves_while_sending_is_not_waited_for(built_book, queue):
    scope = {"type": "http", "method": "POST", "path": "/companion/uploads", "query_string": b""}
    scope |= {"headers": [], "http_version": "1.1", "scheme": "http", "root_path": ""}
    sent = []

    async def leave():
        return {"type": "http.disconnect"}

    async def keep(message):
        sent.append(message)

    asyncio.run(application(forms.Served(built_book), queue, lambda: False)(scope, leave, keep))
    assert sent[0]["status"] == 400


def test_the_head_of_a_stream_has_an_end(client):
    answer = client.head("/companion/events/naps")
    assert answer.headers["content-type"].startswith("text/event-stream")


# ---- uploads


def picture(kind="PNG", width=6):
    noise = np.random.default_rng(0).integers(0, 256, (5, width, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, kind)
    return stream.getvalue()


def bomb(width, height):
    """A PNG of a few bytes that tells of so many pixels."""

    def chunk(kind, data):
        body = kind + data
        return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_an_image_is_kept_until_its_run_is_removed(client, queue, built_book, kind):
    kept = client.post("/companion/uploads?name=mine.x", content=picture(kind)).json()
    assert (kept["height"], kept["width"]) == (5, 6)
    path = built_book / kept["path"]
    assert path.is_file()
    if kind != "PNG":
        uploads.remove(built_book, kept["path"])
        return
    job = client.post(RUNS, json=asked(picture=kept["path"])).json()
    assert ended(queue, job["id"], "done", "failed").state == "done"
    other = client.post(RUNS, json=asked(picture=kept["path"], seed="1")).json()
    assert ended(queue, other["id"], "done", "failed").state == "done"
    client.post(f"/companion/jobs/{job['id']}/remove")
    assert path.is_file()  # the other run has it still
    client.post(f"/companion/jobs/{other['id']}/remove")
    assert not path.exists()
    assert not (built_book / ".companion" / "runs" / other["result"]).exists()


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"some text", "mine.png: no image; allowed are PNG"),
        (b"", "mine.png: no image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "mine.png: no image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "mine.png: no image"),
        (bomb(60000, 60000), "mine.png: more than 24 million pixels"),
        (bomb(8000, 8000), "mine.png: more than 24 million pixels, got 8000 x 8000"),
        (bomb(900, 900), "mine.png cannot be read as an image"),
        (picture(width=99)[:500], "mine.png cannot be read as an image"),
    ],
    ids=["text", "nothing", "eps", "svg", "bomb", "huge", "hollow", "cut"],
)
def test_what_is_no_image_is_refused(client, built_book, data, line):
    answer = client.post("/companion/uploads?name=mine.png", content=data)
    assert answer.status_code == 422 and line in answer.json()["error"]
    assert str(built_book) not in answer.text
    assert list((built_book / uploads.UPLOADS).glob("*")) == []


def test_a_huge_file_is_not_read_to_its_end(client, monkeypatch):
    monkeypatch.setattr(uploads, "MOST_BYTES", 2**20)
    body = (bytes(2**18) for _ in range(64))
    answer = client.post("/companion/uploads?name=a.png", content=body)
    assert answer.status_code == 413
    assert answer.json()["error"] == "a.png is too large: allowed are 1 MiB"


def test_an_image_that_no_run_uses_goes(built_book, queue):
    old = built_book / uploads.UPLOADS / f"{'0' * 16}.png"
    write_aside(old, picture())
    os.utime(old, (0, 0))
    new = built_book / uploads.UPLOADS / f"{'1' * 16}.png"
    write_aside(new, picture())
    uploads.tidy(built_book, queue.uses)
    assert not old.exists() and new.exists()
    write_aside(old, picture())
    uploads.tidy(built_book, lambda place: (built_book / place).unlink(missing_ok=True))  # another
    uploads.remove(built_book, "../../notebooks/naps.md")
    assert (built_book / "notebooks" / "naps.md").exists()


# ---- the command


def ask(address, body=None):
    origin = "http://" + urlsplit(address).netloc
    headers = {"origin": origin, "content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(
        urllib.request.Request(address, data, headers), timeout=30
    ) as answer:
        return answer.read().decode()


def told_of(address, job, timeout=30):
    """What the stream of events tells of a job, again and again."""
    with urllib.request.urlopen(address + "companion/events/naps", timeout=timeout) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream:
            if line.startswith(b"data: "):
                told = json.loads(line.removeprefix(b"data: "))
                yield {one["id"]: one for one in told}[job["id"]]


def last(address, job):
    """A job at its end."""
    told = told_of(address, job, timeout=180)
    return next(one for one in told if one["state"] not in queues.LIVE)


def state(address, job):
    """The state of a job, as the stream of events begins."""
    return next(told_of(address, job))["state"]


def grown(before, after):
    """By how much the processes of a server have grown, of what `held` gives."""
    return {
        name: {what: after[name][what] - before[name][what] for what in found}
        for name, found in before.items()
    }


def held(process):
    """What each process of a server holds when no kernel is left: MiB, files, threads."""
    me = psutil.Process(process.pid)
    worker, warm = until(lambda: len(kids := me.children(recursive=True)) == 2 and kids)
    found = {}
    for name, one in (("server", me), ("worker", worker), ("warm", warm)):
        memory = one.memory_info()  # less what is mapped of files, which may come and go
        found[name] = {
            "id": one.pid,
            "MiB": (memory.rss - memory.shared) / 2**20,
            "files": one.num_fds(),
            "threads": one.num_threads(),
        }
    return found


def test_fifty_runs_in_a_row_leave_the_server_as_large_as_ten(server, built_book, tmp_path):
    """Of all that a reader starts only Sphinx is left out, which would take minutes.

    It is a process that ends with its page. In its place comes a page of 200 kB: one of them kept
    a run would be twice what is allowed, a file or a thread ten times. A list of jobs and what the
    allocator does not give back were less than 1 MiB.
    """
    page = built_book / "book" / "_build" / "html" / "sections" / "naps.html"
    long = tmp_path / "naps.html"
    long.write_text(page.read_text() + f"<!-- {'x' * 200_000} -->")
    python = tmp_path / "python"
    python.write_text(f"""#!/bin/sh
case "$3" in
    companion.serve.render)
        mkdir -p "$6/html/sections"
        cp {shlex.quote(str(long))} "$6/html/sections/" ;;
    *) exec {shlex.quote(sys.executable)} "$@" ;;
esac
""")
    python.chmod(0o755)
    process, address = server(python=python)
    for run in range(50):
        job = json.loads(ask(address + "companion/runs", asked(seed=str(1000 + run))))
        told = last(address, job)
        assert (told["state"], told["message"]) == ("done", "")
        text = ask(f"{address}sections/naps.html?run={job['result']}")
        assert f'data-run="{job["result"]}"' in text and len(text) > 200_000
        if run == 9:
            ten = held(process)
    most = {"id": 0, "MiB": 4, "files": 4, "threads": 4}
    more = grown(ten, held(process))
    assert all(found[what] <= most[what] for found in more.values() for what in most), more


def test_a_server_killed_in_a_run_finds_it_again(server, built_book):
    process, address = server()
    job = json.loads(ask(address + "companion/runs", asked(nap="1", naps="5", rho="0.55")))
    todo = plan("naps", {"nap": 1.0, "naps": 5, "rho": 0.55}, root=built_book)
    until(lambda: len(list(todo.parts.glob("*"))) >= 2)
    below = psutil.Process(process.pid).children(recursive=True)
    assert len(below) >= 3  # the worker, the warm process, the kernel
    process.kill()
    _, alive = psutil.wait_procs(below, timeout=30)
    assert alive == []
    process, address = server()
    assert state(address, job) == "interrupted"
    ask(address + f"companion/jobs/{job['id']}/resume", {})
    until(lambda: finished(todo))
    assert finished(todo)["provenance"]["resumed_jobs"] >= 2
    until(lambda: state(address, job) == "done")


def test_ctrl_c_ends_a_server_and_its_run(server):
    process, address = server()
    job = json.loads(ask(address + "companion/runs", asked(nap="9", naps="2", rho="0.56")))
    until(lambda: state(address, job) == "running")
    below = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert psutil.wait_procs(below, timeout=30)[1] == []
    _, address = server()
    assert state(address, job) == "interrupted"


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main(["serve", *arguments])
    lines = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2 and len(lines) == 1
    return lines[0]


def test_what_cannot_be_served_is_one_line(server, built_book, project, capsys, monkeypatch):
    assert refused(capsys) == "companion: the book is not built: first companion build"
    server()
    monkeypatch.chdir(built_book)
    assert "another companion serve is at work" in refused(capsys)
    assert "--folder 'nowhere' is no folder" in refused(capsys, "--folder", "nowhere")
    assert "unknown profile 'smok'" in refused(capsys, "--profile", "smok")
    assert "--device 'x'" in refused(capsys, "--device", "x")


def test_a_busy_port_and_a_host_that_is_none_are_one_line(project, capsys):
    project.write("book/_build/html/index.html", "<title>T</title>")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"cannot listen at 127.0.0.1:{port}: " in refused(capsys, "--port", port)
    assert "cannot listen at no.such.host" in refused(capsys, "--host", "no.such.host.invalid")


def test_a_host_is_served_with_a_token(server):
    _, address = server("--host", "127.0.0.1")
    token = urlsplit(address).query
    assert token.startswith("token=") and len(token) > 40
    with pytest.raises(urllib.error.HTTPError, match="401"):
        ask(address.partition("?")[0])
