"""The command's first step: say what is missing where only a part of the project was installed."""

import sys


def main():
    """Run `companion`; exit with 2 and one line where a package of an extra is not installed."""
    try:
        from companion.cli import main as command

        command()
    except ModuleNotFoundError as error:
        extra = "sweep" if error.name in ("dask_jobqueue", "distributed", "pyarrow") else "book"
        needed = f"pip install 'ot-imaging-companion[{extra}]'"
        print(f"companion: needs the package {error.name}: {needed}", file=sys.stderr)
        sys.exit(2)
