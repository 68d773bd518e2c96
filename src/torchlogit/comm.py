"""One fit over the rows of several processes: the only place that talks to the others.

Every process has its own rows and the same coefficients. A sweep adds up its own rows, and one all-reduce of a small
record makes the sums those of all rows; whatever is decided from them is then decided alike everywhere.

A process that fails must not leave the others waiting. So a failure travels where the sums would have: the record's
first number says how many processes have failed, and where it is not zero, all of them raise the same error at the same
place. Nothing is left half said, and the group can be used again. A process that dies closes its connections, which the
others notice; one whose machine vanishes is given up when the group's time is up.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from torchlogit.errors import InputError, LostProcessError

T = TypeVar("T")

# How long a process waits for the others: reading labels and learning an encoder count too.
TIMEOUT = timedelta(hours=2)
# Up to so many, smallest and largest numbers travel with the sums, one place for each process.
_PLACES = 256


class Communicator(Protocol):
    """What a fit asks of the other processes. ``work`` is this process's part of something that all do at once.

    Where it fails in one of them, the failure of the first is raised in all.
    """

    rank: int
    world: int

    def added(self, work: Callable[[], T], nothing: Callable[[], T], at: Tensor | None = None) -> T:
        """The records of all processes in one: a dataclass of tensors, each a sum unless its metadata say otherwise.

        Parameters
        ----------
        work, nothing : callable
            This process's record, and one of the same shape for where ``work`` fails.
        at : Tensor, optional
            Must be the same in all processes, to the bit.
        """
        ...

    def gathered(self, work: Callable[[], T]) -> list[T]:
        """What all processes have, in order of rank."""
        ...

    def together(self, work: Callable[[], T]) -> T:
        """What this process has, if no other has failed."""
        ...

    def from_first(self, work: Callable[[], T]) -> T:
        """What the first process has; the others do nothing for it."""
        ...


class Alone:
    """No other process."""

    rank = 0
    world = 1

    def added(self, work: Callable[[], T], nothing: Callable[[], T], at: Tensor | None = None) -> T:
        """Its own."""
        return work()

    def gathered(self, work: Callable[[], T]) -> list[T]:
        """Its own."""
        return [work()]

    def together(self, work: Callable[[], T]) -> T:
        """Its own."""
        return work()

    def from_first(self, work: Callable[[], T]) -> T:
        """Its own."""
        return work()


ALONE = Alone()


class Group:
    """The processes of an initialised ``torch.distributed`` group.

    Parameters
    ----------
    group : ProcessGroup, optional
        None means all.
    """

    def __init__(self, group: Any = None) -> None:
        import torch.distributed as dist

        self._dist, self._group = dist, group
        self.rank, self.world = dist.get_rank(group), dist.get_world_size(group)
        alone = dist.get_backend(group) == "nccl"
        self._device = torch.device("cuda", torch.cuda.current_device()) if alone else torch.device("cpu")

    def added(self, work: Callable[[], T], nothing: Callable[[], T], at: Tensor | None = None) -> T:
        """One all-reduce of failures, digests, sums and a few extremes; another one where those are many."""
        failure: Exception | None = None
        try:
            own = work()
        except Exception as error:  # noqa: BLE001 -- raised below, in all processes
            failure, own = error, nothing()
        sums, extremes = _parts(own)
        few = sum(part.numel() for part in extremes) <= _PLACES
        least = _flat(extremes)
        head = torch.zeros(1 + self.world + (self.world * least.numel() if few else 0), dtype=torch.float64)
        head[0], head[1 + self.rank] = float(failure is not None), _digest(at)
        if few:
            place = 1 + self.world + self.rank * least.numel()
            head[place : place + least.numel()] = least
        buffer = torch.cat([head, _flat(sums)]).to(self._device)
        with self._reaching():
            self._dist.all_reduce(buffer, group=self._group)
        buffer = buffer.cpu()
        if buffer[0] > 0:
            self._fail(failure)
        digests = buffer[1 : 1 + self.world]
        if not bool((digests == digests[0]).all()):
            raise RuntimeError(
                "the processes have come to different numbers: start all of them with the same parameters, on machines "
                "of one kind and with the same number of threads (OMP_NUM_THREADS)"
            )
        if few:
            least = buffer[1 + self.world : head.numel()].reshape(self.world, -1).amin(0)
        else:
            least = least.to(self._device)
            with self._reaching():
                self._dist.all_reduce(least, op=self._dist.ReduceOp.MIN, group=self._group)
        return _put_together(own, buffer[head.numel() :], least.cpu())

    def gathered(self, work: Callable[[], T]) -> list[T]:
        """One exchange of objects."""
        failure: Exception | None = None
        try:
            own = (None, work())
        except Exception as error:  # noqa: BLE001 -- raised below, in all processes
            failure, own = error, (_described(error), None)  # type: ignore[assignment]
        entries: list[Any] = [None] * self.world
        with self._reaching():
            self._dist.all_gather_object(entries, own, group=self._group)
        self._raise_first([entry[0] for entry in entries], failure)
        return [entry[1] for entry in entries]

    def together(self, work: Callable[[], T]) -> T:
        """Only failures are exchanged."""
        kept: list[T] = []
        self.gathered(lambda: kept.append(work()))
        return kept[0]

    def from_first(self, work: Callable[[], T]) -> T:
        """The others wait for it."""
        failure: Exception | None = None
        entry: list[Any] = [None]
        if self.rank == 0:
            try:
                entry = [(None, work())]
            except Exception as error:  # noqa: BLE001 -- raised below, in all processes
                failure, entry = error, [(_described(error), None)]
        with self._reaching():
            first = 0 if self._group is None else self._dist.get_global_rank(self._group, 0)
            self._dist.broadcast_object_list(entry, src=first, group=self._group)
        self._raise_first([entry[0][0]], failure)
        value: T = entry[0][1]
        return value

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """What the network says of a process that is gone, in words."""
        try:
            yield
        except RuntimeError as error:
            raise LostProcessError(
                "another process of this fit has ended or does not answer (what it said itself comes first; a machine "
                f"out of memory says nothing): {str(error).splitlines()[0]}"
            ) from error

    def _fail(self, failure: Exception | None) -> None:
        entries: list[Any] = [None] * self.world
        with self._reaching():
            self._dist.all_gather_object(
                entries, None if failure is None else _described(failure), group=self._group
            )
        self._raise_first(entries, failure)

    def _raise_first(self, failures: list[Any], own: Exception | None) -> None:
        for rank, described in enumerate(failures):
            if described is not None:
                error = own if own is not None and rank == self.rank else _rebuilt(described, rank)
                error.everywhere = True  # type: ignore[attr-defined]
                raise error


# -- records as one vector -----------------------------------------------------------------------------------------


def _parts(record: Any) -> tuple[list[Tensor], list[Tensor]]:
    """A record's sums, and its extremes with the sign that makes each a smallest."""
    sums, extremes = [], []
    for item in fields(record):
        value = getattr(record, item.name)
        if value is None:
            continue
        tensor = torch.as_tensor(value, dtype=torch.float64).detach().cpu()
        kind = item.metadata.get("reduce", "sum")
        if kind == "sum":
            sums.append(tensor)
        else:
            extremes.append(tensor if kind == "min" else -tensor)
    return sums, extremes


def _flat(parts: list[Tensor]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts]) if parts else torch.empty(0, dtype=torch.float64)


def _put_together(record: T, sums: Tensor, extremes: Tensor) -> T:
    """The record with other numbers."""
    filled: dict[str, Any] = {}
    for item in fields(record):  # type: ignore[arg-type]
        value = getattr(record, item.name)
        if value is None:
            continue
        kind = item.metadata.get("reduce", "sum")
        count = value.numel() if isinstance(value, Tensor) else 1
        if kind == "sum":
            part, sums = sums[:count], sums[count:]
        else:
            part, extremes = extremes[:count], extremes[count:]
        part = -part if kind == "max" else part
        filled[item.name] = (
            part.reshape(value.shape).to(value.device) if isinstance(value, Tensor) else type(value)(part[0])
        )
    return replace(record, **filled)  # type: ignore[type-var]


def _digest(at: Tensor | None) -> float:
    """A number that two different tensors hardly share; each of the 32 bits survives in a float64."""
    return 0.0 if at is None else float(zlib.crc32(at.detach().cpu().contiguous().numpy().tobytes()))


# -- failures ------------------------------------------------------------------------------------------------------

_KNOWN: tuple[type[Exception], ...] = (InputError, FloatingPointError, ValueError, TypeError, MemoryError, OSError)


def _described(error: Exception) -> tuple[str, tuple[Any, ...]]:
    """A failure as plain values: its own class may not survive the way."""
    for kind in _KNOWN:
        if isinstance(error, kind):
            if isinstance(error, OSError):
                name = None if error.filename is None else str(error.filename)
                return kind.__name__, (error.errno, error.strerror or str(error), name)
            return kind.__name__, (str(error),)
    return "", (f"{type(error).__name__}: {error}",)


def _rebuilt(described: tuple[str, tuple[Any, ...]], rank: int) -> Exception:
    name, arguments = described
    for kind in _KNOWN:
        if kind.__name__ == name:
            return kind(*arguments)
    return RuntimeError(f"process {rank} has failed with {arguments[0]}")


# -- who takes part ------------------------------------------------------------------------------------------------

_active: ContextVar[Communicator] = ContextVar("torchlogit_communicator", default=ALONE)
_LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def current() -> Communicator:
    """Whom a fit that begins now shares its rows with."""
    return _active.get()


def launched() -> tuple[int, int]:
    """Rank and number of processes, as a launcher such as torchrun tells them; (0, 1) without one."""
    try:
        rank, world = (int(os.environ[name]) for name in _LAUNCHED[:2])
    except (KeyError, ValueError):
        return 0, 1
    return (rank, world) if all(name in os.environ for name in _LAUNCHED) else (0, 1)


def _join(backend: str) -> None:
    """The group of the launcher's processes."""
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, rank, world = next(rendezvous("env://", timeout=TIMEOUT))
    # torchrun restarts processes around the same store, where those before have left their addresses.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = PrefixStore(f"torchlogit-{attempt}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=TIMEOUT)


@contextmanager
def distributed(group: Any = None, *, backend: str = "gloo") -> Iterator[Communicator]:
    """Make every fit inside one fit over the rows of all processes.

    Each process runs the same code. Of arrays, frames and tensors each gives its own rows, which may be none; a
    ``scan`` is given whole by all, and each reads its share. All end with the same coefficients, those of all rows.

    Outside of it a fit is the business of the process that it is in, whether ``torch.distributed`` is initialised or
    not.

    Parameters
    ----------
    group : ProcessGroup, default=None
        None means all processes of the group that the launcher (Ray Train, Spark, ``torch.distributed``) has
        initialised; under ``torchrun`` one is made, and taken down at the end, if there is none. A single process
        stays alone.
    backend : str, default="gloo"
        Of a group that is made here.

    Yields
    ------
    Communicator
        With ``rank`` and ``world``.

    Examples
    --------
    The same program runs in one process, and in several under ``torchrun --nproc-per-node 2``:

    >>> from sklearn.datasets import load_breast_cancer
    >>> from torchlogit import LogisticRegression, distributed
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> with distributed() as processes:
    ...     own = slice(processes.rank, None, processes.world)
    ...     clf = LogisticRegression().fit(X[own], y[own])
    >>> clf.converged_
    True
    """
    import torch.distributed as dist

    made = False
    if dist.is_available() and not dist.is_initialized() and launched()[1] > 1:
        if backend == "nccl":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        _join(backend)
        made = True
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size(group) > 1
    token = _active.set(Group(group) if several else ALONE)
    try:
        yield _active.get()
    finally:
        _active.reset(token)
        if made:
            dist.destroy_process_group()
