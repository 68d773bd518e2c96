"""PyTorch as people write it: a linear layer, a loss on logits, an optimizer. The penalty is added to the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from problem import Problem

from peers.base import Peer, Setting


class PlainPyTorch(Peer):
    package = "torch"

    def prepare(self, problem: Problem) -> None:
        import torch

        assert problem.tensor is not None
        many = problem.classes > 2
        self.y = torch.from_numpy(problem.y) if many else torch.from_numpy(problem.y).to(problem.tensor.dtype)
        self.criterion = torch.nn.CrossEntropyLoss() if many else torch.nn.BCEWithLogitsLoss()

    def module(self, problem: Problem) -> Any:
        import torch

        torch.manual_seed(0)
        outputs = problem.classes if problem.classes > 2 else 1
        return torch.nn.Linear(problem.columns, outputs, bias=problem.intercept, dtype=problem.tensor.dtype)

    def loss(self, problem: Problem, module: Any, rows: Any, labels: Any) -> Any:
        logits = module(rows)
        data = self.criterion(logits if problem.classes > 2 else logits[:, 0], labels)
        return data + 0.5 * problem.alpha * (module.weight**2).sum()

    def answer(self, problem: Problem, model: Any) -> tuple[Any, Any]:
        weight = model.weight.detach().numpy()
        return weight, model.bias.detach().numpy() if problem.intercept else [0.0] * len(weight)


class Adam(PlainPyTorch):
    """Batches of 1,024 at Adam's own rate; then at a larger one that falls to zero (cosine), for longer."""

    name = "PyTorch Adam"
    settings: tuple[Setting, ...] = (
        {"lr": 1e-3, "epochs": 10},
        {"lr": 1e-2, "epochs": 30, "falling": 1},
        {"lr": 1e-2, "epochs": 200, "falling": 1},
    )
    sparse = False  # no mini-batches of sparse rows in torch

    def fit(self, problem: Problem, **setting: float) -> Any:
        import torch

        module, X, y = self.module(problem), problem.tensor, self.y
        optimizer = torch.optim.Adam(module.parameters(), lr=setting["lr"])
        epochs = int(setting["epochs"])
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs) if "falling" in setting else None
        for _ in range(epochs):
            for batch in torch.randperm(len(y)).split(1024):
                optimizer.zero_grad()
                self.loss(problem, module, X[batch], y[batch]).backward()
                optimizer.step()
            if scheduler:
                scheduler.step()
        return module


class LBFGS(PlainPyTorch):
    """`torch.optim.LBFGS`: at its defaults, then with its line search and ever more steps."""

    name = "PyTorch LBFGS"
    predicts = True
    settings: tuple[Setting, ...] = (
        {"max_iter": 20},
        {"max_iter": 200, "wolfe": 1},
        {"max_iter": 2000, "wolfe": 1},
        {"max_iter": 20_000, "wolfe": 1},
    )

    def fit(self, problem: Problem, **setting: float) -> Any:
        import torch

        module = self.module(problem)
        tight = {"line_search_fn": "strong_wolfe", "tolerance_grad": 1e-9, "tolerance_change": 1e-14}
        steps = int(setting["max_iter"])
        optimizer = torch.optim.LBFGS(module.parameters(), max_iter=steps, **(tight if "wolfe" in setting else {}))

        def closure() -> Any:
            optimizer.zero_grad()
            loss = self.loss(problem, module, problem.tensor, self.y)
            loss.backward()
            return loss

        optimizer.step(closure)
        return module

    def predictor(self, problem: Problem, model: Any) -> Callable[[], Any]:
        import torch

        rows = problem.tensor
        if problem.predict == "row":
            rows = torch.from_numpy(problem.asked)

        def probabilities() -> Any:
            with torch.no_grad():
                return torch.sigmoid(model(rows))[:, 0].numpy()

        return probabilities
