"""Time to the optimum: torchlogit beside other packages, on the same problems, to the same accuracy.

    python benchmarks/fit.py                                  every workload, the tables on the terminal
    python benchmarks/fit.py --workload digits --workload tfidf
    python benchmarks/fit.py --scale 0.01                     a quick check that everything runs
    python benchmarks/fit.py --write --plot                   also appended to RESULTS.md, drawn to results.png

Every package minimises ``mean log loss + |w|^2 / (2 C n)`` over the same rows. A judge that shares code with none of
them computes the gradient and the excess of their answers in float64; only answers that are good enough are compared.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from peers import PACKAGES, PEERS
from picture import PICTURE, draw
from report import RESULTS, append, heading, keep, kept, machine, results_so_far, section
from suite import Options, measure
from worker import pin
from workloads import WORKLOADS

__all__ = ["RESULTS", "machine", "main"]  # `training.py` writes to the same file


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known, names = list(WORKLOADS), [peer.name for peer in PEERS]
    parser.add_argument("--workload", "--problem", action="append", metavar="NAME", help=f"of {', '.join(known)}")
    parser.add_argument("--peer", action="append", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the size of made data, for a quick check")
    parser.add_argument("--repeats", type=int, default=5, help="timed fits of each, at least 5")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--limit", type=float, default=120.0, metavar="S", help="seconds that a fit may take")
    parser.add_argument("--memory", choices=("torchlogit", "all", "none"), default="torchlogit", help="of whom")
    parser.add_argument("--write", action="store_true", help=f"append to {RESULTS.name}")
    parser.add_argument(
        "--plot",
        type=Path,
        nargs="?",
        const=PICTURE,
        metavar="FILE",
        help=f"draw accuracy against time ({PICTURE.name})",
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FILE", help="append every setting that was tried as JSON; --plot draws all of it"
    )
    options = parser.parse_args()
    if options.repeats < 5:
        parser.error("a median of fewer than 5 is not a measurement")
    if not 0 < options.scale <= 1:
        parser.error("--scale is a share, above 0 and at most 1")
    options.workload, options.peer = options.workload or known, options.peer or names
    for what, asked, there in (("workload", options.workload, known), ("peer", options.peer, names)):
        if unknown := [name for name in asked if name not in there]:
            parser.error(f"no such {what}: {', '.join(unknown)}; there are {', '.join(there)}")
    return options


def main() -> None:
    options = arguments()
    pin(options.threads)  # before anything loads a library that reads it
    lines, old = heading(options.threads), results_so_far()
    print("\n".join(lines), flush=True)
    for package in PACKAGES:
        if not next(peer for peer in PEERS if peer.package == package).installed:
            print(f"{package} is not installed: skipped", flush=True)
    chosen = Options(
        tuple(options.peer), options.scale, options.threads, options.repeats, options.limit, options.memory
    )
    outcomes = []
    for name in options.workload:
        needs = WORKLOADS[name].needs
        if needs is not None and not needs.exists():
            print(f"{name}: {needs.name} is not there: skipped", flush=True)
            continue
        with tempfile.TemporaryDirectory(prefix="torchlogit-bench-", ignore_cleanup_errors=True) as folder:
            outcome = measure(name, Path(folder), chosen, lambda text: print(text, file=sys.stderr, flush=True))
        outcomes.append(outcome)
        found = section(outcome)
        print("\n".join(found), flush=True)
        lines += found
        # After every workload: an interrupted run keeps what it has measured.
        if options.keep:
            keep(outcome, options.keep)
        if options.write:
            append(lines, old)
        if options.plot:
            draw(kept(options.keep) if options.keep else outcomes, options.plot)


if __name__ == "__main__":
    main()
