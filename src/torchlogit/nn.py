"""The engine room: the model as a PyTorch module, and the training loop written out.

The gradient comes from autograd here, on purpose: the exact fits have their own derivatives, and a test holds the two
against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from torchlogit.batches import Batch
from torchlogit.progress import ProgressLine, told
from torchlogit.torch_objects import evaluating
from torchlogit.trace import Trace
from torchlogit.training import Training
from torchlogit.training_step import TrainingStep


class LogisticModule(nn.Module):
    """Logistic regression as a module: one linear layer that gives logits, after a body of your own if you like.

    Parameters
    ----------
    n_features : int
        Columns of the input.
    n_classes : int, default=2
        Two classes have one output (the logit of class 1), more have one output each (softmax).
    body : torch.nn.Module, default=None
        Maps ``(n, n_features)`` to ``(n, width)``: hidden layers. Without one, this is logistic regression.
    n_outputs : int, default=None
        That many yes-or-no questions at once (multilabel), each with a logit of its own.

    Attributes
    ----------
    head : torch.nn.Linear
        Initialised by the same random draws as a bare ``torch.nn.Linear``.

    Examples
    --------
    >>> import torch
    >>> from torchlogit import LogisticModule
    >>> _ = torch.manual_seed(0)
    >>> module = LogisticModule(2)
    >>> _ = torch.manual_seed(0)
    >>> bool((module.head.weight == torch.nn.Linear(2, 1).weight).all())
    True
    >>> deeper = LogisticModule(2, body=torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.ReLU()))
    >>> deeper(torch.zeros(5, 2)).shape, deeper.probability(torch.zeros(5, 2)).shape
    (torch.Size([5, 1]), torch.Size([5, 1]))
    """

    def __init__(
        self,
        n_features: int,
        n_classes: int = 2,
        *,
        body: nn.Module | None = None,
        n_outputs: int | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (("n_features", n_features, 1), ("n_classes", n_classes, 2)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        if n_outputs is not None and (n_classes != 2 or n_outputs < 1):
            raise ValueError("n_outputs counts yes-or-no questions: at least 1, and n_classes stays 2")
        self.n_features, self.n_classes = n_features, n_classes
        self.independent = n_outputs is not None
        self.body = body
        width = n_features if body is None else _body_width(body, n_features)
        self.head = nn.Linear(width, n_outputs or (1 if n_classes == 2 else n_classes))

    @classmethod
    def from_weights(cls, coef: NDArray[Any], intercept: NDArray[Any]) -> LogisticModule:
        """A float64 module with these weights; no random number is drawn.

        Parameters
        ----------
        coef : ndarray of shape (1, p) or (n_classes, p)
        intercept : ndarray of shape (1,) or (n_classes,)
        """
        outputs, columns = coef.shape
        with torch.random.fork_rng(devices=[]):
            module = cls(columns, 2 if outputs == 1 else outputs).to(torch.float64)
        with torch.no_grad():
            module.head.weight.copy_(torch.from_numpy(np.asarray(coef)))
            module.head.bias.copy_(torch.from_numpy(np.asarray(intercept)))
        return module

    def forward(self, x: Tensor) -> Tensor:
        """Logits, ``(n, outputs)``."""
        if x.shape[-1] != self.n_features:
            raise ValueError(f"x has {x.shape[-1]} columns, this LogisticModule has {self.n_features}")
        logits: Tensor = self.head(x if self.body is None else self.body(x))
        return logits

    def probability(self, x: Tensor) -> Tensor:
        """Probabilities, ``(n, outputs)``: of class 1 (or of each yes) by the sigmoid, of each class by the softmax."""
        logits = self(x)
        if self.independent or logits.shape[-1] == 1:
            return torch.sigmoid(logits)
        return torch.softmax(logits, dim=-1)

    def features(self, x: Tensor) -> Tensor:
        """What the head sees, ``(n, width)``, as constants: the body in evaluation mode, without gradients."""
        if self.body is None:
            return x
        with evaluating(self.body):
            made: Tensor = self.body(x)
        return made

    def fit_head(self, estimator: Any, X: Tensor, y: Any, sample_weight: Any = None) -> Any:
        """Solve the head exactly on the features of a frozen body.

        Parameters
        ----------
        estimator : LogisticRegression
            It is fitted to ``features(X)``; its penalty and tolerance count, and its certificate is the head's.
        X : Tensor of shape (n, n_features)
        y : array-like of shape (n,)
        sample_weight : array-like of shape (n,), default=None

        Returns
        -------
        LogisticRegression
            The fitted estimator.

        Examples
        --------
        >>> import torch
        >>> from torchlogit import LogisticModule, LogisticRegression
        >>> _ = torch.manual_seed(0)
        >>> X = torch.randn(200, 3)
        >>> y = (X[:, 0] * X[:, 1] > 0).long()
        >>> module = LogisticModule(3, body=torch.nn.Sequential(torch.nn.Linear(3, 32), torch.nn.Tanh()))
        >>> clf = module.fit_head(LogisticRegression(C=100.0), X, y)
        >>> clf.converged_, bool(((module(X)[:, 0] > 0).long() == y).float().mean() > 0.9)
        (True, True)
        """
        parameter = self.head.weight
        estimator.fit(self.features(X.to(parameter.device, parameter.dtype)), y, sample_weight=sample_weight)
        solved = estimator.module_.head
        if solved.weight.shape != parameter.shape or self.independent:
            raise ValueError(
                f"y has {len(estimator.classes_)} classes, but the head of this module has {parameter.shape[0]} "
                + ("independent outputs: fit one estimator an output" if self.independent else "outputs")
            )
        with torch.no_grad():
            self.head.weight.copy_(solved.weight)
            self.head.bias.copy_(solved.bias)
        return estimator


def _body_width(body: nn.Module, n_features: int) -> int:
    """Width of what a body gives, by asking it. In evaluation mode: no dropout draws, no statistics change."""
    reference = next(body.parameters(), torch.zeros(()))
    try:
        with evaluating(body):
            made = body(torch.zeros(2, n_features, dtype=reference.dtype, device=reference.device))
    except RuntimeError as error:
        raise ValueError(f"the body does not take rows of {n_features} features: {error}") from None
    if not isinstance(made, Tensor) or made.ndim != 2 or made.shape[0] != 2:
        shape = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
        raise ValueError(f"the body must map (n, {n_features}) to (n, width); it made {shape} of (2, {n_features})")
    return int(made.shape[1])


def linear_layer(module: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight ``(K, p)`` and bias ``(K,)`` of a module that is linear before its sigmoid or softmax.

    Raises
    ------
    ValueError
        If it is not.
    """
    layers = list(module) if isinstance(module, nn.Sequential) else [module]
    if len(layers) == 2 and isinstance(layers[1], nn.Sigmoid | nn.Softmax | nn.LogSoftmax | nn.Identity):
        layers = layers[:1]
    layer = layers[0] if len(layers) == 1 else module
    if isinstance(layer, LogisticModule):
        if layer.independent:
            raise ValueError("a module of several yes-or-no questions (n_outputs) is no single classifier")
        if layer.body is not None:
            raise ValueError(
                "the module has a body, which a linear model cannot hold: take its head, and feed it features(X)"
            )
        layer = layer.head
    if not isinstance(layer, nn.Linear):
        raise ValueError(
            f"a linear model can come from a LogisticModule or an nn.Linear, not from {type(layer).__name__}"
        )
    bias = layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias
    return layer.weight.detach(), bias.detach()


def train(
    model: nn.Module,
    X: Any,
    y: Any = None,
    *,
    optimizer: Any,
    epochs: int,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    batch_size: int | None = None,
    sample_weight: Any = None,
    l2: float = 0.0,
    scheduler: Any = None,
    validation: Any = None,
    seed: int = 0,
    device: Any = None,
    checkpoint: Any = None,
    callbacks: Iterable[Any] = (),
) -> Trace:
    """Train any module by gradient descent: forward, loss, backward, update.

    Parameters
    ----------
    model : torch.nn.Module
        Trained in place. Floating-point input is cast to the dtype of its parameters.
    X : Tensor, array, sparse matrix or frame of shape (n, p); DataLoader, Dataset, IterableDataset or scan
        A loader yields ``(x, y)`` or ``(x, y, weight)``. A scan brings its own target and weights.
    y : Tensor or array-like of shape (n,), (n, 1) or (n, outputs), default=None
        0 and 1 for one output, class codes for several, a column for each yes-or-no question.
    optimizer : torch.optim.Optimizer, or callable that makes one of parameters
        For example ``functools.partial(torch.optim.SGD, lr=0.01)``.
    epochs : int
        Times that all rows are gone through.
    loss : callable (output, y) -> Tensor, default=None
        None is the log loss of logits: binary, one of each class, or one of each question, by the output's shape.
    batch_size : int, default=None
        Rows of an update; None takes all at once. Batches are slices of one permuted index.
    sample_weight : array-like of shape (n,), default=None
        Row weights. Row losses are weighted, summed, and divided by the batch's rows times the mean weight.
    l2 : float, default=0.0
        Adds ``l2 / 2`` times the squares of all weights (of parameters with two or more dimensions; biases are free).
        ``l2 = 1 / (C * n)`` is the penalty of ``LogisticRegression(C)``.
    scheduler : torch.optim.lr_scheduler.LRScheduler, or callable that makes one of an optimizer, default=None
        Stepped after each epoch (one-cycle and cyclic ones after each batch).
    validation : tuple (X, y), loader or scan, default=None
        Its mean loss goes into the first record of each epoch, and the last.
    seed : int, default=0
        Decides the order of the rows and what random layers draw. The caller's random numbers are left alone.
    device : str or torch.device, default=None
        Where to train; None is where the model is.
    checkpoint : path-like or Checkpoint, default=None
        Where to keep the state. If the file exists, training goes on from it, to the same bits as without the break.
    callbacks : iterable, default=()
        Functions of a `TrainingStep`, called at each step before its update, or objects with any of ``on_step(step)``,
        ``on_epoch(step)`` and ``on_end(trace)``. One that returns True ends the training.

    Returns
    -------
    Trace
        One record a step, before its update; the last describes the result: ``step``, ``epoch``, ``objective`` (of
        the batch; the last one's is of all rows, where they are known), ``gradient_norm``, ``learning_rate``, ``rows``,
        ``passes``, ``rows_per_second``, ``seconds``, ``theta`` (up to 1,000 parameters), ``validation``.

    Raises
    ------
    ValueError
        If the data, the model and the options do not go together; the message says how.

    Examples
    --------
    >>> from functools import partial
    >>> import torch
    >>> from torchlogit import LogisticModule, train
    >>> _ = torch.manual_seed(0)
    >>> X = torch.randn(500, 2)
    >>> y = (X.sum(1) > 0).float()
    >>> model = LogisticModule(2)
    >>> trace = train(model, X, y, optimizer=partial(torch.optim.SGD, lr=1.0), epochs=50, batch_size=100)
    >>> len(trace), trace[-1]["objective"] < 0.2 < trace[0]["objective"]
    (251, True)
    """
    run = Training(
        model, X, y, optimizer=optimizer, epochs=epochs, loss=loss, batch_size=batch_size, sample_weight=sample_weight,
        l2=l2, scheduler=scheduler, validation=validation, seed=seed, device=device, checkpoint=checkpoint,
        callbacks=callbacks,
    )  # fmt: skip
    with run.own_random_numbers(), ProgressLine() as line:
        for step in _loop(run):
            line.show(told(step.record))
    return run.trace


def _loop(run: Training) -> Iterator[TrainingStep]:
    """The loop itself. `Training` has made ready what was given; nothing of the mathematics is hidden in it."""
    model, optimizer = run.model, run.optimizer
    for _ in run.remaining_epochs():
        for batch in run.remaining_batches():

            def forward_backward(batch: Batch = batch) -> Any:
                output = model(batch.x)  # forward
                loss: Any = run.mean_loss(output, batch) + run.penalty()  # loss
                optimizer.zero_grad()
                loss.backward()  # backward
                return loss

            loss = forward_backward()
            yield run.look(batch, loss)  # the record, before the update
            if run.stopped:
                break
            if run.needs_closure:  # L-BFGS evaluates for itself
                optimizer.step(forward_backward)
            else:
                optimizer.step()  # update
            run.after_update()
        run.after_epoch()
    yield run.finish()


def training_steps(model: nn.Module, X: Any, y: Any = None, **options: Any) -> Iterator[TrainingStep]:
    """The training of `train`, step by step: the loop is yours.

    Each step comes after the gradients and before the update, so that both can be looked at (or changed); whoever
    leaves early keeps the model as it is.

    Parameters
    ----------
    model, X, y : as in `train`
    **options : as in `train`
        An unknown one raises TypeError.

    Yields
    ------
    TrainingStep
        ``step.forward(i)`` opens up row i.

    Examples
    --------
    >>> from functools import partial
    >>> import torch
    >>> from torchlogit.nn import LogisticModule, training_steps
    >>> _ = torch.manual_seed(0)
    >>> X, y = torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.tensor([0.0, 0.0, 1.0, 1.0])
    >>> for step in training_steps(LogisticModule(1), X, y, optimizer=partial(torch.optim.SGD, lr=1.0), epochs=3):
    ...     print(step.number, f"{step.objective:.3f}", f"{step.forward(3).residual:+.3f}")
    0 0.731 -0.374
    1 0.644 -0.212
    2 0.591 -0.184
    3 0.546 -0.167
    """
    run = Training(model, X, y, **options)
    loop = _loop(run)
    while True:
        with run.own_random_numbers():
            step = next(loop, None)
        if step is None:
            return
        yield step


__all__ = ["LogisticModule", "TrainingStep", "linear_layer", "train", "training_steps"]
