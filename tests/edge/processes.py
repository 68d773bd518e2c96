"""Real processes that fit together, as a launcher would start them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

_SOURCE = Path(__file__).parents[2] / "src"
_WORKER = Path(__file__).with_name("processes_worker.py")


def launched(world: int, *arguments: object, timeout: float = 120) -> list[subprocess.CompletedProcess[str]]:
    """Run the worker in so many processes; what each has printed, and how it has ended, by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(world):
        given = {"RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = environment_of({name: str(value) for name, value in given.items()})
        command = [sys.executable, "-W", "error", str(_WORKER), *(str(argument) for argument in arguments)]
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
    ended = []
    try:
        for process in started:
            out, err = process.communicate(timeout=timeout)
            ended.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
                process.communicate()
    return ended


def torchrun(world: int, *arguments: object, restarts: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the worker under torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
    command += ["--max-restarts", str(restarts), str(_WORKER), *(str(argument) for argument in arguments)]
    return subprocess.run(command, env=environment_of({}), capture_output=True, text=True, timeout=180, check=False)


def environment_of(more: dict[str, str]) -> dict[str, str]:
    """One thread each, and the package under test."""
    path = os.pathsep.join([str(_SOURCE), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **more}
