"""What is said of scores and of races: closed forms, and what no order of the images changes."""

from itertools import product

import numpy as np
import pytest

from companion.page import figures, intervals, raced, table_one, table_one_shown

NAMES = {"semi": "S", "balanced": "B", "wpp": "W"}
PRINTED = {
    "semi": {"clean": {"psnr": 30.5, "lpips": 0.09}, "defect": {"psnr": 30.9, "lpips": 0.1}},
    "balanced": {"clean": {"psnr": 30.0, "lpips": 0.08}, "defect": {"psnr": 29.0, "lpips": 0.11}},
}


@pytest.fixture
def said(monkeypatch):
    """What is recorded, {name: (value, interval)}, and the tables shown."""
    records, shown = {}, []

    def record(name, value, unit="", better="", interval=None):
        assert name not in records
        records[name] = float(value), interval

    for module in (table_one, raced, intervals):
        monkeypatch.setattr(module, "record", record)
    monkeypatch.setattr(figures, "table", lambda head, rows: shown.append((head, rows)))
    return records, shown


def scores(seed, images=5):
    return np.random.default_rng(seed).uniform(0.1, 0.9, (images, 2, 5))


def found(better=1.0):
    semi = scores(0)
    other = semi - np.array([better, -0.02, 0, 0, 0])
    return {("semi", "code"): semi, ("balanced", "code"): other, ("wpp", "code"): scores(1)}


def test_a_gain_that_is_the_same_everywhere_has_no_width(said):
    records, shown = said
    table_one.differences(found(better=1.0), NAMES, PRINTED, ("balanced", "wpp"))
    for kind in table_one.SIDES:
        value, ends = records[f"code_gain_over_balanced_{kind}"]
        assert value == pytest.approx(1) and ends == pytest.approx((1, 1))
        assert records[f"code_lpips_over_balanced_{kind}"][0] == pytest.approx(-0.02)
    assert records["code_spared_by_semi"][0] == pytest.approx(0, abs=1e-12)
    (head, rows), texts = shown[0], [row[3] for row in shown[0][1]]
    assert texts == ["+0.50", "-", "+1.90", "-", "+1.40"]  # what the printed cells differ by
    assert all(len(row) == len(head) for row in rows) and rows[0][6] == "5 of 5"


def test_a_defect_that_costs_one_form_a_decibel_is_spared_by_the_other(said):
    records, _ = said
    here = found(better=0)
    here["balanced", "code"][:, 1, 0] -= 1
    table_one.differences(here, NAMES, PRINTED, ("balanced",))
    assert records["code_spared_by_semi"][0] == pytest.approx(1)
    lost = table_one.losses(here)
    assert np.allclose(lost["balanced", "code"], lost["semi", "code"] + 1)


def test_what_is_recorded_of_means_does_not_depend_on_the_order_of_the_images(said):
    records, _ = said
    table_one.record_means(found(), PRINTED, ("semi", "balanced"))
    first = dict(records)
    records.clear()
    table_one.record_means({at: here[::-1] for at, here in found().items()}, PRINTED, NAMES)
    assert "code_loss_by_defects_wpp" in records and "code_loss_by_defects_wpp" not in first
    for name, (value, _) in first.items():
        assert records[name][0] == pytest.approx(value, abs=1e-12)


def test_the_printed_table_itself_is_off_by_nothing(said):
    records, _ = said
    here = {}
    for method, sides in PRINTED.items():
        line = [[c["psnr"], c["lpips"] + 0.04, c["lpips"], 0, 0] for c in sides.values()]
        here[method, "code"] = np.array([line, line])
    table_one.record_means(here, PRINTED, ("semi",))
    assert records["code_psnr_off_most"][0] == 0
    assert records["code_lpips_reading_excess"][0] == pytest.approx(0.04)  # the second reading fits


def test_table_one_puts_what_is_printed_beside_ours(said):
    line = np.array([[20.0, 0.1, 0.0, 0.2, 0.5], [22.0, 0.3, 0.0, 0.2, 0.7]])
    here = {(method, "code"): np.stack([line, line + 1], 1) for method in ("wpp", "semi")}
    here |= {(method, "printed"): scores for (method, _), scores in list(here.items())}
    table_one_shown.tables(here, "code", {"wpp": "W", "semi": "S"}, PRINTED)
    (head, rows), (other, worse), (longer, rest) = said[1]
    assert head[:3] == ["code, defect-free", "PSNR (dB)", "LPIPS-Alex"]
    assert head[-2:] == ["PSNR, paper", "LPIPS, paper"]
    assert other[0] == "code, with defect" and len(rows[0]) == len(head)
    middle = ["0.200 ± 0.141", "0.000 ± 0.000"], ["1.200 ± 0.141", "1.000 ± 0.000"]
    assert rows[0][:4] == ["W", "21.00 ± 1.41", *middle[0]] and rows[0][-2:] == ["-", "-"]
    assert rows[1][:4] == ["S", "21.00 ± 1.41", *middle[0]] and rows[1][-2:] == ["30.50", "0.090"]
    assert worse[1][:4] == ["S", "22.00 ± 1.41", *middle[1]]
    assert worse[1][-2:] == ["30.90", "0.100"]
    assert longer[:3] == ["settings", "reference", "method"] and longer[3:] == head[1:]
    both = [*rows, *worse]
    kinds = ["defect-free", "defect-free", "with defect", "with defect"]
    assert rest == [["printed", kind, *row] for kind, row in zip(kinds, both, strict=True)]


def test_what_is_printed_is_not_beside_images_that_are_others(said):
    here = {(method, "code"): np.ones((2, 2, 5)) for method in ("wpp", "semi")}
    table_one_shown.tables(here, "code", {"wpp": "W", "semi": "S"}, {})
    assert all(head[-1] == "SSIM" and len(rows[0]) == len(head) for head, rows in said[1])


def test_a_run_kept_has_the_printed_values_in_columns_of_their_own(said, monkeypatch):
    levels = dict(psnr=30.0, lpips=0.25, lpips_as_read=0.125)
    records = {
        f"code_{name}_{method}_{kind}": {"value": value + (kind == "defect")}
        for (name, value), method, kind in product(levels.items(), NAMES, table_one.SIDES)
    }
    about = {"size": 256, "pairs": 18, "settings": ["code"]}
    run = {"parameters": about, "records": records | {"dataset": {"value": "mvtec-table1"}}}
    monkeypatch.setattr(table_one_shown, "archived", lambda pattern: {"big": run})
    table_one_shown.kept("*", NAMES, PRINTED)
    (head, rows), (other, worse) = said[1]
    assert (head[0], other[0]) == ("settings, defect-free", "settings, with defect")
    assert rows[0] == ["code", "S", "30.00", "0.250", "0.125", "30.50", "0.090"]
    assert worse[2] == ["code", "W", "31.00", "1.250", "1.125", "-", "-"]
    assert all(len(row) == len(head) for row in rows)


def test_no_run_kept_is_said(capsys, tmp_path, said):
    table_one_shown.kept(str(tmp_path / "none-*.json"), NAMES, PRINTED)
    assert "None is kept yet" in capsys.readouterr().out and not said[1]


def race(updates, prior, psnr, residual):
    seen = {"updates": updates, "prior": [1.0, prior], "data": 0.5, "psnr": psnr}
    return seen | {"residual": [0.3, 0.3, residual, 0.4], "foreign": (0.25, 0.5)}


def test_a_race_tells_what_each_minimiser_spent_and_where_it_arrived(said):
    records, shown = said
    races = {
        ("semi", 0, "Adam"): race([8, 8, 8, 8], 0.5, [20.0, 25.0], 0.1),
        ("semi", 0, "majorisation"): race([4, 4, 4, 4], 0.6, [20.0, 26.0], 0.1),
        ("semi", 0, raced.SHORT): race([10, 10, 10, 10], 0.5, [20.0, 24.0], 0.9),
    }
    raced.record_ends(races)
    assert records["updates_adam_over_majorise_least"][0] == 2
    assert records["energy_majorise_over_adam_most"][0] == pytest.approx(1.1 / 1.0 - 1)
    assert records["stopped_gain_semi"][0] == -1 and records["stopped_residual_semi"][0] == 0.9
    raced.table(races, NAMES, ["tile 0"])
    (head, rows) = shown[0]
    assert all(len(row) == len(head) for row in rows)
    assert rows[1][:6] == ["S", "tile 0", "majorisation", 2, 16, "1.10000"]
    assert rows[1][7] == "50.0% of 25.0%"
