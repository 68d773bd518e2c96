"""What a fit costs: a small model, with its numbers measured on a sample. ``docs/scaling.md`` derives and checks it."""

from __future__ import annotations

import math
from dataclasses import dataclass

# Of an exchange between machines: 10 Gbit/s, and what a message waits. On one machine both are better.
BANDWIDTH, LATENCY = 1.25e9, 1e-4
# Bytes that a process keeps for each row of the whole table: its label's code, and whether it is held out.
_LABEL_BYTES = 26
# Blocks on their way from file to memory, and libraries at work (benchmarks/scaling.py: 170 to 200 MB).
_IN_FLIGHT = 180e6
# Compiled loops, with what compiles them.
_COMPILED = 120e6
# Of the memory that a fit may take, what rows take whose rest stays in files: a sample, and what the sums over it need.
_STREAMED = 0.8
# Matrices of all coefficients by all that an exact step holds at a time.
_MATRICES = 4


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Parameters
    ----------
    rows : int
        Of the files.
    fitted : float
        The share of them that is not held out.
    bytes_per_row : float
        Of an encoded row in memory, with label, weight and offset.
    file_bytes : int
    skipped : bool
        Whether a process can leave out what is not its own (Parquet), or has to read all of the files (text).
    passes : float
        Reads of all fitted rows.
    coefficients : int
    whole_hessian : bool
        Whether a pass may add up all coefficients by all.
    budget : float, optional
        Bytes of memory of a process whose rows stay in their files, where every pass is a read of them; None where
        they are loaded.
    compiled : bool, default=False
        Whether the rows are swept by compiled loops.
    """

    rows: int
    fitted: float
    bytes_per_row: float
    file_bytes: int
    skipped: bool
    passes: float
    coefficients: int
    whole_hessian: bool
    budget: float | None = None
    compiled: bool = False


@dataclass(frozen=True)
class Speed:
    """What was measured, in seconds.

    Parameters
    ----------
    label : float
        To read a row's label.
    learn : float
        To read a row and learn the encoding from it.
    decode, encode : float
        To read a row from its file, and to make numbers of it.
    row_pass : float
        A row's part of a pass.
    fixed : float
        What does not depend on the number of rows.
    """

    label: float
    learn: float
    decode: float
    encode: float
    row_pass: float
    fixed: float


@dataclass(frozen=True)
class Cost:
    """The answer: seconds by part, and bytes."""

    learning: float
    reading: float
    passes: float
    exchanging: float
    measuring: float
    fixed: float
    file_reads: float
    bytes_read: float  # by all processes
    pass_bytes: float  # of memory, by one process in one pass
    memory: float  # of one process, beyond the interpreter

    @property
    def seconds(self) -> float:
        """All parts."""
        return self.learning + self.reading + self.passes + self.exchanging + self.measuring + self.fixed


def cost(job: Job, speed: Speed, processes: int) -> Cost:
    """The cost model.

    Parameters
    ----------
    job : Job
    speed : Speed
    processes : int
        Each with a core and a memory bus of its own.

    Examples
    --------
    >>> job = Job(1_000_000, 1.0, 424.0, 400_000_000, True, 10.0, 51, False)
    >>> speed = Speed(label=1e-8, learn=1e-6, decode=1e-6, encode=1e-6, row_pass=1e-7, fixed=0.1)
    >>> one, two = cost(job, speed, 1), cost(job, speed, 2)
    >>> round(one.seconds, 2), round(two.seconds, 2)
    (4.11, 2.11)
    """
    own = job.rows * job.fitted / processes
    decoded = job.rows / processes if job.skipped else job.rows
    numbers = job.coefficients**2 if job.whole_hessian else job.coefficients
    steps = 2 * math.ceil(math.log2(processes)) if processes > 1 else 0
    exchange = steps * LATENCY + 2 * (processes - 1) / processes * 8 * numbers / BANDWIDTH
    # Each process learns some of the columns from all rows.
    parsed = 0.0 if job.skipped else min(speed.decode, speed.learn)
    learn = parsed + (speed.learn - parsed) / processes
    held_out = job.rows * (1 - job.fitted)
    measuring = decoded * speed.decode + held_out / processes * speed.encode if held_out else 0.0
    reading = decoded * speed.decode + own * speed.encode
    # Text is decoded once, and then read from a cache.
    again = job.passes if job.budget is not None and job.skipped else 0.0
    readers = 1 if job.skipped else processes
    loaded = own * job.bytes_per_row if job.budget is None else _STREAMED * job.budget
    labels = job.rows * _LABEL_BYTES  # before a sample is drawn
    return Cost(
        learning=job.rows * (speed.label + learn),
        reading=reading,
        # The next rows are read while the last ones are computed with.
        passes=job.passes * max(own * speed.row_pass, reading if again else 0.0),
        exchanging=job.passes * exchange,
        measuring=measuring,
        fixed=speed.fixed,
        file_reads=2.0 + again + bool(held_out),  # learning, loading, measuring; a column of labels is not counted
        bytes_read=float(job.file_bytes) * (2 + again + bool(held_out)) * readers,
        pass_bytes=own * job.bytes_per_row,
        memory=_IN_FLIGHT
        + job.compiled * _COMPILED
        + (loaded + labels if job.budget is None else max(loaded, labels))
        + (_MATRICES * 8.0 * job.coefficients**2 if job.whole_hessian else 0.0),
    )
