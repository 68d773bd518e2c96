"""Arrays in NumPy's own files: columns without names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from torchlogit.errors import InputError
from torchlogit.sources.files import BLOCK_BYTES, changed, reading

_MOST_ROWS = 1 << 17


class NumpyFile:
    """One ``.npy`` file with a table of numbers, ``(rows, columns)``; the columns are ``column_0``, ``column_1``, …

    Parameters
    ----------
    path : Path
    name : str
        For messages.
    block_bytes : int
        About how much is read at a time (an eighth of it).
    """

    def __init__(self, path: Path, name: str, block_bytes: int = BLOCK_BYTES) -> None:
        self.path = path
        self.name = name
        self.size = path.stat().st_size
        array = self._mapped()
        if array.ndim != 2 or array.dtype.kind not in "biuf":
            raise InputError(
                f"{name} holds an array of {array.dtype} with {array.ndim} dimensions; a table is a two-dimensional "
                "array of numbers"
            )
        if not array.shape[1]:
            raise InputError(f"{name} has no columns; write an array with at least one")
        self._rows, columns = (int(size) for size in array.shape)
        self._dtype = array.dtype.newbyteorder("=")
        self._block_rows = int(np.clip(block_bytes // columns, 256, _MOST_ROWS))
        kind = pa.from_numpy_dtype(self._dtype)
        self.schema = pa.schema([(f"column_{j}", kind) for j in range(columns)])

    def _mapped(self) -> NDArray[Any]:
        with reading(self.name):
            try:
                array: NDArray[Any] = np.load(self.path, mmap_mode="r", allow_pickle=False)
            except ValueError:
                raise InputError(
                    f"{self.name} is not a complete array of numbers (it is cut short, or holds objects); write it "
                    "again with numpy.save"
                ) from None
        return array

    def known_rows(self) -> int:
        """Number of rows, from the header."""
        return self._rows

    def where(self, row: int) -> str:
        """File and row."""
        return f"{self.name}, row {row + 1:,}"

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[pa.RecordBatch, float]]:
        """Blocks of these columns."""
        wanted = [int(name.removeprefix("column_")) for name in columns]
        for start in range(0, self._rows, self._block_rows):
            # mapped anew for every block: pages that stay mapped would count as the process's memory
            array = self._mapped()
            if array.shape != (self._rows, len(self.schema)):
                raise changed(self.name)
            stop = min(start + self._block_rows, self._rows)
            block = np.array(array[start:stop][:, wanted], dtype=self._dtype, order="F")
            del array
            yield pa.RecordBatch.from_arrays(list(map(pa.array, block.T)), names=list(columns)), stop / self._rows
