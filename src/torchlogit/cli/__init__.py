"""The command line: one file a command, each a thin layer over the Python interface.

To add a command: a file with one function, and a line in `_COMMANDS`.
"""

from __future__ import annotations

import io
import os
import signal
import sys

import typer

from torchlogit._version import __version__
from torchlogit.cli.compare import compare
from torchlogit.cli.demo import demo
from torchlogit.cli.evaluate import evaluate
from torchlogit.cli.explain import explain
from torchlogit.cli.export import export
from torchlogit.cli.fit import fit
from torchlogit.cli.guard import INTERRUPTED, OneSentence, guarded, say
from torchlogit.cli.inspect import inspect
from torchlogit.cli.predict import predict

_COMMANDS = (fit, predict, evaluate, inspect, explain, compare, export, demo)

app = typer.Typer(
    name="torchlogit",
    cls=OneSentence,
    help="Logistic regression you can see through: fit a table, read the certificate, predict.\n\n"
    "Start with: torchlogit demo",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in _COMMANDS:
    app.command(name=_command.__name__)(guarded(_command))


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"torchlogit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command line; exits with 0 (fine), 2 (bad input or usage) or 130 (interrupted)."""
    for name in ("stdout", "stderr"):  # closed by whoever called
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 -- as long-lived as the process
    for stream in (sys.stdout, sys.stderr):  # an old terminal gets \\u20ac for what it cannot show, not a traceback
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except KeyboardInterrupt:
        say("interrupted; nothing was written")
        sys.exit(INTERRUPTED)
    finally:
        # All that is left to interrupt is the interpreter's own end, which would answer with a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
