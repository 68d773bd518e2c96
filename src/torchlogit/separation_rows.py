"""The rows of a separation test, in units that no outlier sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchlogit.coordinates import Coordinates
from torchlogit.kernels import TorchKernel
from torchlogit.objective import Objective
from torchlogit.problem import Block, Frame

_EPS = float(np.finfo(np.float64).eps)
# Entries of a block of rows that is written out.
_BLOCK_ELEMENTS = 4_194_304
# Rows from which a column's typical values are taken.
_SAMPLE_ROWS = 4_096
# Operations and entries that the principal directions of the rows may cost.
_BASIS_OPERATIONS = 2e11
_BASIS_ELEMENTS = 2.5e7


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows ``z (r, D)``, their lengths in the basis, their classes, and whether they count (zeros if not)."""

    z: NDArray[np.float64]
    length: NDArray[np.float64]
    own: NDArray[np.int64]
    present: NDArray[np.bool_]


class Rows:
    """One lane's rows in units that no outlier sets, ``D`` columns with the intercept last (if there is one).

    The basis spans what moves some row by more than rounding, so that collinear columns are one.
    """

    def __init__(self, objective: Objective, lanes: Tensor) -> None:
        self.objective, self.lane = objective, int(lanes[0])
        self.intercept = objective.fit_intercept
        self.columns = objective.width - 1 + self.intercept
        frame = self._frame()
        self.kernel = TorchKernel(objective.kernel.loss, frame)
        self.units = Coordinates(frame.shift[None], frame.scale[None])
        self.lengths: list[NDArray[np.float64]] = []
        centre = (frame.shift.abs() / frame.scale).cpu().numpy()
        self.centre = np.append(centre, 0.0)[: self.columns]

    @cached_property
    def _map(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self._directions()

    @property
    def basis(self) -> NDArray[np.float64]:
        """Directions to coefficients of ``z``, ``(D, S)``."""
        return self._map[0]

    @property
    def inverse(self) -> NDArray[np.float64]:
        """Its pseudoinverse, ``(S, D)``."""
        return self._map[1]

    # -- units --------------------------------------------------------------------------------------------------

    def _frame(self) -> Frame:
        """Columns minus their median over the median distance from it of the values that differ from it."""
        moments, lane = self.objective.moments, self.lane
        plain = Frame(torch.zeros_like(moments.largest), torch.ones_like(moments.largest))
        raw = TorchKernel(self.objective.kernel.loss, plain)
        width = self.objective.width
        rows = self.objective.source.rows
        step = -(-rows // max(1, min(_SAMPLE_ROWS, _BLOCK_ELEMENTS // width)))
        sample = []
        for block, present in self._blocks():
            chosen = np.flatnonzero(present)[::step]
            if chosen.size:
                index = torch.from_numpy(chosen).to(block.device)
                sample.append(raw.design(block.take(index))[:, :-1].cpu())
        x = torch.cat(sample)
        shiftable = (moments.stored & (moments.deviation[lane] > 0)).cpu()
        centre = torch.where(shiftable, x.median(0).values, 0.0) if self.intercept else torch.zeros_like(x[0])
        distance = (x - centre).abs()
        unit = torch.where(distance > 0, distance, torch.nan).nanmedian(0).values
        given = moments.scale(self.intercept)[lane].cpu()
        varies = moments.deviation[lane].cpu() > 0 if self.intercept else given != 1
        unit = torch.where(torch.isfinite(unit) & (unit >= 1e-300) & varies, unit, given)
        # Squares of what is far away must stay finite.
        unit = torch.maximum(unit, 1e-140 * moments.largest.cpu())
        return Frame(centre.to(moments.largest.device), unit.to(moments.largest.device))

    def _directions(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Basis and pseudoinverse: principal directions of the rows of length one, or plain columns if that is dear."""
        rows, size = self.objective.source.rows, self.columns
        rank = min(rows, size)
        if float(rows) * rank * size > _BASIS_OPERATIONS or float(rank) * size > _BASIS_ELEMENTS:
            return np.eye(size), np.eye(size)
        upper, noise = np.zeros((0, size)), np.zeros(size)
        for z, _, present in self.written():
            z = z[present]
            length = _norms(z)[:, None]
            upper = triangle(upper, z / length)
            noise += np.square((np.abs(z) + self.centre) / length).sum(0)
        norm = np.linalg.norm(upper, axis=0)
        norm = np.where(norm > 0, norm, 1.0)
        singular, vectors = singular_values(upper / norm)
        rounding = 4 * _EPS * np.sqrt(np.square(vectors) @ (noise / norm**2))
        seen = singular > np.maximum(rounding, 4e-15 * size**0.5 * singular[0])
        unit = (singular[seen] / rows**0.5)[:, None]
        return (vectors[seen] / unit / norm).T, vectors[seen] * unit * norm

    # -- rows ---------------------------------------------------------------------------------------------------

    def _blocks(self) -> Iterator[tuple[Block, NDArray[np.bool_]]]:
        # All constraints of a block, each as long as all classes' columns.
        written = self.objective.width * self.objective.outputs**2
        step = max(1, min(4096, _BLOCK_ELEMENTS // written))
        for block in self.objective.source.blocks(step):
            weight = block.weight
            if weight is None:
                yield block, np.ones(block.rows, dtype=bool)
            else:
                yield block, ((weight if weight.ndim == 1 else weight[:, self.lane]) > 0).cpu().numpy()
        self.objective.effort.passes += self.objective.source.rows / self.objective.effort.total_rows

    def written(self) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]]:
        """Rows ``z (r, D)``, classes and whether they count, block by block; those that do not hold zeros."""
        for block, present in self._blocks():
            z = self.kernel.design(block)[:, : self.columns].cpu().numpy()
            target = block.target if block.target.ndim == 1 else block.target[:, self.lane]
            yield np.where(present[:, None], z, 0.0), target.to(torch.int64).cpu().numpy(), present

    def pieces(self) -> Iterator[Piece]:
        """All rows, block by block."""
        known = len(self.lengths) > 0
        for i, (z, own, present) in enumerate(self.written()):
            if not known:
                self.lengths.append(np.linalg.norm(self._turned(z), axis=1) * _norms(z))
            yield Piece(z, self.lengths[i], own, present)

    def in_basis(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Rows in the basis, of length one (or zero), ``(r, S)``."""
        q = self._turned(z)
        return q / _norms(q)[:, None]

    def _turned(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        turned: NDArray[np.float64] = (z / _norms(z)[:, None]) @ self.basis
        return turned


def _norms(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lengths of rows, one for those of zeros."""
    norms = np.linalg.norm(rows, axis=1)
    return np.where(norms > 0, norms, 1.0)


def triangle(upper: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The triangular factor of a triangular factor and more rows (torch's is several times as fast as NumPy's)."""
    factor: NDArray[np.float64] = torch.linalg.qr(torch.from_numpy(np.vstack([upper, rows])), mode="r")[1].numpy()
    return factor


def singular_values(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Singular values, and right singular vectors as rows."""
    values, vectors = torch.linalg.svd(torch.from_numpy(matrix), full_matrices=False)[1:]
    return values.numpy(), vectors.numpy()
