"""The pairs of a Sinkhorn solve that count: few, where the temperature is low."""

import math

import torch

from otlib._passes import LN2, NEGLIGIBLE

_REACH = 80.0  # pairs this many eps above their row's least cost are listed,
_SURE = 30.0  # and a list serves while what it leaves out is this many eps above


class Active:
    """The soft-min of a solve on the pairs that count.

    A dense pass lists the pairs within _REACH eps of their row's least cost c_ij - h_j. While h and
    eps change, an unlisted pair of row i stays at least

        least_i + reach - least'_i - max_j (h'_j - h_j)

    above the present least cost, and the list serves as long as that is above _SURE eps.
    """

    def __init__(self, dense, n, m):
        # a listed pair takes the time of three in a dense pass, and some 40 bytes
        self.dense, self.n, self.limit = dense, n, min(n * m // 8, 2**22)
        self.pairs, self.refused = None, math.inf

    def soft(self, h, eps, leaving):
        """(s, arriving) as in `kernel` from the listed pairs; None where no list serves."""
        if self.pairs is None:
            return None
        i, j, cost = self.pairs
        excess = cost - h[j]
        least = torch.full_like(self.least, math.inf).scatter_reduce_(0, i, excess, "amin")
        rise = (h - self.h).nan_to_num(nan=-math.inf).max()  # nan: -inf in both, a removed point
        reach = float((self.least - least).min() + self.reach - rise)
        if not reach >= _SURE * eps:
            self.pairs = None
            return None
        score = (least[i] - excess).div_(eps * LN2)
        if reach > 1.5 * _REACH * eps:  # the temperature has fallen: fewer pairs count
            near = score >= -_REACH / LN2
            i, j, score = i[near], j[near], score[near]
            self._keep((i, j, cost[near]), least, h, eps)
        weight = score.clamp_(min=NEGLIGIBLE).exp2_()
        mass = torch.zeros_like(least).index_add_(0, i, weight)
        s = least - eps * mass.log()
        weight.mul_((leaving(s, slice(None)) / mass)[i])
        return s, torch.zeros_like(h).index_add_(0, j, weight)

    def list(self, h, eps, leaving):
        """The same from a dense pass, which lists the pairs where they are few enough to pay."""
        if eps >= self.refused:  # too many pairs at this temperature
            return self.dense(h, eps, leaving=leaving)
        *found, pairs = self.dense(h, eps, leaving=leaving, near=(_REACH, self.limit))
        if pairs is None:
            self.refused = eps
        else:
            i, j, excess, least = pairs
            self._keep((i, j, h[j] + least[i] + excess), least, h, eps)
        return found

    def _keep(self, pairs, least, h, eps):
        self.pairs, self.least, self.h, self.reach = pairs, least, h, _REACH * eps
