"""One CUDA device: how fast a gradient is, how long a certified optimum takes, and whether it is the CPU's.

    python benchmarks/gpu.py                     needs a CUDA device, and says so where there is none
    python benchmarks/gpu.py --write             also appended to RESULTS.md
    python benchmarks/gpu.py --device cpu --scale 0.001      a check of this program, not a measurement

1. The optimum of a smaller problem, on the device and on the CPU: the largest difference of a probability.
2. The kernels of two classes against the reference, row by row on the CPU: the largest relative differences, at
   extremes too, and whether a second run gives the same bits. A fit whose rows leave the device nowhere.
3. One gradient of 2.4 to 4 GB of rows, narrow and wide, against a copy of the same bytes within the device; what
   rounding in float32 products leaves of it; a whole fit of those rows.
4. Ten and a hundred classes, few rows: a device is not only for the largest problems.
5. 1,281,167 x 768 float32 with 1,000 classes to torchlogit's certificate; a judge written out here checks it.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from report import RESULTS, append, machine, results_so_far

# Both fits go far beyond the default: what a certificate of 1e-6 leaves of a probability is 2e-5 itself (ten classes).
AGREEMENT, TIGHT = 1e-6, 1e-8
BLOCK_ELEMENTS = 1 << 27


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--scale", type=float, default=1.0, help="share of rows (and, by its root, of classes)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--C", type=float, default=1.0)
    parser.add_argument("--tol", type=float, default=1e-6)
    parser.add_argument("--write", action="store_true", help=f"append to {RESULTS.name}")
    return parser.parse_args()


# -- the clock and the memory of a device -----------------------------------------------------------------------------


def settled(device: Any) -> float:
    """The time when all that was asked of the device is done."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def median_seconds(device: Any, call: Callable[[], Any], repeats: int) -> float:
    call()
    found = []
    for _ in range(repeats):
        start = settled(device)
        call()
        found.append(settled(device) - start)
    return statistics.median(found)


def fresh(device: Any) -> int:
    """Forget the peak; bytes that are held now."""
    import torch

    gc.collect()
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return int(torch.cuda.memory_allocated(device))


def peak(device: Any) -> int | None:
    import torch

    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else None


# -- rows, made where they live ---------------------------------------------------------------------------------------


def binary(rows: int, columns: int, device: Any) -> tuple[Any, Any]:
    import torch

    draw = torch.Generator(device).manual_seed(0)
    X = torch.randn(rows, columns, generator=draw, device=device)
    w = 3 * torch.randn(columns, generator=draw, device=device) / columns**0.5
    y = torch.rand(rows, generator=draw, device=device) < torch.sigmoid(X @ w - 0.5)
    return X, y.long()


def classes(rows: int, columns: int, number: int, device: Any) -> tuple[Any, Any]:
    """As a network's last layer: a decaying spectrum, overlapping classes, rows of length one."""
    import torch

    draw = torch.Generator(device).manual_seed(1)
    spectrum = 1 / torch.arange(1, columns + 1, device=device) ** 0.5
    y = torch.randint(number, (rows,), generator=draw, device=device)
    y[:number] = torch.arange(number, device=device)
    centres = torch.randn(number, columns, generator=draw, device=device)
    X = torch.randn(rows, columns, generator=draw, device=device)
    for part in torch.arange(rows, device=device).split(max(1, BLOCK_ELEMENTS // columns)):
        X[part] = torch.nn.functional.normalize((X[part] + centres[y[part]]) * spectrum, dim=1)
    return X, y


# -- the judge --------------------------------------------------------------------------------------------------------


def judged(X: Any, y: Any, C: float, coef: Any, intercept: Any) -> tuple[float, float, float]:
    """Objective, and the largest slope in raw and in centred, standardised units: float64, block by block."""
    import torch

    n, device = len(y), X.device
    coef, intercept = (torch.as_tensor(part, dtype=torch.float64, device=device) for part in (coef, intercept))
    steps = range(0, n, max(1, BLOCK_ELEMENTS // 8 // max(X.shape[1], len(intercept))))
    blocks = [slice(start, start + steps.step) for start in steps]
    mean = sum(X[block].double().sum(0) for block in blocks) / n
    spread = (sum(((X[block].double() - mean) ** 2).sum(0) for block in blocks) / n).sqrt()
    loss, level, slope = 0.0, torch.zeros_like(intercept), torch.zeros_like(coef)
    for block in blocks:
        rows = X[block].double()
        eta = rows @ coef.T + intercept
        if len(intercept) == 1:
            target = y[block, None].double()
            loss += float(torch.nn.functional.softplus(-eta * (2 * target - 1), threshold=1e4).sum())
            residual = torch.sigmoid(eta) - target
        else:
            loss += float(torch.nn.functional.cross_entropy(eta, y[block], reduction="sum"))
            residual = torch.softmax(eta, 1)
            residual[torch.arange(len(rows), device=device), y[block]] -= 1
        level += residual.sum(0) / n
        slope += residual.T @ (rows - mean) / n
    penalty = coef / (C * n)
    raw = (slope + level[:, None] * mean + penalty).abs().max()
    standardised = ((slope + penalty) / torch.where(spread > 0, spread, mean.abs().clamp(min=1))).abs().max()
    free = level.abs().max()
    value = loss / n + float((coef**2).sum()) / (2 * C * n)
    return value, float(torch.maximum(raw, free)), float(torch.maximum(standardised, free))


# -- the questions ----------------------------------------------------------------------------------------------


def agreement(device: Any, options: argparse.Namespace) -> list[str]:
    """The device against the CPU, on problems that both can do."""
    import torch

    from torchlogit import LogisticRegression

    found = [
        f"| problem, tol={TIGHT:g} | largest difference of a probability | at most {AGREEMENT:g} | certified on both |",
        "|" + " --- |" * 4,
    ]
    n = max(1000, int(20_000 * options.scale))
    made = {
        f"{n:,} x 50": binary(n, 50, torch.device("cpu")),
        f"{n:,} x 64, 10 classes": classes(n, 64, 10, torch.device("cpu")),
    }
    for title, (rows, y) in made.items():
        for dtype in (torch.float32, torch.float64):
            X = rows.to(dtype)
            here = LogisticRegression(C=options.C, tol=TIGHT).fit(X, y)
            there = LogisticRegression(C=options.C, tol=TIGHT).fit(X.to(device), y.to(device))
            apart = float((here.predict_proba(X) - there.predict_proba(X.to(device)).cpu()).abs().max())
            found.append(
                f"| {title}, {str(dtype).removeprefix('torch.')} | {apart:.1e} "
                f"| {'yes' if apart <= AGREEMENT else 'NO'} "
                f"| {'yes' if here.converged_ and there.converged_ else 'NO'} |"
            )
    return found


def kernels(device: Any, options: argparse.Namespace) -> list[str]:
    """Torch and Triton against the reference, on rows few enough for it."""
    import torch

    from torchlogit.kernels import KERNELS
    from torchlogit.losses import Binomial
    from torchlogit.problem import Block, Frame

    found = ["| rows | kernel | products | loss | gradient | margin | product | same bits |", "|" + " --- |" * 8]
    draw = torch.Generator().manual_seed(2)
    for rows, columns, reach in ((700, 1, 1.0), (500, 100, 1.0), (64, 1000, 1.0), (20, 3000, 1.0), (300, 8, 1e4)):
        for stored in (torch.float32, torch.float64):
            X = (torch.randn(rows, columns, generator=draw) * 2 + 30).to(stored)
            theta = torch.randn(2, 1, columns + 1, generator=draw).double() * reach / columns**0.5
            weight = torch.randint(0, 3, (rows,), generator=draw).double()
            block = Block(torch.randint(0, 2, (rows,), generator=draw), dense=X, weight=weight)
            frame = Frame(torch.full((columns,), 30.0).double(), torch.full((columns,), 2.0).double())
            truth = KERNELS["reference"](Binomial(), frame).curvature_product(block, theta, theta.flip(0))
            there = Block(block.target.to(device), dense=X.to(device), weight=weight.to(device))
            for name in ("torch", "triton"):
                for dtype in (torch.float32, torch.float64):
                    kernel, point = KERNELS[name](Binomial(), frame.to(device), dtype), theta.to(device)
                    left = name == "triton" and not kernel._takes(there, point)
                    fields = ("loss", "gradient", "margin")
                    # Both points together, then each alone: these are other loops.
                    runs = [[kernel.value_gradient(there, at) for at in (point, *point.split(1))] for _ in range(2)]
                    product = kernel.curvature_product(there, point, point.flip(0)).product
                    apart = [
                        max(
                            _apart(getattr(run, field), getattr(truth, field)[part])
                            for run, part in zip(runs[0], (slice(None), slice(1), slice(1, 2)), strict=True)
                        )
                        for field in fields
                    ]
                    apart.append(_apart(product, truth.product))
                    same = all(
                        torch.equal(getattr(one, field), getattr(other, field))
                        for one, other in zip(*runs, strict=True)
                        for field in fields
                    )
                    found.append(
                        f"| {rows} x {columns} {str(stored).removeprefix('torch.')}, reach {reach:g} "
                        f"| {'triton, which left them to torch' if left else name} "
                        f"| {str(dtype).removeprefix('torch.')} | {' | '.join(f'{value:.1e}' for value in apart)} "
                        f"| {'yes' if same else 'NO'} |"
                    )
    return [*found, "", *copies(device, options)]


def _apart(mine: Any, truth: Any) -> float:
    """The largest difference, over the largest number."""
    return float((mine.cpu() - truth).abs().max() / truth.abs().max().clamp(min=1e-300))


def copies(device: Any, options: argparse.Namespace) -> list[str]:
    """What a fit moves between the device and its host, by the profiler."""
    from torch.profiler import ProfilerActivity, profile

    from torchlogit import LogisticRegression

    if device.type != "cuda":
        return ["Copies between device and host: not measured, there is no CUDA device."]
    X, y = binary(max(1000, int(1_000_000 * options.scale)), 100, device)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        model = LogisticRegression(C=options.C, tol=options.tol).fit(X, y)
    moved = [event for event in seen.events() if event.name.startswith(("Memcpy DtoH", "Memcpy HtoD"))]
    longest = max((event.device_time for event in moved), default=0.0)
    return [
        f"A fit of {X.shape[0]:,} x {X.shape[1]} float32 (kernel {model.plan_.kernel}: {model.plan_.kernel_reason}) "
        f"made {len(moved)} copies between device and host, the longest of {longest:.0f} microseconds; X itself, "
        f"{X.nbytes / 1e6:.0f} MB, would take at least {X.nbytes / 64e9 * 1e6:.0f} at 64 GB/s.",
    ]


def bandwidth(device: Any, options: argparse.Namespace) -> list[str]:
    """Loss and gradient at a point, as a fit computes them, against moving the same bytes; a fit of the same rows."""
    import torch

    found = [
        "| rows | kernel | one gradient ms | GB/s (X once) | a copy GB/s (read and written) | torch.sum(X) GB/s "
        "| share of the copy's speed | MB above what is held | gradient off by | value off by |",
        "|" + " --- |" * 10,
    ]
    fits = []
    for rows, columns, dtype in (
        (10_000_000, 100, torch.float32),
        (30_000_000, 20, torch.float32),
        (1_000_000, 1000, torch.float32),
        (5_000_000, 100, torch.float64),
    ):
        X, y = binary(max(1000, int(rows * options.scale)), columns, device)
        gradient, fit = _moved(X.to(dtype), y, options)
        found.append(gradient)
        fits.append(fit)
    return [*found, "", "(Off by: against the products in float64.)", "", *fits]


def _moved(X: Any, y: Any, options: argparse.Namespace) -> tuple[str, str]:
    import torch

    from torchlogit import LogisticRegression
    from torchlogit.kernels import KERNELS
    from torchlogit.preparation import prepare

    device, title = X.device, f"{X.shape[0]:,} x {X.shape[1]} {str(X.dtype).removeprefix('torch.')}"
    model = LogisticRegression(C=options.C, tol=options.tol)
    objective = prepare(model, X, y, None, None).begin(model).objective
    point = objective.zeros() + 0.01
    held = fresh(device)
    with torch.no_grad():
        seconds = median_seconds(
            device, lambda: objective.value_gradient(point, objective.all_lanes()), options.repeats
        )
    above = peak(device)
    with torch.no_grad():
        exact = objective.on(objective.source, KERNELS["torch"](objective.kernel.loss, objective.kernel.frame))
        mine, truth = (own.value_gradient(point, own.all_lanes()) for own in (objective, exact))
    off = float((mine.gradient - truth.gradient).abs().max()), float((mine.value - truth.value).abs().max())
    fits = []
    for _ in range(3):
        start = settled(device)
        fitted = LogisticRegression(C=options.C, tol=options.tol).fit(X, y)
        fits.append(settled(device) - start)
    judgement = judged(X, y, options.C, fitted.coef_, fitted.intercept_)
    copy = torch.empty_like(X)
    copying = median_seconds(device, lambda: copy.copy_(X), options.repeats)
    reading = median_seconds(device, X.sum, options.repeats)
    size = X.nbytes
    return (
        f"| {title} | {type(objective.kernel).__name__} | {seconds * 1e3:.3g} | {size / seconds / 1e9:.0f} "
        f"| {2 * size / copying / 1e9:.0f} | {size / reading / 1e9:.0f} | {size / seconds / (2 * size / copying):.0%} "
        f"| {'not measured' if above is None else f'{(above - held) / 1e6:,.0f}'} | {off[0]:.1e} | {off[1]:.1e} |",
        f"- {title}, {size / 1e9:.2f} GB, a fit (tol={options.tol:g}): {statistics.median(fits):.3f} s, median of "
        f"{len(fits)}, {fitted.trace_[-1]['passes']:.1f} passes; {fitted.status_} The judge says: gradient "
        f"{judgement[2]:.1e} in standardised units (torchlogit: {fitted.kkt_:.1e}).",
    )


def fewer_classes(device: Any, options: argparse.Namespace) -> list[str]:
    """Problems of many classes that a CPU does in seconds: a device must not be slower."""
    import torch

    from torchlogit import LogisticRegression

    found = [
        "| rows, classes | s, median of three | passes | steps | certified | the judge's gradient, standardised |",
        "|" + " --- |" * 6,
    ]
    for rows, columns, number, dtype in (
        (10_000, 50, 10, torch.float32),
        (10_000, 784, 10, torch.float32),
        (20_000, 512, 100, torch.float32),
        (20_000, 512, 100, torch.float64),
    ):
        X, y = classes(max(1000, int(rows * options.scale)), columns, number, device)
        X, model = X.to(dtype), LogisticRegression(C=options.C, tol=options.tol)
        seconds = median_seconds(device, partial(model.fit, X, y), 3)
        _, _, slope = judged(X, y, options.C, model.coef_, model.intercept_)
        found.append(
            f"| {X.shape[0]:,} x {columns} {str(dtype).removeprefix('torch.')}, {number} | "
            f"{seconds:.3f} | {model.trace_[-1]['passes']:.1f} | {int(model.n_iter_[0])} "
            f"| {'yes' if model.converged_ else 'NO'} | {slope:.1e} |"
        )
    return found


def optimum(device: Any, options: argparse.Namespace) -> list[str]:
    """A thousand classes to the certificate."""
    from torchlogit import LogisticRegression

    number = max(5, int(1000 * options.scale**0.5))
    X, y = classes(max(2000, int(1_281_167 * options.scale)), 768, number, device)
    LogisticRegression(C=options.C, max_iter=2).fit(X[:2000], y[:2000] % 5)  # what a device does on first use
    held = fresh(device)
    start = settled(device)
    model = LogisticRegression(C=options.C, tol=options.tol).fit(X, y)
    seconds = settled(device) - start
    above = peak(device)
    value, raw, standardised = judged(X, y, options.C, model.coef_, model.intercept_)
    return [
        f"{X.shape[0]:,} x {X.shape[1]} float32, {number} classes, C={options.C:g}, tol={options.tol:g}, one fit:",
        "",
        f"- {seconds:.1f} s, {model.trace_[-1]['passes']:.1f} passes, {int(model.n_iter_[0])} steps; {model.status_}",
        f"- torchlogit says: kkt {model.kkt_:.1e}, excess {model.excess_:.1e}, objective {model.objective_:.9g}",
        f"- the judge says: gradient {standardised:.1e} in standardised units, {raw:.1e} in raw ones, "
        f"objective {value:.9g}",
        "- peak memory above X and y: "
        + ("not measured" if above is None else f"{(above - held) / 1e9:.2f} GB, X is {X.nbytes / 1e9:.2f} GB"),
        f"- {model.plan_.solver}, {model.plan_.preconditioner}; start from {model.plan_.warm_rows:,} sampled rows",
    ]


def main() -> None:
    options = arguments()
    import torch

    warnings.simplefilter("ignore")  # the tables say what converged
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("There is no GPU here (torch.cuda.is_available() is False): nothing was measured.")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
    lines = [f"## {datetime.date.today().isoformat()}, {name}", "", *machine(torch.get_num_threads())]
    lines.append(f"- device: {name}, CUDA {torch.version.cuda}, float32 products: "
                 f"{torch.get_float32_matmul_precision()}")  # fmt: skip
    if options.scale != 1 or device.type != "cuda":
        lines.append("- a check of the program, not a measurement")
    print("\n".join(lines), flush=True)
    old = results_so_far()
    parts = {
        "The same answer": agreement,
        "Kernels": kernels,
        "Bandwidth": bandwidth,
        "Many classes": fewer_classes,
        "A thousand classes": optimum,
    }
    for title, part in parts.items():
        found = ["", f"### {title}", "", *part(device, options)]
        print("\n".join(found), flush=True)
        lines += found
        fresh(device)
        if options.write:
            append(lines, old)


if __name__ == "__main__":
    main()
