"""What a program may have set in torch, and the plain state that otlib computes in.

Autocast, gradients, inference mode and default device belong to a thread, default dtype and the
precision of float32 to the process. otlib names dtype and device wherever it makes a tensor;
`defaults` is for the libraries that do not.
"""

import functools
import threading
from collections.abc import Callable
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, ParamSpec, TypeVar, overload

import torch

from otlib._check import scalar

P = ParamSpec("P")
R = TypeVar("R")

_DEVICES = ("cpu", "cuda")  # with an autocast of their own


class _Held:
    """Switches of the process, held at a value until the last call of any thread has left.

    switches: (name, read, write, foreign values, the value) of each, those that others inherit
    first. deciding: the ones of them to look at on the way in.
    """

    def __init__(self, switches, deciding):
        self.switches, self.deciding = switches, deciding
        self.lock, self.inside, self.found = threading.Lock(), 0, None

    def __enter__(self):
        with self.lock:
            self.inside += 1
            for _, read, _, foreign, _ in self.deciding:
                if read() in foreign:
                    break
            else:
                return
            found = [_read(read) for _, read, *_ in self.switches]
            self.found = self.found or found
            for _, read, write, foreign, value in self.switches:
                if _read(read) in foreign:
                    write(value)

    def __exit__(self, *_):
        with self.lock:
            self.inside -= 1
            if self.inside or self.found is None:
                return
            for (_, read, write, *_), before in zip(self.switches, self.found, strict=True):
                if before is not None and _read(read) != before:
                    write(before)
            self.found = None


def _read(read):
    try:
        return read()
    except RuntimeError:  # torch's old switches, where they disagree with its new ones
        return None


def _precision():
    """The switches of the precision of float32, as `_Held` wants them."""
    yield (
        "torch.set_float32_matmul_precision",
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
        ("high", "medium"),
        "highest",
    )
    cuda, cudnn = torch.backends.cuda.is_built(), torch.backends.cudnn
    if cuda:
        name = "torch.backends.cudnn.allow_tf32"
        tell = functools.partial(setattr, cudnn, "allow_tf32")
        yield name, lambda: cudnn.allow_tf32, tell, (True,), False
    if not hasattr(torch.backends, "fp32_precision"):  # torch < 2.9
        return
    levels = [("generic", "all")]
    for backend in ("cuda", "mkldnn") if cuda else ("mkldnn",):
        levels += [(backend, kind) for kind in ("all", "matmul", "conv", "rnn")]
    for level in levels:
        # not by torch.backends: mkldnn.fp32_precision = ... sets that of all backends in torch 2.13
        read = functools.partial(torch._C._get_fp32_precision_getter, *level)
        write = functools.partial(torch._C._set_fp32_precision_setter, *level)
        yield f"{'.'.join(level)}.fp32_precision", read, write, ("tf32", "bf16"), "ieee"


_SWITCHES = tuple(_precision())
# of products and convolutions, read with what they inherit
_LAST = tuple(
    s for s in _SWITCHES if s[0].endswith(("matmul.fp32_precision", "conv.fp32_precision"))
)
_FULL = _Held(_SWITCHES, _LAST or _SWITCHES)
_DTYPES = (torch.float64, torch.float16, torch.bfloat16)
_DTYPE = ("default dtype", torch.get_default_dtype, torch.set_default_dtype, _DTYPES, torch.float32)
_FLOAT32 = _Held([_DTYPE], [_DTYPE])


@overload
def plain(function: Callable[P, R]) -> Callable[P, R]: ...
@overload
def plain(*, grad: bool) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def plain(function: Any = None, *, grad: bool = False) -> Any:
    """Decorator of a public function: it computes in the plain state and leaves torch as found.

    Plain is: no autocast, float32 products and convolutions in float32, no inference mode. `grad`
    records gradients whatever is set, else that is left. The caller's functions (an operator, a
    prior, a callback) run in this state too. Tensors made in inference mode are copied: gradients
    can flow through the copies. Numbers of numpy and tensors of no dimension come as Python's.
    Costs some 7 microseconds a call where nothing is set.
    """
    if function is None:
        return functools.partial(plain, grad=grad)

    @functools.wraps(function)
    def within(*args, **kwargs):
        try:
            with _FULL, ExitStack() as state:
                for device in _DEVICES:
                    if torch.is_autocast_enabled(device):
                        state.enter_context(torch.autocast(device, enabled=False))
                recorded = grad or torch.is_grad_enabled()
                if torch.is_inference_mode_enabled():
                    state.enter_context(torch.inference_mode(False))  # which records gradients
                if torch.is_grad_enabled() != recorded:
                    state.enter_context(torch.set_grad_enabled(recorded))
                for name, value in kwargs.items():
                    kwargs[name] = _normal(value)
                return function(*map(_normal, args), **kwargs)
        except RuntimeError as error:
            if grad and "inference tensor" in str(error).lower():
                raise RuntimeError(
                    f"{function.__name__} takes gradients, and what it was given holds tensors "
                    "made in torch.inference_mode: make them outside it"
                ) from error
            raise

    return within


def _normal(value):
    """An argument without what is foreign about it, lists and tuples item by item."""
    if type(value) in (list, tuple):
        return type(value)(map(_normal, value))
    value = scalar(value)
    return value.clone() if isinstance(value, torch.Tensor) and value.is_inference() else value


def reduced():
    """Whether products of float32 are less than that at present: at eps = 2e-4 TF32 errs by eps."""
    products = (switch for switch in _FULL.deciding if "matmul" in switch[0])
    return any(torch.is_autocast_enabled(device) for device in _DEVICES) or any(
        _read(read) in foreign for _, read, _, foreign, _ in products
    )


@contextmanager
def defaults():
    """float32 on the CPU by default: around libraries that make tensors and name neither."""
    foreign = torch.get_default_device().type != "cpu"
    with torch.device("cpu") if foreign else nullcontext(), _FLOAT32:
        yield


def sloped(function, x):
    """function(x), a tuple of tensors, with a gradient in x that is computed in the plain state.

    torch computes a gradient in the state in which backward() is called; here products and
    convolutions of the gradient too are float32 in full. For functions whose only variable is x.
    """
    if not (torch.is_grad_enabled() and x.requires_grad):
        return function(x)
    return _Slope.apply(function, x)


class _Slope(torch.autograd.Function):
    @staticmethod
    def forward(ctx, function, x):
        with torch.enable_grad():
            ctx.x = x.detach().requires_grad_()
            ctx.values = function(ctx.x)
        return tuple(value.detach() for value in ctx.values)

    @staticmethod
    @torch.autograd.function.once_differentiable
    @plain
    def backward(ctx: Any, *upstream: Any) -> Any:
        return None, torch.autograd.grad(ctx.values, ctx.x, upstream, retain_graph=True)[0]
