"""Choices, and what they are worth on draws that had no say in them."""

import numpy as np

from companion.page.choices import choose


def test_a_choice_is_judged_on_draws_that_had_no_say_in_it():
    scores = np.array([[0.0, 0.0, 9.0], [2.0, 2.0, 0.0], [1.0, 1.0, 1.0]])
    choice = choose(["a", "b", "c"], scores)
    assert (choice.setting, choice.place, choice.inside) == ("a", 0, False)
    # without the last draw "b" is best, with it "a"
    assert choice.scores.tolist() == [0.0, 0.0, 0.0] and choice.apart == ["a", "a", "b"]
    choice = choose([5, 6, 7], scores[[2, 0, 1]])
    assert (choice.setting, choice.place, choice.inside) == (6, 1, True)


def test_a_choice_that_all_draws_agree_on_is_worth_its_scores():
    scores = np.random.default_rng(0).normal(size=(4, 6))
    scores[2] += 100
    choice = choose("abcd", scores)
    assert choice.setting == "c" and np.array_equal(choice.scores, scores[2])
