"""``torchlogit tour``: the guided tour, in the browser."""

from __future__ import annotations

import os
import socket
import sys
import threading
import webbrowser
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

_HOST = "127.0.0.1"


def tour(
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to serve at; 0 takes a free one.")] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address, and open nothing.")] = False,
) -> None:
    """Take the guided tour, six chapters in the browser.

    Every number is computed as you move a slider. The page is served to this machine alone, and asks nothing of any
    other. Ctrl-C ends it.

    \b
    Examples:
      torchlogit tour
      torchlogit tour --port 8090 --no-browser
    """
    from torchlogit.errors import InputError

    if find_spec("marimo") is None:
        raise InputError('the tour needs marimo, which is not installed; install it: pip install "torchlogit[tour]"')
    with socket.socket() as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((_HOST, port))
            door.listen()  # who opens the address at once waits, and is not refused
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise InputError(f"port {port} cannot be used ({reason}); name another with --port") from None
        _serve(door, f"http://{_HOST}:{door.getsockname()[1]}/", no_browser)


def _serve(door: socket.socket, address: str, no_browser: bool) -> None:
    """Until Ctrl-C."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(_app(), log_level="error", lifespan="on", timeout_graceful_shutdown=1))
    typer.echo(f"The tour is at {address} (Ctrl-C ends it).")
    if not no_browser:
        opening = threading.Timer(0.5, webbrowser.open, [address])
        opening.daemon = True
        opening.start()
    with suppress(KeyboardInterrupt):  # which is how a tour ends
        server.run(sockets=[door])
    typer.echo("The tour has ended.")
    sys.stdout.flush()
    os._exit(0)  # the threads in which marimo computes wait for pages to come back, and would keep the process


def _app() -> Any:
    import marimo

    from torchlogit import tour as package

    folder = Path(package.__path__[0])
    script = (folder / "tour.js").read_text(encoding="utf-8")
    pages = marimo.create_asgi_app(quiet=True, html_head=f"<script>{script}</script>")
    return pages.with_app(path="", root=str(folder / "app.py")).build()
