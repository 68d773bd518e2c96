"""``--checkpoint`` and ``--resume`` of ``torchlogit fit``: what a checkpoint is for, and the encoder in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from torchlogit._version import __version__
from torchlogit.available import memory_budget
from torchlogit.cli.guard import say, will_resume
from torchlogit.comm import current
from torchlogit.encode import TableEncoder
from torchlogit.errors import InputError
from torchlogit.fit_checkpoint import FitCheckpoint, Pace, kept_facts
from torchlogit.model_file import encoder_from, encoder_state, read, save
from torchlogit.plain import plain, restored
from torchlogit.purpose import FileMark, Purpose
from torchlogit.sources.files import expand, fingerprint
from torchlogit.table import Table

if TYPE_CHECKING:
    from torchlogit.cli.workflow import FitReport, FitRequest


@dataclass(frozen=True)
class Checkpointing:
    """Where a fit is kept, whether it goes on from there, and how often a long read of the rows is."""

    folder: Path
    resume: bool = False
    minutes: float = 5.0


@contextmanager
def opened(wanted: Checkpointing | None, request: FitRequest) -> Iterator[FitCheckpoint | None]:
    """The checkpoint of a request, if there is to be one."""
    if wanted is None:
        yield None
        return
    pace, purpose = Pace(wanted.minutes), purpose_of(request, _memory(wanted, request))
    checkpoint = FitCheckpoint(wanted.folder, purpose, resume=wanted.resume, pace=pace, say=say)
    will_resume(checkpoint)
    try:
        yield checkpoint
    finally:
        checkpoint.close()


def _memory(wanted: Checkpointing, request: FitRequest) -> int:
    """Bytes that the fit may take: as asked, else as before, else of what is there now.

    Which rows stay in memory depends on it, and so do the bits of the fit.
    """
    if request.table.memory is not None:
        return request.table.memory
    before = kept_facts(wanted.folder).get("--memory") if wanted.resume else None
    return memory_budget() if before is None else int(before)


def purpose_of(request: FitRequest, memory: int) -> Purpose:
    """All that the bits of a fit depend on."""
    table = request.table
    facts: dict[str, Any] = {
        "torchlogit": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "threads (OMP_NUM_THREADS)": torch.get_num_threads(),
        "--target": table.target,
        "--C": request.C,
        "--tol": request.tol,
        "--max-iter": request.max_iter,
        "--seed": request.seed,
        "--device": request.device,
        "--positive": request.positive,
        "--test": bool(request.test),
        "--test-size": None if request.test else request.test_size,
        "--weight": table.weight,
        "--offset": table.offset,
        "--drop": list(table.drop),
        "--sep": table.separator,
        "--no-header": table.header is False,
        "--memory": memory,
        "--on-bad-row": table.on_bad_row,
        "--na": None if table.missing is None else list(table.missing),
    }
    return Purpose(facts, tuple(_mark(path) for path in expand(request.data)))


def _mark(path: Path) -> FileMark:
    found = path.stat()
    return FileMark(str(path.resolve()), found.st_size, found.st_mtime_ns, fingerprint(path))


def finished(checkpoint: FitCheckpoint, request: FitRequest) -> FitReport | None:
    """What an earlier run came to, if it came to its end: nothing is read then."""
    if not (checkpoint.finished and checkpoint.result.exists()):
        return None
    from torchlogit.cli.workflow import FitReport

    try:
        file = read(checkpoint.result)
    except InputError as error:
        say(f"{error}: measuring again")
        return None
    notes = dict(file.notes)
    remarks, tested = notes.pop("remarks"), notes.pop("tested")
    if tested != _tested(request):
        return None
    return FitReport(file.model, notes["figures"], notes, tuple(remarks), None)


def keep_finished(checkpoint: FitCheckpoint, request: FitRequest, report: FitReport) -> None:
    """Have the same command give the same result at once; without this it would be measured again, no more."""
    with suppress(OSError):
        notes = {**report.notes, "remarks": list(report.remarks), "tested": _tested(request)}
        save(report.model, checkpoint.result, notes=notes)


def _tested(request: FitRequest) -> list[Any]:
    """The files that were measured on, by their marks."""
    return [list(astuple(_mark(path))) for path in expand(request.test)] if request.test else []


def learned_encoder(rows: Table, checkpoint: FitCheckpoint | None) -> TableEncoder:
    """The encoder of these rows: from the checkpoint if it has it, else learned and kept there."""
    processes = current()
    kept = processes.from_first(lambda: None if checkpoint is None else checkpoint.encoder())
    if kept is not None:
        arrays = {name: tensor.numpy() for name, tensor in kept["arrays"].items()}
        return encoder_from(restored(json.loads(kept["document"])), arrays)
    encoder = TableEncoder().fit(rows)
    if checkpoint is not None:
        arrays = {}
        document = json.dumps(plain(encoder_state(encoder, arrays)), allow_nan=False)
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
        checkpoint.keep_encoder({"document": document, "arrays": tensors})
    return encoder
