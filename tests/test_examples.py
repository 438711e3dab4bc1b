"""What the docstrings, the README and the page on images of one's own show runs."""

import doctest
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import skimage.data
import skimage.io

from companion.docstrings import modules

ROOT = Path(__file__).parents[1]
EXAMPLES = {
    f"{name}.{key}": value.__doc__
    for name, module in modules().items()
    for key in module.__all__
    if ">>> " in (getattr((value := getattr(module, key)), "__doc__", None) or "")
}


def test_there_are_examples():
    assert len(EXAMPLES) >= 10


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_prints_what_it_says(name):
    """In the names of its module: `doctest` itself does not find what a decorator wraps."""
    space = dict(vars(modules()[name.rpartition(".")[0]]))
    example = doctest.DocTestParser().get_doctest(EXAMPLES[name], space, name, None, 0)
    told = []
    found = doctest.DocTestRunner(verbose=False).run(example, out=told.append)
    assert found.attempted and not found.failed, "".join(told)


def test_the_code_of_the_readme_runs():
    (source,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    # fewer steps of the same call: the README's take half a minute
    assert source.count("steps=40") == 1
    space = {}
    exec(source.replace("steps=40", "steps=2"), space)
    assert space["clean"].shape == space["noisy"].shape
    assert space["clean"].isfinite().all() and not space["clean"].equal(space["noisy"])


OWN = (ROOT / "book" / "own.md").read_text(encoding="utf-8")
BLOCKS = [  # commands that stand together are run one after the other
    found
    for block in re.findall(r"```console\n(.*?)```", OWN, re.DOTALL)
    if (found := re.findall(r"^\$ \.venv/bin/companion (run .*)$", block, re.MULTILINE))
]
THERE = ("texture.png", "photographs", "others", "fits")  # in their folder


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with a texture and photographs, named as the page has them."""
    folder = tmp_path_factory.mktemp("own")
    skimage.io.imsave(folder / "texture.png", skimage.data.brick()[:256, :256])
    (folder / "photographs").mkdir()
    for k in range(8):
        part = skimage.data.astronaut()[64 * (k // 4) :, 100 * (k % 4) :][:96, :96]
        skimage.io.imsave(folder / "photographs" / f"{k}.png", part)
    (folder / "others").mkdir()
    skimage.io.imsave(folder / "others" / "one.png", skimage.data.chelsea()[80:200, 60:220])
    return folder


def test_the_page_has_four_blocks_of_runs():
    assert [[command.split()[1] for command in block] for block in BLOCKS] == [
        ["texture_multiscale"],
        ["texture_inpainting"],
        ["dot_visual"],
        ["dot_table", "dot_visual"],
    ]


@pytest.mark.parametrize("block", BLOCKS, ids=" and ".join)
def test_commands_on_an_image_of_one_s_own_run(own, block):
    for command in block:
        words = shlex.split(command)
        for place in range(4, len(words)):
            if words[place - 2] == "-p" and Path(words[place]).parts[0] in THERE:
                words[place] = str(own / words[place])
        start = [sys.executable, "-c", "from companion.start import main; main()", *words[:2]]
        words = ["--profile", "smoke", *words[2:-1], str(own / words[-1])]
        subprocess.run([*start, *words], cwd=ROOT, check=True, capture_output=True)
        told = json.loads((own / "out" / f"{command.split()[1]}.json").read_text())
        if told["notebook"] == "dot_visual":  # kept fits need no photographs to learn from
            fitted = told["records"]["training_images"]["value"]
            assert (fitted == 0) == ("-p fits" in command)


def test_the_code_on_an_image_of_one_s_own_denoises_it(own, monkeypatch):
    monkeypatch.chdir(own)
    (source,) = re.findall(r"```python\n(.*?)```", OWN, re.DOTALL)
    space = {}
    exec(source.replace("steps=8", "steps=3"), space)
    before, after = (space["metrics"].psnr(space[k], space["clean"]) for k in ("noisy", "restored"))
    assert after > before + 6
