"""The command's first step: what can go wrong before and around it is told in one line, too."""

import logging
import signal
import sys
from typing import NoReturn

INTERRUPTED = "companion: interrupted; finished notebooks are kept"
EXTRAS = dict.fromkeys(("dask_jobqueue", "distributed", "pyarrow"), "sweep")
EXTRAS |= dict.fromkeys(("playwright", "pypdf"), "pdf")  # that bring these; others come with book
EXTRAS |= dict.fromkeys(("starlette", "uvicorn"), "serve")


def main() -> NoReturn:
    """Run `companion` and exit.

    With 2 and one line where a package of an extra is not installed; with 130 and one line after
    Ctrl-C, whenever it comes: while Python still imports, or where the code of a kernel's manager
    turns it into another error.
    """
    interrupted = False

    def interrupt(_signal, _frame):
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    def unraisable(told):
        if isinstance(told.exc_value, KeyboardInterrupt):
            # it came where nothing can be raised, in a destructor, say: soon it comes again
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        else:
            sys.__unraisablehook__(told)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGALRM, interrupt)
        sys.unraisablehook = unraisable
    try:
        from companion.cli import main as command

        command()
    except SystemExit:
        if interrupted:
            logging.disable()  # of tasks that were cut off: nobody is to retrieve their errors
        raise
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(error.name or "", "book")
        needed = f"pip install 'ot-imaging-companion[{extra}]'"
        print(f"companion: needs the package {error.name}: {needed}", file=sys.stderr)
        sys.exit(2)
    except BaseException:
        if not interrupted:
            raise
        logging.disable()
        print(INTERRUPTED, file=sys.stderr)
        sys.exit(130)
