"""Numbers over the turns of the photographs: means, intervals, changes."""

import numpy as np
import pytest

from companion.page import estimates


def test_an_estimate_has_the_interval_of_its_turns():
    values = np.array([1.0, 2.0, 4.0, 5.0])
    turns = [{0.5: {"mse": value, "kid": -value}} for value in values]
    found = estimates.over_turns(turns)[0.5]
    np.testing.assert_array_equal(found["kid"].values, -values)
    half = 5.84091 * values.std(ddof=1) / 2  # Student's t at 99.5 % and 3 degrees
    assert found["mse"].value == 3 and found["mse"].error == pytest.approx((half, half), rel=1e-5)
    assert found["mse"].interval(of=2).high > found["mse"].interval().high
    change = found["mse"].less(found["kid"])
    np.testing.assert_array_equal(change.values, 2 * values)
    alone = estimates.Estimate(values[:1])
    assert alone.interval() == (1, -np.inf, np.inf) and alone.error == (0, 0)


def test_an_infinite_number_has_no_interval():
    one = estimates.over_turns([{"psnr": np.inf}] * 2)["psnr"]
    assert one.value == np.inf and one.error == (0, 0) and one.text == "\N{MINUS SIGN}∞ to ∞"


def test_numbers_are_gathered_at_any_depth():
    turns = [{"a": {0.5: {"mse": k}}, "b": 10 * k} for k in (1.0, 3.0)]
    found = estimates.over_turns(turns)
    assert found["a"][0.5]["mse"].values.tolist() == [1, 3]
    assert found["b"].values.tolist() == [10, 30]
    with pytest.raises(KeyError):
        estimates.over_turns([{"a": 1.0}, {"b": 1.0}])


def test_each_restorer_keeps_its_turns_in_order():
    work = lambda name, turn: {"length": len(name) + turn, "turn": turn}
    found = estimates.compared(work, ["nlm", "blurred"], [10, 20, 30], "lengths")
    assert list(found) == ["nlm", "blurred"]
    assert found["nlm"]["length"].values.tolist() == [13, 23, 33]
    assert found["blurred"]["length"].values.tolist() == [17, 27, 37]
    assert found["blurred"]["turn"].values.tolist() == [10, 20, 30]


def test_a_change_is_turn_by_turn():
    low, high = np.array([1.0, 5.0]), np.array([2.0, 8.0])
    found = {0.0: {"kid": estimates.Estimate(low)}, 1.0: {"kid": estimates.Estimate(high)}}
    assert estimates.change(found, "kid", 0.0, 1.0).values.tolist() == [-1, -3]
    assert estimates.change(found, "kid", 1.0, 0.0).value == 2


def test_the_worst_of_several_restorers_decides_with_the_interval_of_all():
    sets = [-3.0, -3.2, -3.1], [0.1, 0.2, 0.15]
    better, worse = (estimates.Estimate(np.array(values)) for values in sets)
    found = estimates.worst([better, worse], "lower")
    assert found.mean == pytest.approx(0.15)
    assert found.high == max(one.interval(of=2).high for one in (better, worse))
    assert estimates.worst([better, worse], "higher").mean == pytest.approx(-3.1)


def test_a_change_is_sure_where_its_whole_interval_is_on_one_side():
    sets = [-1.0, -1.1, -0.9], [-1.0, 3.0, -3.0], [0.0, 0.0, 0.0], [1.0, 1.1, 0.9], [-2.0]
    found = estimates.signs([estimates.Estimate(np.array(values)) for values in sets])
    assert found == (3, 1, 1)  # the second and the lone one may be luck


def test_a_choice_is_made_on_the_other_turns():
    values = {0.5: [0.0, 3.0, 3.0], 1.5: [5.0, 1.0, 2.0]}
    values = {alpha: estimates.Estimate(np.array(each)) for alpha, each in values.items()}
    best, found = estimates.chosen(values, [[1, 2], [0, 2], [0]])
    assert best == [1.5, 0.5, 0.5]
    assert found.values.tolist() == [5, 3, 3]  # no turn chooses on itself
