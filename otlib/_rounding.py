"""How far squared distances and scores round, and what to do where that is too far."""

import torch

# Rounding of a score that is borne, in units of the temperature; float64 costs little beside it.
_BORNE = {torch.float32: 1 / 8, torch.float64: 1e-4}
_APART = "donot_use_mm_for_euclid_dist"  # torch's word for distances from differences


def working(x, y, eps, high=0.0):
    """How scores are to be computed at temperature eps: (type, apart).

    x, y: (N, d), (M, d) clouds. eps: the lowest temperature. high: bound on |h| besides.

    |x_i|^2 - 2 <x_i, y_j> + |y_j|^2 errs by the unit roundoff times its terms, taken around the
    mean of y. The type is that of x where this is a fraction of eps, or else float64; `apart` tells
    that only |x_i - y_j|^2 itself will do, from differences, which is slower by far.
    """
    near_x, near_y, _ = centred(x, y)
    r, s = (float(near.square().sum(1).max()) ** 0.5 for near in (near_x, near_y))
    for kind in dict.fromkeys((x.dtype, torch.float64)):
        # of a far x the weights lack only what |x|^2 does not take along, but s lacks it all
        terms = (r + s) ** 2 if kind is torch.float32 else s * (s + 2 * r)
        if torch.finfo(kind).eps / 2 * (terms + high) <= _BORNE[kind] * eps:
            return kind, False
    return torch.float64, True


def height(h, span):
    """Largest |h_j| of those that can count: at most `span` below the highest."""
    return float(h[h >= h.max() - span].abs().max())


def coarseness(*values, kind=torch.float64):
    """The rounding of a sum in a type of tensors, or numbers, as large as the given ones."""
    largest = (v.double().abs().max() if torch.is_tensor(v) else abs(v) for v in values)
    return torch.finfo(kind).eps * float(sum(largest))


def costs(x, y):
    """|x_i - y_j|^2 from differences, an (N, M) tensor, to the unit roundoff times d of each."""
    return torch.cdist(x, y, compute_mode=_APART).square_()


def centred(x, y):
    """Both clouds around the mean of y, and it: smaller products, and so less float32 rounding."""
    centre = y.mean(0)
    return x - centre, y - centre, centre
