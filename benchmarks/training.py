"""`train` against the usual loop over a DataLoader, on the same rows, in one process, taking turns.

    python benchmarks/training.py [--rows 1000000] [--threads 2] [--repeats 5] [--write]

Both run one epoch of SGD on float32 rows in batches of 1,024 and read the loss at every step. The loss after the epoch
says that they did the same work.
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
import sys
import time
from functools import partial

from fit import RESULTS, machine


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true", help=f"append to {RESULTS.name}")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    from torchlogit import LogisticModule, train

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    X = torch.randn(options.rows, options.columns)
    y = (X @ torch.randn(options.columns) + torch.randn(options.rows) > 0).float()[:, None]
    criterion = nn.BCEWithLogitsLoss()

    def ours() -> nn.Module:
        model = LogisticModule(options.columns)
        train(model, X, y, optimizer=partial(torch.optim.SGD, lr=0.1), epochs=1, batch_size=options.batch_size)
        return model

    def theirs() -> nn.Module:
        model = nn.Linear(options.columns, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        losses = []
        for rows, labels in DataLoader(TensorDataset(X, y), batch_size=options.batch_size, shuffle=True):
            loss = criterion(model(rows), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return model

    for warm in (ours, theirs):  # imports that torch does on first use
        few, X, y = (X, y), X[:5000], y[:5000]
        warm()
        X, y = few
    seconds: dict[str, list[float]] = {"train": [], "DataLoader loop": []}
    for _ in range(options.repeats):
        for name, run in (("train", ours), ("DataLoader loop", theirs)):
            began = time.perf_counter()
            model = run()
            seconds[name].append(time.perf_counter() - began)
            with torch.no_grad():
                loss = float(criterion(model(X), y))
            print(f"{name:16s} {seconds[name][-1]:8.3f} s   loss after the epoch {loss:.5f}", flush=True)
    ratio = statistics.median(b / a for a, b in zip(*seconds.values(), strict=True))
    lines = [
        f"## {datetime.date.today().isoformat()}, one epoch of training",
        "",
        *machine(options.threads),
        f"- {options.rows:,} x {options.columns} float32, SGD, batches of {options.batch_size}, loss read at each step",
        "",
        "| loop | median s | range s | times torchlogit's (median of ratios) |",
        "| --- | --- | --- | --- |",
    ]
    for name, shown in (("train", "1.0"), ("DataLoader loop", f"{ratio:.1f}")):
        times = seconds[name]
        lines.append(f"| {name} | {statistics.median(times):.3f} | {min(times):.3f} to {max(times):.3f} | {shown} |")
    print("\n".join(lines))
    if options.write:
        old = RESULTS.read_text(encoding="utf-8").rstrip()
        RESULTS.write_text(old + "\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
