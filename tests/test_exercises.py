"""The solutions of the exercises: their code finds what they say, their commands are accepted."""

import contextlib
import io
import math
import re
import shlex
from pathlib import Path

import jupytext
import pytest

from companion.notebooks import load
from companion.run import settle

ROOT = Path(__file__).parents[1]
_SOLUTION = re.compile(r"^:::\{admonition\} Solution\n:class: dropdown\n(.*?)^:::$", re.M | re.S)


def solutions(page):
    notebook = jupytext.read(ROOT / "notebooks" / f"{page}.md", fmt="md:myst")
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return [found for text in texts for found in _SOLUTION.findall(text)]


PAGES = sorted(
    path.stem
    for path in (ROOT / "notebooks").glob("*.md")
    if "## Exercises" in path.read_text(encoding="utf-8")
)


def printed(page):
    """The last numbers of each line that the code of a page's solutions prints, in order."""
    space, out = {}, io.StringIO()
    with contextlib.redirect_stdout(out):
        for text in solutions(page):
            for source in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
                exec(source, space)
    lines = (line.split(") ")[-1] for line in out.getvalue().splitlines())
    return [[float(word) for word in line.split()] for line in lines]


def test_the_concept_pages_have_two_exercises_or_three():
    assert set(PAGES) >= {"sinkhorn", "denoising", "dot_2d", "texture_patch_size"}
    assert all(2 <= len(solutions(page)) <= 3 for page in PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_a_command_names_parameters_that_the_page_has(page, tmp_path):
    picture = tmp_path / "IMAGE"
    picture.write_bytes(b"")
    commands = re.findall(r"^\$ \.venv/bin/companion run (.*)$", "\n".join(solutions(page)), re.M)
    assert commands
    for command in commands:
        name, *words = shlex.split(command)
        assert name == page and words[-2:] == ["--out", "out"]
        flags, given = words[:-2:3], zip(words[1:-2:3], words[2:-2:3], strict=True)
        given = [(key, str(picture) if value == "IMAGE" else value) for key, value in given]
        assert set(flags) == {"-p"} and given
        todo = settle(ROOT, load(ROOT, page), "laptop", given)
        default = load(ROOT, page).parameters
        assert all(todo.parameters[key] != default[key].default for key, _ in given)


def test_the_price_drops_wrong_points_and_the_mass_stays_in_the_semi_unbalanced_form():
    *shares, semi, unbalanced = [line[-1] for line in printed("sinkhorn")]
    assert shares[0] == pytest.approx(0.1, abs=1e-3)
    assert shares == sorted(shares, reverse=True) and shares[-1] < 1e-3
    assert semi == pytest.approx(1, abs=1e-6) and unbalanced < 0.95


def test_the_semi_unbalanced_form_gains_more_than_the_balanced_one():
    balanced, semi = [line[-1] for line in printed("denoising")]
    assert semi > balanced + 1 and semi > 2


def test_the_excess_is_that_of_the_closed_form_and_nears_one():
    lines = printed("dot_2d")
    least = 4 / 5
    at_zero = 1 + (2 - math.sqrt(4 - least)) ** 2 / least
    for alpha, excess in lines[:3]:
        assert excess == pytest.approx(1 + (1 - alpha) ** 2 * (at_zero - 1))
    ratios = [excess for _, excess in lines[3:]]
    assert ratios == sorted(ratios) and ratios[-1] == pytest.approx(2, abs=1e-2)


def test_patches_in_random_order_average_to_one_over_their_side():
    for side, apart, contrast in printed("texture_patch_size"):
        assert apart < 1e-5
        assert contrast == pytest.approx(1 / side, rel=0.15)
