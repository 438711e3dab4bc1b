"""Measures of restored images in tables and records."""

import math
from typing import get_args

import numpy as np

from companion.page import figures, intervals, measures
from companion.page.estimates import Estimate
from companion.page.record import Better


def test_measures_of_a_restorer_are_noted_and_read_back(monkeypatch):
    noted = {}
    keep = lambda name, value, unit, better, ends: noted.update({name: (value, better, [*ends])})
    monkeypatch.setattr(intervals, "record", keep)
    found = {"psnr": Estimate(np.array([30.126])), "kid": Estimate(np.array([-1.0, -1.0]))}
    measures.note("dat-light", "kept", found, ["psnr", "kid"])
    measures.note("dat-light", "paired", found, ["kid"])
    assert noted == {
        "dat_light_psnr_kept": (30.126, "higher", [-math.inf, math.inf]),
        "dat_light_kid_kept": (-1.0, "lower", [-1.0, -1.0]),
        "dat_light_kid_paired": (-1.0, "lower", [-1.0, -1.0]),
    }
    read = {name: value for name, (value, *_) in noted.items()}
    parts = {"kept": "mean kept", "paired": "paired"}
    assert measures.kept_rows(read, ["dat-light"], ["kid"], parts) == [
        ["dat-light", "mean kept", "-1.0"],
        ["dat-light", "paired", "-1.0"],
    ]
    assert measures.kept_rows(read, ["dat-light"], ["psnr"], {"kept": "m"})[0][2] == "30.13"


def test_cells_have_the_decimals_of_their_measure_and_gaps():
    found = {"gelbrich": Estimate(np.array([0.25, 0.5])), "kid": Estimate(np.array([12.345]))}
    assert measures.cells(found, ["kid", "psnr", "gelbrich"]) == ["12.3", "", "0.3750"]
    assert measures.titles(["kid", "gelbrich"]) == ["KID x 1000", "Gelbrich"]
    assert {one.better for one in measures.MEASURES.values()} == {*get_args(Better)}


def test_a_table_tells_its_rows_apart_and_ends_with_an_interval(monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "display", lambda data: shown.append(data.data))
    kid = Estimate(np.array([1.0, 1.0]))
    rows = {("rrdb", 3): {"psnr": Estimate(np.array([30.0, 31.0])), "kid": kid}}
    rows["rrdb", 5] = {"kid": Estimate(np.array([2.0, 2.0]))}
    measures.table(["restorer", "p"], rows, ["psnr", "kid"], "kid")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown[0].splitlines()]
    assert cells[0] == ["restorer", "p", "PSNR (dB)", "KID x 1000", "interval"]
    assert cells[2] == ["rrdb", "3", "30.50", "1.0", "1 to 1"]
    assert cells[3] == ["rrdb", "5", "", "2.0", "2 to 2"]
