"""What a transport plan does with the mass of its two clouds."""

from collections.abc import Callable
from typing import Any

from torch import Tensor


def matched(arrived: Tensor) -> Tensor:
    """The share of a reference that a plan matches: what each point gets, at most its own weight.

    arrived: (..., M) second marginals; the M points weigh 1 / M each. Returns (...), in [0, 1].
    """
    return arrived.clamp(max=1 / arrived.shape[-1]).sum(-1)


def share(arrived: Tensor, which: Tensor) -> Tensor:
    """The share of the mass that arrives at some points of a reference.

    arrived: (M,) second marginal. which: (M,) bool. Returns a 0-d tensor in [0, 1].
    """
    return arrived[which].sum() / arrived.sum()


def watch(
    sample: Callable[[], tuple[Tensor, Tensor]], device: str
) -> tuple[dict[str, Any], Callable, Callable]:
    """Look on while `patch_ot` meets fresh samples of a model that is partly wrong.

    sample: function to (M, d) patches and the (M,) component each is of; component 1 is wrong.
    device: of torch, where the patches go.
    Returns (seen, reference, observe): what was seen at each solve, {"residual", "outliers" (share
    of the mass on wrong patches), "matched": lists of floats}, with "kept", the share of its mass
    that each patch of the image kept at the last one; and the two functions that `patch_ot` takes.
    """
    seen: dict[str, Any] = {"residual": [], "outliers": [], "matched": []}
    components: list[Tensor] = []

    def reference():
        cloud, component = sample()
        components[:] = [component]
        return cloud.to(device)

    def observe(solution, cloud):
        left, arrived = (marginal.cpu() for marginal in solution.marginals)
        seen["residual"].append(solution.residual)
        seen["outliers"].append(float(share(arrived, components[0] == 1)))
        seen["matched"].append(float(matched(arrived)))
        seen["kept"] = left * len(left)

    return seen, reference, observe
