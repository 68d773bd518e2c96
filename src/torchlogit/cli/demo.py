"""``torchlogit demo``: the story in a minute, from a hand-written loop to a model file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console
    from torch import Tensor

_EPOCHS, _RATE = 100, 0.01


def demo(
    folder: Annotated[
        Path,
        typer.Option("--folder", metavar="DIR", readable=False, help="Where the table, the model and the picture go."),
    ] = Path("torchlogit-demo"),
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", readable=False, help="Where the report goes, else into the folder."),
    ] = None,
) -> None:
    """Tell the whole story in a minute, on built-in data.

    \b
    Examples:
      torchlogit demo
    """
    from torchlogit.cli.show import console

    out = console()
    out.print("torchlogit: logistic regression you can see through")
    X, y = _points()
    _engine_room(out, X, y)
    _easy_buttons(out, X, y)
    _real_thing(out, folder, report or folder / "demo.html")


def _heading(out: Console, text: str) -> None:
    out.print(f"\n{text}\n{'-' * len(text)}")


def _points() -> tuple[Tensor, Tensor]:
    import torch
    from sklearn.datasets import make_blobs

    points, labels = make_blobs(n_samples=1000, centers=2, n_features=2, random_state=42)
    return torch.tensor(points, dtype=torch.float32), torch.tensor(labels, dtype=torch.float32)[:, None]


# -- 1. the loop ----------------------------------------------------------------------------------------------------


def _engine_room(out: Console, X: Tensor, y: Tensor) -> None:
    import torch

    _heading(out, "1. The engine room: a training loop in PyTorch, every step by hand")
    out.print(f"{X.shape[0]:,} points with {X.shape[1]} coordinates ({X.dtype}), a column of labels {tuple(y.shape)}")
    out.print(f"one linear layer, binary cross-entropy, SGD at {_RATE}, {_EPOCHS} epochs\n")
    torch.manual_seed(42)
    layer = torch.nn.Linear(2, 1)
    criterion = torch.nn.BCELoss()
    optimizer = torch.optim.SGD(layer.parameters(), lr=_RATE)
    began = time.perf_counter()
    for epoch in range(1, _EPOCHS + 1):
        probability = torch.sigmoid(layer(X))  # forward
        loss = criterion(probability, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()  # update
        if epoch % 10 == 0:
            out.print(f"epoch {epoch:3d}  loss {loss.item():.4f}")
    seconds = time.perf_counter() - began
    with torch.no_grad():
        accuracy = float(((torch.sigmoid(layer(X)) >= 0.5) == y.bool()).double().mean())
    out.print(f"\naccuracy at 0.5: {accuracy:.4f}, in {seconds:.2f} s. The loss still falls: this is not the optimum.")
    _same_loop(out, X, y, loss.item())


def _same_loop(out: Console, X: Tensor, y: Tensor, last: float) -> None:
    from functools import partial

    import torch

    from torchlogit import LogisticModule, train

    torch.manual_seed(42)
    model = LogisticModule(2)
    trace = train(model, X, y, optimizer=partial(torch.optim.SGD, lr=_RATE), epochs=_EPOCHS)
    out.print(
        "\ntrace = train(LogisticModule(2), X, y, optimizer=partial(SGD, lr=0.01), epochs=100) is that loop:\n"
        f"its last loss is {trace[_EPOCHS - 1]['objective']:.4f} (by hand {last:.4f}), and each of its "
        f"{len(trace)} records holds loss, gradient, coefficients and time."
    )


# -- 2. the easy buttons --------------------------------------------------------------------------------------------


def _easy_buttons(out: Console, X: Tensor, y: Tensor) -> None:
    from sklearn.linear_model import LogisticRegression as Peer

    from torchlogit import LogisticRegression
    from torchlogit.cli.show import table

    _heading(out, "2. The easy buttons: scikit-learn and torchlogit on the same points")
    points, labels = X.numpy(), y.numpy()[:, 0].astype(int)
    rows = []
    for name, model in (("scikit-learn", Peer()), ("torchlogit", LogisticRegression())):
        model.fit(points[:10], labels[:10])  # imports are nobody's fit
        began = time.perf_counter()
        model.fit(points, labels)
        seconds = time.perf_counter() - began
        rows.append((name, *_described(model, points, labels), f"{1e3 * seconds:.1f} ms"))
    columns = ["", "coefficients", "intercept", "log loss", "objective", "accuracy", "time"]
    out.print(table(columns, rows, numeric=range(1, 7)))
    out.print("(the objective is the log loss plus the penalty, |w|^2 / 2,000 here: both minimise that)")
    out.print(f"\n{model.status_} kkt {model.kkt_:.1e}, excess {model.excess_:.1e}")
    out.print(repr(model.plan_))


def _described(model: Any, X: NDArray[np.float32], y: NDArray[np.int64]) -> tuple[str, str, str, str, str]:
    from sklearn.metrics import log_loss

    coefficients = "  ".join(f"{value:.5f}" for value in model.coef_[0])
    loss = log_loss(y, model.predict_proba(X.astype("float64")))
    objective = loss + float((model.coef_.astype("float64") ** 2).sum()) / (2 * model.C * y.size)
    return coefficients, f"{model.intercept_[0]:.5f}", f"{loss:.6f}", f"{objective:.7f}", f"{model.score(X, y):.4f}"


# -- 3. a table -----------------------------------------------------------------------------------------------------


def _real_thing(out: Console, folder: Path, report: Path) -> None:
    from torchlogit.cli.fit import fit
    from torchlogit.cli.predict import predict

    _heading(out, "3. The real thing: from a table to a model file, predictions and a picture")
    folder.mkdir(parents=True, exist_ok=True)
    table, model = folder / "breast_cancer.csv", folder / "model.safetensors"
    predictions, picture = folder / "predictions.csv", folder / "picture.png"
    _write_table(table)
    out.print(f"$ torchlogit fit {table} --target diagnosis -o {model}\n")
    fit([str(table)], target="diagnosis", output=model)
    out.print(f"\n$ torchlogit predict {model} {table} -o {predictions}\n")
    predict(model, [str(table)], output=predictions)
    _draw(model, table, picture)
    out.print(f"\nthe picture: {picture}")
    _report(model, table, report)
    out.print(f"\nNow yours:\n  torchlogit fit YOUR.csv --target COLUMN\n  torchlogit explain {model} {table} --row 0")
    out.print(f"\nthe report, for a browser: {report}")


def _report(model: Path, table: Path, page: Path) -> None:
    from torchlogit import load, scan
    from torchlogit.cli.guard import will_write
    from torchlogit.report import write_report

    will_write(page)
    write_report(load(model), page, scan(table, target="diagnosis"), training_rows=True)


def _write_table(path: Path) -> None:
    from sklearn.datasets import load_breast_cancer

    from torchlogit.cli.guard import will_write
    from torchlogit.files import replacing

    data = load_breast_cancer()
    lines = [",".join([*(name.replace(" ", "_") for name in data.feature_names), "diagnosis"])]
    for values, label in zip(data.data.tolist(), data.target.tolist(), strict=True):
        lines.append(",".join([*map(repr, values), data.target_names[label]]))
    will_write(path)
    with replacing(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _draw(model_path: Path, table: Path, picture: Path) -> None:
    """The sigmoid with every row on it, and the largest coefficients."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from torchlogit import load, scan
    from torchlogit.cli.guard import will_write
    from torchlogit.cli.workflow import classifier_of, largest_coefficients
    from torchlogit.files import replacing

    model = load(model_path)
    rows = scan(table, target="diagnosis")
    classes = classifier_of(model).classes_
    logit = np.asarray(model.decision_function(rows))
    positive = rows.labels() == classes[1]
    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    curve, bars = figure.subplots(1, 2)
    reach = float(np.abs(logit).max()) * 1.05
    line = np.linspace(-reach, reach, 400)
    curve.plot(line, 1 / (1 + np.exp(-line)), color="0.4", linewidth=1)
    jitter = np.random.default_rng(0).uniform(-0.03, 0.03, logit.size)
    for truth, colour in ((False, "tab:orange"), (True, "tab:blue")):
        here = positive == truth
        label = f"{classes[int(truth)]} ({here.sum()})"
        curve.plot(logit[here], float(truth) + jitter[here], "o", alpha=0.4, markersize=4, color=colour, label=label)
    curve.axvline(0, color="0.8", linewidth=1, zorder=0)
    curve.set(xlabel="logit", ylabel=f"probability of {classes[1]}", title="Every row on the sigmoid")
    curve.legend(loc="center right", title="diagnosis")
    named = largest_coefficients(model, 12)[::-1]
    values = [value for _, _, value in named]
    colours = ["tab:blue" if value > 0 else "tab:orange" for value in values]
    bars.barh([name.replace("_", " ") for _, name, _ in named], values, color=colours)
    bars.axvline(0, color="0.4", linewidth=1)
    bars.set(xlabel=f"coefficient, per standard deviation (positive: towards {classes[1]})",
             title="The largest coefficients")  # fmt: skip
    will_write(picture)
    with replacing(picture) as temporary:
        figure.savefig(temporary, dpi=120)
