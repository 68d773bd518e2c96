"""What `torchlogit plan` foretells against what fits take, at several numbers of processes.

    python benchmarks/scaling.py [--rows 1000000] [--columns 50] [--processes 1 2 4] [--repeat 3] [--folder DIR]

Writes a Parquet file once, then prints a table in Markdown. Processes have one thread each; with more of them than
cores (or on a busy machine) seconds are not comparable, so CPU seconds of the busiest process are printed beside.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

_CHUNK = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=50)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--tol", default="1e-10")
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        data = folder / f"scaling-{given.rows}-{given.columns}.parquet"
        if not data.exists():
            write(data, given.rows, given.columns)
        print(f"{data.name}: {data.stat().st_size / 1e6:.0f} MB; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        print("| processes | foretold s | measured s | CPU s | passes foretold | passes | foretold MB | MB | largest |")
        print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
        reference = None
        for world in given.processes:
            foretold = plan(data, world, given.tol)
            runs = [fit(data, world, given.tol, folder) for _ in range(given.repeat)]
            median = sorted(runs, key=lambda run: run["seconds_total"])[len(runs) // 2]
            own = coefficients(folder / "model.safetensors")
            reference = own if reference is None else reference
            cpu = statistics.median(run["cpu"] for run in runs)
            print(
                f"| {world} | {foretold['seconds']:.2f} | {median['seconds_total']:.2f} | {cpu:.2f} | "
                f"{foretold['passes']:.0f} | {median['passes']:.1f} | {foretold['memory'] / 1e6:.0f} | "
                f"{median['memory'] / 1e6:.0f} | {np.abs(own - reference).max():.1e} |",
                flush=True,
            )


def write(path: Path, rows: int, columns: int) -> None:
    truth = np.random.default_rng(99).normal(size=columns) / 4
    writer = None
    for number in range(-(-rows // _CHUNK)):
        rng = np.random.default_rng(number)
        X = rng.standard_normal((min(_CHUNK, rows - number * _CHUNK), columns), dtype=np.float32)
        label = (rng.random(len(X)) < 1 / (1 + np.exp(-(X @ truth - 1)))).astype(np.int8)
        table = pa.table({**{f"x{j}": X[:, j] for j in range(columns)}, "label": label})
        writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema, compression="none", use_dictionary=False)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def plan(data: Path, world: int, tol: str) -> dict:
    options = ["plan", str(data), "--target", "label", "--tol", tol, "--processes", str(world), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "torchlogit", *options], env=environment({}), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def fit(data: Path, world: int, tol: str, folder: Path) -> dict:
    """What the first process prints, with the peak memory and CPU seconds of the one that has most."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    model, processes = folder / "model.safetensors", []
    options = ["fit", str(data), "--target", "label", "--tol", tol, "-o", str(model), "--json"]
    for rank in range(world):
        more = {"RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        processes.append(
            subprocess.Popen(
                [sys.executable, __file__, "--worker", str(folder / f"used-{rank}"), *options],
                env=environment({name: str(value) for name, value in more.items()} if world > 1 else {}),
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    out = [process.communicate()[0] for process in processes]
    assert all(process.returncode == 0 for process in processes)
    used = [json.loads((folder / f"used-{rank}").read_text()) for rank in range(world)]
    most = {name: max(one[name] for one in used) for name in ("memory", "cpu")}
    return {**json.loads(out[0]), **most}


def worker(used: str, options: list[str]) -> None:
    """The command line; what it uses beyond the interpreter with its libraries is written down."""
    import atexit

    import torchlogit.cli.workflow  # noqa: F401 -- so that it counts as the interpreter

    def peak() -> int:
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before, began = peak(), time.process_time()
    atexit.register(
        lambda: Path(used).write_text(json.dumps({"memory": peak() - before, "cpu": time.process_time() - began}))
    )
    from torchlogit.cli import main as command

    sys.argv[1:] = options
    command()


def coefficients(path: Path) -> np.ndarray:
    from torchlogit import load

    model = load(path)
    return np.append(model[-1].coef_[0], model[-1].intercept_)


def environment(more: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2], sys.argv[3:])
    else:
        main()
