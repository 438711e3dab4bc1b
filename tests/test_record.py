import subprocess
import sys

import IPython.display
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from companion.page.record import collect, record


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, True),
        (3, 3),
        (0.1, 0.1),
        ("P1", "P1"),
        (np.float32(0.5), 0.5),
        (np.bool_(False), False),
        (np.array(2), 2),
        (torch.tensor(1.5, requires_grad=True), 1.5),
    ],
)
def test_a_scalar_is_read_back_as_plain_python(recorded, value, expected):
    assert record("x", value, unit="dB", better="lower") is None
    found = collect(recorded)["x"]
    assert found == {"value": expected, "unit": "dB", "better": "lower"}
    assert type(found["value"]) is type(expected)


def test_the_output_is_in_the_form_that_the_glue_roles_read(recorded):
    from myst_nb.ext.glue import extract_glue_data_cell
    from nbformat import from_dict

    record("gain", 1.25)
    cell = from_dict(recorded["cells"][1])
    [(name, output)] = extract_glue_data_cell(cell)
    assert (name, output["data"]["text/plain"]) == ("gain", "1.25")
    assert cell.outputs == []  # nothing of it is left for the page


def test_records_come_sorted_by_name(recorded):
    for name in ("b", "a", "c"):
        record(name, 1)
    assert list(collect(recorded)) == ["a", "b", "c"]


def test_a_name_used_twice_is_an_error(recorded):
    record("x", 1)
    record("x", 1)
    with pytest.raises(ValueError, match="'x' is made twice"):
        collect(recorded)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("not a name", 1), "'not a name' is not an identifier"),
        (("x", float("nan")), "x: nan is no number, allowed: a number, inf or -inf"),
        (("x", "inf"), "x: the text 'inf'"),
        (("x", np.ones(2)), r"x: \(2,\) array"),
        (("x", None), "x: NoneType"),
        (("x", 1j), "x: complex"),
        (("x", 1, 3), "unit=3"),
        (("x", 1, "", "bigger"), "better='bigger'"),
    ],
)
def test_what_is_not_a_record_is_refused(recorded, arguments, message):
    with pytest.raises(ValueError, match=message):
        record(*arguments)
    assert collect(recorded) == {}


@given(st.floats(allow_nan=False))
def test_a_float_survives_exactly(value):
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(IPython.display, "display", lambda data, **more: made.append(more))
        record("x", value)
    assert collect({"cells": [{"outputs": made}]})["x"]["value"] == value


@pytest.mark.parametrize("heavy", ["torch", "matplotlib", "scipy", "skimage", "pandas"])
def test_importing_record_imports_nothing_heavy(heavy):
    code = f"import companion.page.record, sys; sys.exit('{heavy}' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_interval_is_kept_with_its_number(recorded):
    record("gain", 1.0, interval=(torch.tensor(0.5), np.float64(np.inf)))
    assert collect(recorded)["gain"]["interval"] == [0.5, float("inf")]


@pytest.mark.parametrize(
    ("value", "interval"),
    [
        (1.0, (1.1, 2.0)),
        (1.0, (2.0, 0.0)),
        (True, (0.0, 1.0)),
        ("a", ("a", "b")),
        (1.0, (0.0, "2")),
        (1.0, (0.0, float("nan"))),
    ],
)
def test_an_interval_holds_its_number(recorded, value, interval):
    with pytest.raises(ValueError, match="record gain"):
        record("gain", value, interval=interval)
