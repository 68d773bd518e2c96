"""What the training loop of `torchlogit.nn` needs around its four lines: data, counters, records, resuming."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from torchlogit.batches import EVALUATED_ROWS, Batch, Batches, Form, MemoryBatches, batches_of
from torchlogit.checkpoint import Checkpoint
from torchlogit.errors import InputError
from torchlogit.optimizers import made_optimizer, needs_closure, scheduler_state, steps_by_batch
from torchlogit.random_states import (
    generator_states,
    packed,
    random_state,
    seeded_state,
    set_generator_states,
    set_random_state,
    unpacked,
)
from torchlogit.row_losses import Criterion, aligned, by_row, check_targets, log_loss, row_mean
from torchlogit.row_view import RowView
from torchlogit.torch_objects import evaluating
from torchlogit.trace import Record, Trace
from torchlogit.training_step import TrainingStep

_RECORDED_PARAMETERS = 1000
# Numbers of all recorded coefficients together (about 30 MB); from then on only each epoch's first step records them.
_RECORDED_NUMBERS = 1_000_000


class Training:
    """A training made ready: see `torchlogit.nn.train` for the parameters."""

    def __init__(
        self,
        model: nn.Module,
        X: Any,
        y: Any = None,
        *,
        optimizer: Any,
        epochs: int,
        loss: Criterion | None = None,
        batch_size: int | None = None,
        sample_weight: Any = None,
        l2: float = 0.0,
        scheduler: Any = None,
        validation: Any = None,
        seed: int = 0,
        device: Any = None,
        checkpoint: Any = None,
        callbacks: Iterable[Any] = (),
    ) -> None:
        if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 0:
            raise ValueError(f"epochs must be an integer of at least 0, got {epochs!r}")
        if not (l2 >= 0 and math.isfinite(l2)):
            raise ValueError(f"l2 must be a finite number of at least 0, got {l2!r}")
        self.model = model if device is None else model.to(device)
        self._trained = [value for value in model.parameters() if value.requires_grad]
        if not self._trained:
            raise ValueError("the model has no parameters to train (none requires a gradient)")
        form = Form(self._trained[0].device, self._trained[0].dtype)
        self.epochs, self.l2, self.seed, self.batch_size = epochs, float(l2), int(seed), batch_size
        self.batches: Batches = batches_of(X, y, sample_weight, batch_size, self.seed, form)
        self.validation = None if validation is None else _watched(validation, form)
        self.loss, self._row_loss = loss or log_loss, by_row(loss)
        self._default_loss = loss is None
        self._penalised = [value for value in self._trained if value.ndim >= 2]
        self.optimizer = made_optimizer(optimizer, self._trained)
        self.needs_closure = needs_closure(self.optimizer)
        self.scheduler = scheduler(self.optimizer) if callable(scheduler) else scheduler
        self.callbacks = list(callbacks)
        self.trace = Trace()
        self.stopped = False
        self._epoch = self._batch = self._step = self._recorded = 0
        self._last: Batch | None = None
        self._sum = 0.0  # of this epoch's objectives, for schedulers that watch a plateau
        self._size = sum(value.numel() for value in model.parameters())
        self._training = model.training
        self._linear = _one_linear_layer(model)
        self._random = seeded_state(self.seed)
        self._begun: tuple[list[Tensor], list[Tensor]] = ([], [])  # random states as this epoch began
        self._clock = time.perf_counter()
        self._checked = False
        self._checkpoint = Checkpoint(checkpoint) if isinstance(checkpoint, (str, bytes)) or hasattr(
            checkpoint, "__fspath__"
        ) else checkpoint  # fmt: skip
        if self._checkpoint is not None and self._checkpoint.exists():
            self._resume(self._checkpoint.read())

    # -- random numbers -----------------------------------------------------------------------------------------

    @contextmanager
    def own_random_numbers(self) -> Iterator[None]:
        """The training's own random state inside, the caller's afterwards."""
        outside = random_state()
        set_random_state(self._random)
        try:
            yield
        finally:
            self._random = random_state()
            set_random_state(outside)

    # -- the loop's counters ------------------------------------------------------------------------------------

    def remaining_epochs(self) -> Iterator[int]:
        """From where the training stands."""
        self.model.train()
        while self._epoch < self.epochs and not self.stopped:
            yield self._epoch

    def remaining_batches(self) -> Iterator[Batch]:
        """Those of this epoch that are still to come."""
        if not self._batch:
            self._begun = packed(random_state()), generator_states(self.batches.generators())
            yield from self.batches.epoch(self._epoch)
            return
        # A loader draws as an epoch begins: begin it as it began, skip what is done, and go on from where that ended.
        here = random_state()
        set_random_state(unpacked(self._begun[0]))
        set_generator_states(self.batches.generators(), self._begun[1])
        batches = self.batches.epoch(self._epoch)
        for _ in range(self._batch):
            next(batches)
        set_random_state(here)
        yield from batches

    def after_update(self) -> None:
        """Count, step the schedulers that count batches, and keep the state if it is time."""
        if steps_by_batch(self.scheduler):
            self.scheduler.step()
        self._batch += 1
        self._step += 1
        if self._checkpoint is not None and self._checkpoint.due(self._step):
            self._keep()

    def after_epoch(self) -> None:
        """Step the scheduler, tell the callbacks."""
        if self.stopped:
            return
        if isinstance(self.scheduler, ReduceLROnPlateau):
            watched = self._evaluated(self.validation) if self.validation is not None else None
            self.scheduler.step(self._sum / max(self._batch, 1) if watched is None else watched)
        elif self.scheduler is not None and not steps_by_batch(self.scheduler):
            self.scheduler.step()
        self._epoch, self._batch, self._sum = self._epoch + 1, 0, 0.0
        if self._last is not None:
            step = TrainingStep(self, self._last, self.trace[-1])
            self.stopped = self._told("on_epoch", step)

    # -- the objective ------------------------------------------------------------------------------------------

    def mean_loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Mean loss of a batch."""
        y = aligned(output, batch.y)
        if self._default_loss and not self._checked:
            self._check(output, y)
        if batch.weight is None:
            loss = self.loss(output, y)
            return loss if loss.ndim == 0 else loss.mean()
        rows = row_mean(self._row_loss(output, y), batch.size)
        weight, mean = batch.weight.to(rows.dtype), self.batches.mean_weight
        # Where the mean weight of all rows is unknown, the batch's own; a batch without any weight pulls at nothing.
        total = weight.sum().clamp(min=torch.finfo(weight.dtype).tiny) if mean is None else batch.size * mean
        return (weight * rows).sum() / total

    def penalty(self) -> Tensor | float:
        """``l2 / 2`` times the squares of all weights."""
        if not self.l2:
            return 0.0
        return 0.5 * self.l2 * sum((value.square().sum() for value in self._penalised), start=torch.zeros(()))

    def _check(self, output: Tensor, y: Tensor) -> None:
        """Targets that the loss of logits understands: all of them at once where they are at hand."""
        each = y.shape == output.shape
        if isinstance(self.batches, MemoryBatches):
            y, self._checked = self.batches.y, True
        check_targets(y, int(output.shape[-1]), each=each)

    # -- records ------------------------------------------------------------------------------------------------

    def look(self, batch: Batch, loss: Tensor) -> TrainingStep:
        """Record a step after its gradients, before its update."""
        wide = torch.float32 if loss.device.type == "mps" else torch.float64
        squares = [torch.linalg.vector_norm(gradient, dtype=wide).square() for gradient in self._gradients(batch, wide)]
        # One transfer from the device, not one a number.
        objective, *parts = torch.stack([loss.detach().to(wide), *squares]).tolist()
        if not math.isfinite(objective):
            raise FloatingPointError(
                f"the objective is {objective} at step {self._step}: the learning rate is too large, or the data hold "
                "NaN or infinity"
            )
        self._last = batch
        self._sum += objective
        return self._recorded_step(batch, objective, math.sqrt(sum(parts)))

    def _gradients(self, batch: Batch, wide: torch.dtype) -> list[Tensor]:
        """The gradients, for their norm.

        Of a linear model in float64 at its recorded coefficients: what a reader of the trace computes from these. The
        float32 gradients that the update uses differ from them by a dozen units in the last place where rows cancel.
        """
        if self._linear is None or not self._default_loss or wide != torch.float64:
            return [value.grad for value in self._trained if value.grad is not None]
        weight, bias = (value.detach().double().requires_grad_() for value in self._linear)
        with torch.enable_grad():
            for start in range(0, batch.size, EVALUATED_ROWS):
                part = batch.slice(start, start + EVALUATED_ROWS)
                loss = self.mean_loss(nn.functional.linear(part.x.double(), weight, bias), part)
                (loss * (part.size / batch.size)).backward()  # type: ignore[no-untyped-call]
        assert weight.grad is not None and bias.grad is not None
        return [weight.grad + self.l2 * weight.detach(), bias.grad]

    def finish(self) -> TrainingStep:
        """Record the result: of all rows where they are at hand, else of the last batch."""
        seen = self.batches.everything()
        if seen is None:
            seen = islice(self.batches.epoch(self._epoch), 1) if self._last is None else iter([self._last])
        losses, rows = [], 0
        with evaluating(self.model):
            for batch in seen:
                losses.append((float(self.mean_loss(self.model(batch.x), batch)), batch.size))
                rows, self._last = rows + batch.size, self._last or batch
            # One batch: its loss itself, not a product over a quotient.
            mean = losses[0][0] if len(losses) == 1 else sum(loss * size for loss, size in losses) / rows
            objective = mean + float(self.penalty())
        self.model.train(self._training)
        for value in self._trained:
            value.grad = None
        assert self._last is not None
        step = self._recorded_step(self._last, objective, None, final=True, rows=rows)
        if self._checkpoint is not None:
            self._keep()
        self._told("on_end", self.trace)
        return step

    def _recorded_step(
        self, batch: Batch, objective: float, norm: float | None, *, final: bool = False, rows: int | None = None
    ) -> TrainingStep:
        now = time.perf_counter()
        seconds, self._clock = now - self._clock, now
        first = self._batch == 0 or final
        small = self._size <= _RECORDED_PARAMETERS and (first or self._recorded < _RECORDED_NUMBERS)
        size = self.batches.size
        record: Record = {
            "step": self._step,
            "epoch": self._epoch,
            "objective": objective,
            "gradient_norm": norm,
            "learning_rate": float(self.optimizer.param_groups[0]["lr"]),
            "rows": rows or batch.size,
            "passes": self._epoch + (self._batch * (self.batch_size or batch.size) / size if size else 0.0),
            "rows_per_second": batch.size / seconds if seconds > 0 else 0.0,
            "seconds": {"total": seconds},
            "theta": self._theta() if small else None,
        }
        self._recorded += self._size if small and not final else 0
        if self.validation is not None and first:
            record["validation"] = self._evaluated(self.validation)
        self.trace.append(record)
        step = TrainingStep(self, batch, record)
        if not final and self._told("on_step", step):
            self.stopped = True
        return step

    def _theta(self) -> list[Any]:
        """``(K, p + 1)`` with the intercept last for one linear layer; else all parameters in a row."""
        values = [value.detach() for value in self.model.parameters()]
        if len(values) == 2 and values[0].ndim == 2 and values[1].shape == values[0].shape[:1]:
            return torch.cat([values[0], values[1][:, None]], dim=1).tolist()
        return torch.cat([value.reshape(-1) for value in values]).tolist()

    def _evaluated(self, batches: Batches) -> float:
        """Mean loss of watched rows, without the penalty, in evaluation mode."""
        total = weights = 0.0
        with evaluating(self.model):
            for batch in batches.everything() or batches.epoch(0):
                output = self.model(batch.x)
                rows = row_mean(self._row_loss(output, aligned(output, batch.y)), batch.size).double()
                weight = torch.ones_like(rows) if batch.weight is None else batch.weight.double()
                total, weights = total + float((weight * rows).sum()), weights + float(weight.sum())
        return total / weights

    def _told(self, name: str, what: Any) -> bool:
        """Tell every callback, and whether one of them wants to stop."""
        hooks = ("on_step", "on_epoch", "on_end")
        answers = []
        for callback in self.callbacks:
            bare = callable(callback) and not any(hasattr(callback, hook) for hook in hooks)
            hook = callback if bare and name == "on_step" else getattr(callback, name, None)
            answers.append(hook is not None and bool(hook(what)))
        return any(answers)

    # -- one row ------------------------------------------------------------------------------------------------

    def view(self, batch: Batch, row: int) -> RowView:
        """One row through the model as it is now."""
        one = self.batches.row(row)
        if one is None:
            if not 0 <= row < batch.size:
                raise IndexError(f"there is no row {row}: the batch has {batch.size:,} rows, counted from 0")
            here = slice(row, row + 1)
            one = Batch(batch.x[here], batch.y[here])
        with evaluating(self.model):
            output = self.model(one.x)
        with torch.enable_grad():
            z = output.detach().requires_grad_()
            y = aligned(z, one.y)
            loss = row_mean(self._row_loss(z, y), 1)[0]
            (slope,) = torch.autograd.grad(loss, z)
        loss = loss.detach()
        probability: Any = None
        if self._default_loss:
            binary = y.shape == z.shape
            probability = _number(torch.sigmoid(output) if binary else torch.softmax(output, dim=-1))
        return RowView(row, _number(y), _number(output), probability, float(loss), _number(slope))

    # -- checkpoints --------------------------------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        return {
            "model": [[name, list(value.shape), str(value.dtype)] for name, value in self.model.named_parameters()],
            "optimizer": type(self.optimizer).__name__,
            "scheduler": None if self.scheduler is None else type(self.scheduler).__name__,
            "loss": getattr(self.loss, "__name__", type(self.loss).__name__),
            "batch_size": self.batch_size,
            "l2": self.l2,
            "seed": self.seed,
            "data": self.batches.fingerprint(),
        }

    def _keep(self) -> None:
        assert self._checkpoint is not None
        self._checkpoint.write({
            "settings": self._settings(),
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else scheduler_state(self.scheduler),
            "place": [self._epoch, self._batch, self._step, self._recorded],
            "sum": self._sum,
            "random": packed(random_state()),
            "generators": generator_states(self.batches.generators()),
            "begun": list(self._begun),
            "trace": list(self.trace),
        })  # fmt: skip

    def _resume(self, state: dict[str, Any]) -> None:
        mine = self._settings()
        for name, value in state["settings"].items():
            if value != mine.get(name):
                what = "data" if name == "data" else f"{name} {value!r}, not {mine.get(name)!r}"
                assert self._checkpoint is not None
                raise InputError(
                    f"the checkpoint {self._checkpoint.path} was made with "
                    + ("other data" if what == "data" else what)
                    + ": give what it was made with, or name another file"
                )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
            # Steps were taken, though not by this object: a scheduler that goes first would warn of its order.
            self.optimizer._opt_called = True  # type: ignore[attr-defined]
        self._epoch, self._batch, self._step, self._recorded = state["place"]
        self._sum, self._random, self._begun = state["sum"], unpacked(state["random"]), tuple(state["begun"])
        set_generator_states(self.batches.generators(), state["generators"])
        records = state["trace"]
        # A training that had ended is recorded anew where it goes on.
        self.trace = Trace(record for record in records if record["step"] < self._step)


# -- small helpers --------------------------------------------------------------------------------------------------


def _one_linear_layer(model: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Weight and bias of a model that is one linear layer and nothing else."""
    layers = [module for module in model.modules() if not list(module.children())]
    layer = layers[0] if len(layers) == 1 else None
    if not isinstance(layer, nn.Linear) or layer.bias is None:
        return None
    return (layer.weight, layer.bias) if layer.weight.requires_grad and layer.bias.requires_grad else None


def _watched(validation: Any, form: Form) -> Batches:
    if isinstance(validation, (tuple, list)) and len(validation) in (2, 3) and not isinstance(validation[0], tuple):
        X, y, *weight = validation
        return batches_of(X, y, weight[0] if weight else None, None, 0, form)
    return batches_of(validation, None, None, None, 0, form)


def _number(values: Tensor) -> Any:
    """A number where there is one, an array where there are more."""
    flat = values.detach().reshape(-1)
    return flat[0].item() if flat.numel() == 1 else flat.cpu().numpy()
