"""Choices of a setting, judged on other draws than those they were made on."""

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np

Setting = TypeVar("Setting")


class Choice(NamedTuple, Generic[Setting]):
    """The setting that is best on average over all draws, and what such a choice is worth."""

    setting: Setting
    place: int  # among the settings
    inside: bool  # neither the first nor the last of them, so that the best is not beyond
    apart: list[Setting]  # for each draw the setting that is best over the *other* draws
    scores: np.ndarray  # (n,): of each draw, at that setting


def choose(settings: Sequence[Setting], scores: np.ndarray) -> Choice[Setting]:
    """Choose one of several settings.

    settings: list, in order. scores: (len(settings), n), n >= 2, one column a draw; more is better.
    Returns a Choice.
    """
    place, draws = int(scores.mean(1).argmax()), range(scores.shape[1])
    others = [int(np.delete(scores, draw, 1).mean(1).argmax()) for draw in draws]
    inside = 0 < place < len(settings) - 1
    apart = [settings[other] for other in others]
    return Choice(settings[place], place, inside, apart, scores[others, draws])
