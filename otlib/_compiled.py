"""`passes.cpp` compiled for this processor, where there is a C++ compiler.

Once a process, at first use: it takes a fifth of a second, so that nothing has to be kept, or be
found out to be of another machine, compiler or version.
"""

import ctypes
import functools
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

_SOURCE = Path(__file__).with_name("passes.cpp")
# that no comparison traps lets compilers vectorise the clamp where there is no AVX-512
_FLAGS = ["-O3", "-march=native", "-fno-trapping-math", "-fPIC", "-shared"]
# Apple's compiler has no threads of OpenMP
_FLAGS.append("-fopenmp-simd" if sys.platform == "darwin" else "-fopenmp")


def compiler() -> tuple[list[str], str]:
    """The command of the C++ compiler, and why it cannot be used, or ""."""
    words = shlex.split(os.environ.get("CXX", "")) or ["g++"]  # "ccache g++" runs ccache
    missing = [word for word in words if not word.startswith("-") and not shutil.which(word)]
    return words, f"no C++ compiler ({missing[0]}) on the PATH" if missing else ""


def unavailable() -> str:
    """Why the passes are not compiled on this machine, or "" where they are."""
    found = functions()
    return found if isinstance(found, str) else ""


@functools.cache
def functions() -> Any:
    """The passes by name, on pointers and sizes, or why there are none."""
    words, reason = compiler()
    if reason:
        return reason
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "passes.so"
        command = [*words, *_FLAGS, str(_SOURCE), "-o", str(built)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return _told(f"{shlex.join(words)} failed: {(done.stderr.splitlines() or [''])[0]}")
        try:
            library = ctypes.CDLL(str(built))
        except OSError as error:  # a folder for temporary files from which nothing may be run
            return _told(str(error))
    array, size = ctypes.c_void_p, ctypes.c_int64
    after: dict[str, Any] = {
        "weigh": [ctypes.c_float, *3 * [array]],
        "count": [ctypes.c_float, array],
    }
    after |= {"best": [size, array, array]}
    after |= {"list": [ctypes.c_float, *4 * [array]], "spread": 2 * [array]}
    found = {name: getattr(library, name) for name in after}
    for name, function in found.items():
        function.argtypes = [array, size, size, *after[name], ctypes.c_int]
        function.restype = None
    return found


def _told(reason):
    warnings.warn(f"soft-mins are slower than need be: {reason}", RuntimeWarning, stacklevel=3)
    return reason
