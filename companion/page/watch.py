"""What happens while `otlib.restore.restore` runs."""

from collections.abc import Callable

from torch import Tensor


def watch(
    measure: Callable[[Tensor], float], tick: Callable[[], object] = lambda: None
) -> tuple[dict[str, list], Callable, Callable]:
    """Make two functions that look on, and the lists that they fill.

    measure: function of the image to the PSNR after a step. tick: called after each step, as of
        `jobs.side_by_side`.
    Returns ({"psnr", "updates", "residual"}, solved, stepped): the lists, what `patch_ot` is to
    observe with, which appends a solve's updates of the potentials and its residual, and the
    callback of `restore`, which appends the PSNR.
    """
    seen: dict[str, list] = {"psnr": [], "updates": [], "residual": []}

    def solved(solution, cloud):
        seen["updates"].append(solution.iterations)
        seen["residual"].append(solution.residual)

    def stepped(step, image):
        seen["psnr"].append(measure(image))
        tick()

    return seen, solved, stepped
