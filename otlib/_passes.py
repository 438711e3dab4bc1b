"""The passes over a tile of scores that a soft-min makes, by torch or compiled for this processor.

torch reads the tile anew for each of its operators; `passes.cpp` reads a row once while it is in
the cache: see `_compiled`.
"""

import math

import torch

from otlib import _compiled

# Exponentials are taken in base 2: torch's exp2 is three times as fast on a CPU as its exp.
LN2 = math.log(2)
# exp(-60) is below the rounding of float32; below -87 torch's CPU exponentials are slower by far,
# so scores are clamped before it.
NEGLIGIBLE = -60.0 / LN2


class Torch:
    """The passes by torch, for any type and device."""

    @staticmethod
    def weigh(scores, top, mass):
        """Scores (n, m) become 2^(score - top_i), with top_i the highest of row i so far.

        top, mass: (n,) highest score and sum of weights of what came before, -inf and 0 at first;
        both are brought up to date. Returns fade (n,), what the weights from before shrink by.
        """
        highest = torch.maximum(top, scores.amax(1))
        # a block of weight 0 leaves -inf here, and -inf - -inf would be NaN
        shift = highest.clamp(min=torch.finfo(top.dtype).min)
        scores.sub_(shift[:, None]).clamp_(min=NEGLIGIBLE).exp2_()
        fade = (top - shift).exp2_()
        mass.mul_(fade).add_(scores.sum(1))
        top.copy_(highest)
        return fade

    @staticmethod
    def best(scores, first, top, at):
        """Bring top and at (n,) up to date: the highest score so far and its column, first + j.

        Of equal ones the first is taken.
        """
        if scores.is_cuda:
            highest, j = scores.max(1)
        else:  # torch's own takes ten times numpy's time
            j = torch.from_numpy(scores.numpy().argmax(1))
            highest = scores.gather(1, j[:, None]).squeeze(1)
        torch.where(highest > top, first + j, at, out=at)
        torch.maximum(highest, top, out=top)

    @staticmethod
    def near(scores, reach, most):
        """Row, column and depth of the scores at most `reach` below the highest of their row.

        Returns three vectors, or None where there are more than `most`.
        """
        below = scores.amax(1, keepdim=True) - scores
        close = below <= reach
        if int(close.count_nonzero()) > most:
            return None
        i, j = close.nonzero().unbind(1)
        return i, j, below[i, j]

    @staticmethod
    def spread(weights, share, arriving):
        """arriving_j += sum_i share_i weights_ij."""
        arriving += share @ weights


class Compiled:
    """The same for contiguous float32 on the CPU, in one reading of the tile each."""

    @staticmethod
    def weigh(scores, top, mass):
        fade = torch.empty_like(top)
        _call("weigh", scores, NEGLIGIBLE, top, mass, fade)
        return fade

    @staticmethod
    def best(scores, first, top, at):
        _call("best", scores, first, top, at)

    @staticmethod
    def near(scores, reach, most):
        counts = torch.empty(len(scores), dtype=torch.int64, device="cpu")
        _call("count", scores, reach, counts)
        ends = counts.cumsum(0)
        if (total := int(ends[-1])) > most:
            return None
        i, j = (counts.new_empty(total) for _ in range(2))
        below = scores.new_empty(total)
        _call("list", scores, reach, ends, i, j, below)
        return i, j, below

    @staticmethod
    def spread(weights, share, arriving):
        _call("spread", weights, share, arriving)


def _call(name, tile, *arguments):
    given = (a.data_ptr() if torch.is_tensor(a) else a for a in arguments)
    _compiled.functions()[name](tile.data_ptr(), *tile.shape, *given, torch.get_num_threads())
