"""What a run depends on, and what it does not."""

import hashlib
import os
import shutil
import time
from pathlib import Path

import pytest

from companion import contents, keys
from companion.build import plans_of_book
from companion.errors import UsageError
from companion.files import named, of_user, walk
from companion.run import plan

ROOT = Path(__file__).parents[1]
IMPORT = "from otlib.softmin import softmin"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The notebooks and the code of this project, to edit."""
    to = tmp_path_factory.mktemp("copy")
    for name in ("otlib", "companion", "notebooks"):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "book/published", to / "book/published")
    return to


def book(root):
    """{page: key} of the whole book."""
    return {todo.notebook.name: todo.key for todo in plans_of_book(root, "laptop")}


def edited(root, file, text):
    """The pages whose key an edit of a file changes; the file is put back."""
    path = root / file
    before, old = book(root), path.read_text() if path.is_file() else None
    path.parent.mkdir(exist_ok=True)
    path.write_text(text(old or ""))
    after = book(root)
    if old is None:
        path.unlink()
    else:
        path.write_text(old)
    return {page for page, key in after.items() if key != before[page]}


def plus(statement):
    return lambda text: f"{text}\n{statement}\n"


def test_the_key_follows_source_parameters_profile_and_code(project):
    found = [plan("toy").key, plan("toy", {"seed": 1}).key, plan("toy", profile="smoke").key]
    found.append(plan("toy", {"eps": 1e-3}).key)  # as at smoke, yet another profile
    project.notebook("toy", IMPORT)
    for text in ("softmin = 1", "softmin = 2", "from otlib import deep\nsoftmin = 2"):
        project.write("otlib/softmin.py", text)
        found.append(plan("toy").key)
    project.write("otlib/deep/__init__.py", "x = 1")  # a folder, not there before
    found.append(plan("toy").key)
    project.write("otlib/deep/__init__.py", "def f():\n    from otlib.deep import late")
    project.write("otlib/deep/late.py", "x = 1")
    found.append(plan("toy").key)
    project.write("otlib/deep/late.py", "from . import later\nx = 1")
    project.write("otlib/deep/later.py", "x = 1")
    found.append(plan("toy").key)
    project.write("otlib/deep/later.py", "x = 2")
    found.append(plan("toy").key)
    assert len(set(found)) == len(found)
    assert plan("toy", {"seed": "0"}).key == plan("toy").key


@pytest.mark.parametrize(
    "text",
    [
        "# a comment\nsoftmin = lambda x: x",
        '"""A docstring."""\nsoftmin = lambda x: x',
        "softmin = lambda x:   x\n\n",
        "softmin = (lambda x: x)",
    ],
)
def test_words_and_layout_of_the_code_change_no_key(project, text):
    project.notebook("toy", IMPORT)
    project.write("otlib/softmin.py", "softmin = lambda x: x")
    before = plan("toy").key
    project.write("otlib/softmin.py", text)
    assert plan("toy").key == before
    project.write("otlib/softmin.py", text.replace("lambda", "lambda y,"))
    assert plan("toy").key != before


def test_no_statement_but_a_docstring_is_left_out(tmp_path):
    def digest(text):
        path = tmp_path / f"{abs(hash(text))}.py"
        path.write_text(text)
        return keys.digest(path)

    inside = 'def f(x):\n    "what f does"\n    return x'
    assert digest(inside) == digest("def f(x):\n    return x")
    others = [inside, inside.replace("return x", "return -x"), "def f(x=1):\n    return x"]
    others += ["async def f(x):\n    return x", "x = 'what f does'", "f('what f does')", "f(1)"]
    others += ["f(1.0)", "f(True)", "f('1')", "f(b'1')", "f(None)", "f(...)"]
    assert len(set(map(digest, others))) == len(others)


def test_the_digest_is_the_same_in_every_version_of_python(tmp_path):
    """It is that of nested tuples: no field that is empty, and that some versions lack."""
    body = ("Return", ("value", ("Name", ("id", "x"), ("ctx", ("Load",)))))
    keyword = ("kwonlyargs", (("arg", ("arg", "y")),))
    default = ("kw_defaults", (("List", ("ctx", ("Load",))),))
    arguments = ("arguments", ("args", (("arg", ("arg", "x")),)), keyword, default)
    function = ("FunctionDef", ("name", "f"), ("args", arguments), ("body", (body,)))
    told = repr(("Module", ("body", (function,))))
    path = tmp_path / "f.py"
    path.write_text("def f(x, *, y=[]):\n    'words'\n    return x  # the same")
    assert keys.digest(path) == hashlib.sha256(told.encode()).hexdigest()


def test_planning_follows_what_a_page_reaches(copy):
    every = set(book(copy))
    assert edited(copy, "otlib/assets/restorers.py", plus("x = 1")) == {
        "dot_ablations",
        "dot_ddrm",
        "dot_pd_curves",
        "dot_slides",
        "dot_table",
        "dot_visual",
    }
    assert "dot_2d" not in edited(copy, "otlib/sinkhorn.py", plus("x = 1"))
    compiled = edited(copy, "otlib/passes.cpp", plus("// a line"))
    assert {"denoising", "texture_multiscale"} <= compiled and "dot_2d" not in compiled
    assert edited(copy, "companion/compare.py", plus("x = 1")) == {"rerunning"}
    assert edited(copy, "companion/keys.py", plus("x = 1")) == {"rerunning"}
    assert edited(copy, "companion/contents.py", plus("x = 1")) == {"rerunning"}
    assert edited(copy, "companion/templates/check.html", plus("<p>x</p>")) == {"rerunning"}
    assert edited(copy, "notebooks/dot_2d.md", plus("\nA sentence.")) == {"dot_2d"}
    code = lambda text: text.replace("import torch\n", "import torch\n\nx = 1\n", 1)
    assert edited(copy, "notebooks/errata.md", code) == {"errata", "rerunning"}  # which runs it
    assert edited(copy, "companion/page/record.py", plus("x = 1")) == every
    assert edited(copy, "companion/page/record.py", plus("# a comment")) == set()
    assert edited(copy, "otlib/nobody.py", plus("x = 1")) == set()
    reads = "from companion.page.published import"
    readers = {page for page in every if reads in (copy / f"notebooks/{page}.md").read_text()}
    readers |= {"rerunning"}  # judges claims
    assert edited(copy, "book/published/slides2025.yml", plus("more: 1")) == readers < every
    assert edited(copy, "book/published/another2027.yml", plus("columns: {}")) == readers


def test_weights_that_were_swapped_change_every_page_that_can_open_them(
    copy, tmp_path, monkeypatch
):
    weights = tmp_path / "swinir.pth"
    weights.write_bytes(b"1")
    before = book(copy)
    monkeypatch.setenv("OTLIB_SWINIR", str(weights))
    given = book(copy)
    weights.write_bytes(b"2")
    swapped = book(copy)
    reach = {
        todo.notebook.name
        for todo in plans_of_book(copy, "laptop")
        if "otlib/assets/registry.py" in keys.code(copy, todo.notebook, todo.parameters)
    }
    assert {"dot_visual", "dot_ablations", "dot_slides"} <= reach < set(before)
    assert {page for page in before if given[page] != before[page]} == reach
    assert {page for page in before if swapped[page] != given[page]} == reach


def test_a_kept_run_is_stale_only_by_the_code_of_its_page(project):
    project.notebook("toy", IMPORT)
    for name in ("softmin", "other"):
        project.write(f"otlib/{name}.py", "softmin = 1")
    todo = plan("toy")
    told = keys.code(project.root, todo.notebook, todo.parameters)
    assert list(told) == ["notebooks/toy.md", "otlib/__init__.py", "otlib/softmin.py"]
    project.write("otlib/other.py", "softmin = 2")
    project.write("otlib/softmin.py", "softmin = 1  # the first")
    assert keys.changed(told, project.root) == []
    project.write("otlib/softmin.py", "softmin = 2")
    assert keys.changed(told, project.root) == ["otlib/softmin.py"]
    project.write("otlib/softmin.py", "softmin = 1")
    (project.root / "otlib/softmin.py").rename(project.root / "otlib/elsewhere.py")
    assert keys.changed(told, project.root) == ["otlib/softmin.py"]


@pytest.mark.parametrize("tag", ["picture", "apart"])
def test_what_stands_aside_changes_the_key_and_no_kept_run(project, tag):
    project.notebook("toy", IMPORT)
    code = lambda todo: keys.code(project.root, todo.notebook, todo.parameters)
    before, told = plan("toy").key, code(plan("toy"))
    path = project.root / "notebooks/toy.md"
    line = "from companion.page import frames"
    cell = f"\n```{{code-cell}} ipython3\n:tags: [{tag}]\n{line}\n```\n"
    path.write_text(path.read_text() + cell)
    assert plan("toy").key != before
    assert code(plan("toy")) == told
    assert keys.changed(told, project.root) == []
    path.write_text(path.read_text().replace("import frames", "import frames as f"))
    assert keys.changed(told, project.root) == []
    path.write_text(path.read_text().replace(f"[{tag}]", "[hide-input]"))
    assert keys.changed(told, project.root) == ["notebooks/toy.md"]


@pytest.mark.parametrize("call", ["record", "tell", "tell_each"])
def test_a_picture_that_records_is_refused(project, call):
    path = project.root / "notebooks/toy.md"
    cell = f"\n```{{code-cell}} ipython3\n:tags: [picture]\n{call}('x', 1)\n```\n"
    path.write_text(path.read_text() + cell)
    with pytest.raises(UsageError, match=f"a cell tagged `picture` may not call {call}"):
        plan("toy")


def test_the_key_follows_the_files_and_folders_that_parameters_name(project, tmp_path):
    other = tmp_path / "images [1]"  # outside the project, and no pattern
    found = [plan("toy", {"label": "data/*.json"}).key, plan("toy", {"label": "data"}).key]

    def look(*labels):
        found.extend(plan("toy", {"label": label}).key for label in labels)

    project.write("data/a.json", "{}")
    look("data/*.json", "data")
    project.write("data/sub/b.png", "1")
    look("data")
    project.write("data/sub/b.png", "12")  # another size
    look("data")
    project.write("data/sub/b.png", "21")  # as large
    look("data")
    (project.root / "data/sub/b.png").rename(project.root / "data/sub/c.png")
    look("data")
    (other / "sub").mkdir(parents=True)
    look(f"{tmp_path}/images*")
    (other / "sub/d.png").write_text("x")
    look(f"{tmp_path}/images*")
    assert len(set(found)) == len(found)
    look("data", f"{tmp_path}/images*")
    assert len(set(found)) == len(found) - 2  # nothing changed since


def test_what_tells_keys_makes_no_kept_run_old(project):
    told = {"companion/keys.py": "another", "companion/contents.py": "another"}
    told |= {f"companion/page/{name}.py": "another" for name in ("figures", "frames")}  # draw only
    assert keys.changed(told, project.root) == []
    called = {**told, "companion/cli.py": keys.digest(ROOT / "companion/cli.py")}
    assert keys.changed(called, None) == ["companion/contents.py", "companion/keys.py"]


def test_another_entry_of_the_registry_makes_no_kept_run_old(project):
    project.notebook("toy", "from otlib.assets import registry")
    project.write("otlib/assets/__init__.py", "")
    project.write("otlib/assets/registry.py", "REGISTRY = {'vgg': 1}")
    todo = plan("toy")
    told = keys.code(project.root, todo.notebook, todo.parameters)
    project.write("otlib/assets/registry.py", "REGISTRY = {'vgg': 1, 'srmd': 2}")
    assert "otlib/assets/registry.py" in told
    assert keys.changed(told, project.root) == []
    assert plan("toy").key != todo.key


def test_a_folder_counts_by_content_not_by_time_or_place(project, tmp_path):
    project.write("data/a.png", "1")
    before = keys.state(project.root / "data", project.root)
    os.utime(project.root / "data/a.png", (0, 0))  # as after a copy, or on a disk mounted anew
    assert keys.state(project.root / "data", project.root) == before
    shutil.copytree(project.root / "data", tmp_path / "copy")
    assert keys.state(tmp_path / "copy", project.root) == before


def test_a_file_of_a_folder_is_read_once(project, monkeypatch):
    folder, read = project.root / "data", []
    monkeypatch.setattr(contents, "_read", lambda path, facts: read.append(path.name) or "hash")
    monkeypatch.setattr(contents, "SETTLED", 0)
    project.write("data/a.png", "1")
    time.sleep(0.05)  # the grain of a file system's clock
    for _ in range(2):
        keys.state(folder, project.root)
    assert read == ["a.png"]
    project.write("data/b.png", "1")
    keys.state(folder, project.root)
    assert read == ["a.png", "b.png"]


def test_a_file_that_was_just_written_is_read_again(project):
    project.write("data/a.png", "1")
    file = project.root / "data/a.png"
    before, facts = keys.state(file.parent, project.root), file.stat()
    file.write_text("2")
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert keys.state(file.parent, project.root) != before


@pytest.mark.parametrize("memory", ["", "{", "[]", '{"a.png": []}', '{"a.png": 3}', "\udcff"])
def test_a_damaged_memory_of_a_folder_is_written_anew(project, monkeypatch, memory):
    monkeypatch.setattr(contents, "SETTLED", 0)
    project.write("data/a.png", "1")
    time.sleep(0.05)
    before = keys.state(project.root / "data", project.root)
    [file] = (project.root / ".companion" / "contents").iterdir()
    written = file.read_bytes()
    file.write_bytes(memory.encode(errors="surrogateescape"))
    assert keys.state(project.root / "data", project.root) == before
    assert file.read_bytes() == written


def test_a_name_is_taken_literally_where_a_file_has_it(project):
    found = []
    for content in ("1", "7"):
        for name in ("plain.png", "pic[1].png", "a*.png"):
            project.write(name, content)
            found.append(plan("toy", {"label": name}).key)
    assert len(set(found)) == len(found)
    assert named("pic[1].png", project.root) == [project.root / "pic[1].png"]
    assert named("p*.png", project.root) == [project.root / n for n in ("pic[1].png", "plain.png")]
    assert named("", project.root) == named("none", project.root) == []


def test_the_key_follows_files_behind_links(project, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.png").write_text("1")
    (project.root / "data").mkdir()
    (project.root / "data/link").symlink_to(outside)
    (project.root / "data/back").symlink_to(project.root / "data")  # a circle
    (project.root / "data/broken").symlink_to(tmp_path / "none")
    assert walk(project.root / "data") == ["link/a.png"]
    before = plan("toy", {"label": "data"}).key
    (outside / "a.png").write_text("12")
    assert plan("toy", {"label": "data"}).key != before


def test_what_a_list_names_counts_too(project):
    project.notebook("toy", parameters='files: list = ["b.png"]')
    project.write("a.png", "1")
    before = plan("toy", {"files": ["a.png"]}).key
    project.write("a.png", "2")
    assert plan("toy", {"files": ["a.png"]}).key != before


def test_the_key_follows_a_variable_that_the_code_names(project, tmp_path, monkeypatch):
    before = plan("toy").key
    monkeypatch.setenv("OTLIB_MVTEC", str(tmp_path))
    assert plan("toy").key == before
    project.notebook("toy", "from otlib import assets")
    project.write("otlib/assets.py", "folder = 'OTLIB_MVTEC'")
    found = [plan("toy").key]
    (tmp_path / "a.png").write_text("x")
    found.append(plan("toy").key)
    monkeypatch.delenv("OTLIB_MVTEC")
    found.append(plan("toy").key)
    assert len({before, *found}) == 4


@pytest.mark.parametrize(
    "names",
    [{"top_level.txt": "outer"}, {"RECORD": "outer/in.py,sha256=a,1\n"}, {"RECORD": "outer.py,,"}],
)
def test_the_key_follows_the_versions_of_what_others_wrote(project, tmp_path, monkeypatch, names):
    def installed(version):
        """A package that brings the module `outer`, before all that is installed."""
        about = tmp_path / version / f"Other_Name-{version}.dist-info"
        about.mkdir(parents=True)
        for file, text in {"METADATA": f"Name: Other-Name\nVersion: {version}", **names}.items():
            (about / file).write_text(text)
        monkeypatch.syspath_prepend(tmp_path / version)
        return plan("toy").key

    before = plan("toy").key
    assert installed("0") == before  # nothing imports it
    project.notebook("toy", "import outer")
    found = [plan("toy").key, installed("1"), installed("2")]
    project.notebook("toy", "needs = 'other-name==3'")  # whose files are read
    found += [plan("toy").key, installed("4")]
    assert len(set(found)) == len(found)
    project.notebook("toy", "import json")
    before = plan("toy").key
    assert installed("5") == before


def test_a_path_is_what_the_user_sees(project, monkeypatch):
    project.write("mine.bin", "9")
    project.write("sub/mine.bin", "5")
    project.write("sub/other/a.png", "5")
    monkeypatch.chdir(project.root / "sub")
    sub = project.root / "sub"
    assert of_user("mine.bin", project.root) == str(sub / "mine.bin")
    assert of_user("other", project.root) == str(sub / "other")
    assert of_user("oth*/*.png", project.root) == str(sub / "oth*/*.png")
    assert of_user("sub/mine.bin", project.root) == "sub/mine.bin"  # from the project's folder
    assert of_user("word", project.root) == "word" and of_user("", project.root) == ""
    monkeypatch.setenv("HOME", str(sub))
    assert of_user("~/mine.bin", project.root) == str(sub / "mine.bin")
    assert plan("toy", {"label": "mine.bin"}).parameters["label"] == str(sub / "mine.bin")
    project.notebook("toy", parameters='files: list = ["b.png"]')
    assert plan("toy", {"files": ["mine.bin"]}).parameters["files"] == [str(sub / "mine.bin")]
    monkeypatch.chdir(project.root)
    assert plan("toy", {"files": ["mine.bin"]}).parameters["files"] == ["mine.bin"]
