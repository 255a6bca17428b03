"""`hrm COMMAND ...`: one table of commands; bad input is one sentence and exit status 2."""

from __future__ import annotations

import errno
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version

from hrm import launch
from hrm.errors import UserError, nearest

COMMANDS = {
    "demo": "prepare, train, evaluate and solve 4x4 Sudoku in about a minute",
    "prepare": "make a data set",
    "train": "train a model (settings are key=value)",
    "evaluate": "figures of a trained model on held-out puzzles",
    "solve": "solve puzzles and show every step",
    "export": "write a trained model as a folder with a model card, or put it on the hub",
    "calibrate": "choose when a trained model halts: fewest steps for a loss allowed",
    "compare": "run the series of training modes and encoders, and write a report",
    "diagnose": "residuals by cycle, and truncated against whole gradients",
    "bench": "updates and served puzzles a second, beside what the machine can do",
}
"""Each command is `hrm.commands.NAME.run(arguments)`, imported when it is called."""


Command = Callable[[list[str]], int]


def usage() -> str:
    """The table of commands."""
    lines = [f"  hrm {name:9} {gloss}" for name, gloss in COMMANDS.items()]
    return "\n".join(
        [
            "usage: hrm COMMAND ... (hrm COMMAND --help shows an example)",
            "",
            *lines,
            "",
            "example: hrm train experiment=sudoku_4x4 out=runs/four && hrm evaluate runs/four",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if given else 2
    if given[0] == "--version":
        print(f"hrm {version('hrm')}")
        return 0
    name, *rest = given
    if name not in COMMANDS:
        return _fail(f"{name}: no such command{nearest(name, COMMANDS)}")
    return guarded(lambda words: _command(name)(words), rest)


def _command(name: str) -> Command:
    function: Command = import_module(f"hrm.commands.{name}").run
    return function


def guarded(command: Command, arguments: list[str]) -> int:
    """Call a command; what goes wrong is one sentence on standard error and an exit status.

    Of several processes (torchrun) the first one speaks.
    """
    try:
        with launch.first_speaks(), warnings.catch_warnings():
            warnings.showwarning = _show_warning
            warnings.filterwarnings("always", category=UserWarning, module=r"hrm\.")
            status = command(arguments)
        if status:
            launch.await_first()
        return status
    except SystemExit as done:  # argparse, after --help
        return int(done.code or 0)
    except UserError as error:
        return _fail(str(error))
    except BrokenPipeError:  # The reader of a pipe, as in `hrm ... | head`, has seen enough.
        sys.stderr.close()
        return 0
    except OSError as error:
        what = error.filename or "a file"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _fail(f"{what}: no room left on the disk")
        return _fail(f"{what}: {(error.strerror or str(error)).lower()}")
    except KeyboardInterrupt:
        if launch.rank() == 0:
            print("hrm: interrupted", file=sys.stderr)
        return 130


def _fail(sentence: str) -> int:
    launch.say_fault(" ".join(sentence.split()))
    return 2


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"hrm: warning: {message}", file=sys.stderr)
