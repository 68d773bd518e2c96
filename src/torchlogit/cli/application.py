"""Every command under one name, and what the process around it needs."""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import Any

import typer

from torchlogit._version import __version__
from torchlogit.cli.compare import compare
from torchlogit.cli.demo import demo
from torchlogit.cli.evaluate import evaluate
from torchlogit.cli.explain import explain
from torchlogit.cli.export import export
from torchlogit.cli.fit import fit
from torchlogit.cli.guard import OneSentence, exit_code, guarded, interruption, let_go, say, speaks
from torchlogit.cli.inspect import inspect
from torchlogit.cli.plan import plan
from torchlogit.cli.predict import predict
from torchlogit.cli.tour import tour

COMMANDS = (fit, predict, evaluate, inspect, explain, compare, export, plan, demo, tour)

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
for _command in COMMANDS:
    app.command(name=_command.__name__)(guarded(_command, together=_command is fit))


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


def run() -> None:
    """Run the command line; exits with 0 (fine), 2 (bad input or usage), 130 (interrupted) or 143 (terminated)."""
    sys.stdout, sys.stderr = _steady(sys.stdout), _steady(sys.stderr)
    if not speaks():
        let_go(sys.stdout)
    try:
        app()
    except KeyboardInterrupt as interrupt:
        say(interruption(interrupt))
        sys.exit(exit_code(interrupt))
    finally:
        # All that is left to interrupt is the interpreter's own end, which would answer with a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _steady(stream: Any) -> Any:
    """A stream that is open, writes all or fails, and shows \\u20ac where a terminal has no euro sign."""
    if stream is None:  # closed by whoever called
        return open(os.devnull, "w")
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    if isinstance(stream.buffer, io.RawIOBase):  # unbuffered, where a write cut short would pass for a whole one
        encoding, raw = stream.encoding, stream.detach()
        return io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=True)
    stream.reconfigure(errors="backslashreplace")
    return stream
