"""The command line in this process, which spares every test the import of torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from typer.testing import CliRunner

from torchlogit.cli.application import app


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on standard output."""
        assert self.out.count("\n") == 1
        assert self.out.endswith("}\n")
        assert not self.err
        return json.loads(self.out)

    @property
    def sentence(self) -> str:
        """The one sentence on standard error."""
        assert self.code == 2, (self.code, self.out, self.err)
        assert self.err.startswith("torchlogit: ")
        assert self.err.count("\n") == 1
        assert self.err.endswith("\n")
        text = self.err.removeprefix("torchlogit: ").strip()
        assert not text.endswith(".")
        assert "Traceback" not in text
        return text


def run(*arguments: object) -> Outcome:
    """``torchlogit`` with these arguments; whatever is raised but an exit is raised here."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def fine(*arguments: object) -> Outcome:
    """`run` where all must go well."""
    outcome = run(*arguments)
    assert (outcome.code, outcome.err) == (0, ""), outcome
    return outcome


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}


def process(*arguments: object, code: str | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """``python -m torchlogit`` (or other code) in a process of its own."""
    start = ["-m", "torchlogit"] if code is None else ["-c", code]
    command = [sys.executable, *start, *map(str, arguments)]
    options = {"env": ENVIRONMENT, "capture_output": True, "timeout": 120, **options}
    return subprocess.run(command, text=True, check=False, **options)
