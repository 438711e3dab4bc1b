"""What a page was run with is told where the document has another value."""

from types import SimpleNamespace

import pytest

from companion.departures import MOST, departures


def plan(**parameters):
    meant = {name: SimpleNamespace(meaning=meaning) for name, (_, meaning) in parameters.items()}
    values = {name: value for name, (value, _) in parameters.items()}
    return SimpleNamespace(parameters=values, notebook=SimpleNamespace(parameters=meant))


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        (3, "side (paper: 3 or 5, lost in the copy)"),
        (5, "side (paper: 3 or 5)"),
        (0.1, "price (paper: .1)"),
        (2e-4, "temperature (paper: 2e-4)"),
        (7, "steps (paper: not stated; code: 500)"),
        (7, "seed of the draws"),
        ("pca16", "(paper: pca16)"),
    ],
)
def test_the_documents_own_value_is_no_departure(value, meaning):
    assert departures(plan(x=(value, meaning))) == ""


def test_another_value_stands_beside_that_of_the_document():
    told = departures(
        plan(size=(129, "side of the images (paper: 256); >= 1"), ae=("a", "(slides: b)"))
    )
    assert "| side of the images | 256 | `129` |" in told
    assert "| `ae` | b | `'a'` |" in told
    assert "more" not in told


def test_the_rest_is_counted():
    told = departures(plan(**{f"x{k}": (k, "side (paper: 99)") for k in range(MOST + 2)}))
    assert told.count("| 99 |") == MOST and " 2 more are in the fold below." in told
