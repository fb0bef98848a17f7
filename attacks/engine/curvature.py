"""The memory of L-BFGS for many lanes: search directions from inner products instead of two loops.

With the m pairs s_i = x_{i+1} - x_i and y_i = g_{i+1} - g_i as rows of S and Y, oldest first, R the upper
triangle of S Y^T, D its diagonal and gamma = s_m.y_m / y_m.y_m, the two loops of L-BFGS (Nocedal and Wright
2006, algorithm 7.4) are, written out, two triangular systems in m unknowns:

    R a = -S g,    R^T c = D a + gamma (Y g + Y Y^T a),    d = -gamma (g + Y^T a) + S^T c

(Byrd, Nocedal and Schnabel 1994, theorem 2.2). R and Y Y^T gain one column a step, from S g and Y g, which
are needed anyway; so a step reads the pairs twice, in two matrix-vector products, and nothing is left to
loop over.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Curvature:
    """The latest pairs of each of B lanes, at most `size` of them.

    Args:
        lanes: B.
        variables: D, entries of x.
        size: Pairs kept.
        like: Decides dtype and device.
    """

    def __init__(self, lanes: int, variables: int, size: int, like: Tensor) -> None:
        self._size = size
        self._pairs = like.new_zeros(lanes, size, 2, variables)
        self._matrices = self._pairs.flatten(1, 2).unbind()
        self._upper = torch.eye(size, dtype=like.dtype, device=like.device).repeat(lanes, 1, 1)
        self._y_products = like.new_zeros(lanes, size, size)
        self._products = like.new_zeros(lanes, size, 2)
        self._gamma = like.new_ones(lanes)
        self._counts = [0] * lanes
        self._next = [0] * lanes

    def clear(self, lane: int) -> None:
        """Forget a lane's pairs."""
        self._pairs[lane].zero_()
        self._upper[lane] = torch.eye(self._size, dtype=self._upper.dtype, device=self._upper.device)
        self._y_products[lane].zero_()
        self._products[lane].zero_()
        self._gamma[lane] = 1
        self._counts[lane] = self._next[lane] = 0

    def directions(
        self,
        lanes: Sequence[int],
        gradients: Tensor,
        steps: Tensor,
        changes: Tensor,
        *,
        tiny: float,
    ) -> Tensor:
        """Take in the last step of each of `lanes` and return the next search directions, `B x D`.

        Args:
            lanes: Which lanes move; the other rows of what is returned mean nothing.
            gradients: g, `B x D`.
            steps: The latest s, `B x D`.
            changes: The latest y, `B x D`.
            tiny: A pair with s.y of at most this is left out.
        """
        curvature = (steps * changes).sum(1)
        lengths = (changes * changes).sum(1)
        along = curvature.tolist()
        kept = [lane for lane in lanes if along[lane] > tiny]
        self._insert(kept, steps, changes)
        order = self._order()
        fresh = self._multiply(lanes, gradients).gather(1, order.unsqueeze(2).expand(-1, -1, 2))
        if kept:
            self._extend(kept, fresh, curvature, lengths)
        moved = torch.zeros(len(fresh), dtype=torch.bool, device=fresh.device)
        moved[list(lanes)] = True
        self._products = torch.where(moved.view(-1, 1, 1), fresh, self._products)
        weights = self._solve(fresh)
        slots = torch.zeros_like(weights).scatter(1, order.unsqueeze(2).expand(-1, -1, 2), weights)
        return self._combine(lanes, slots) - self._gamma.unsqueeze(1) * gradients

    def _insert(self, kept: Sequence[int], steps: Tensor, changes: Tensor) -> None:
        """Write pairs into their slots; in a full lane the oldest makes room."""
        full = [lane for lane in kept if self._counts[lane] == self._size]
        if full:
            for small in (self._upper, self._y_products):
                small[full, :-1, :-1] = small[full, 1:, 1:]
            self._products[full, :-1] = self._products[full, 1:]
        for of_pair, latest in enumerate((steps.unbind(), changes.unbind())):
            for lane in kept:
                self._matrices[lane][2 * self._next[lane] + of_pair].copy_(latest[lane])
        for lane in kept:
            self._next[lane] = (self._next[lane] + 1) % self._size
            self._counts[lane] = min(self._counts[lane] + 1, self._size)

    def _order(self) -> Tensor:
        """Return the slots of each lane from the oldest to the newest, `B x size`, unused ones last."""
        first = [n if c == self._size else 0 for n, c in zip(self._next, self._counts, strict=True)]
        starts = torch.tensor(first, device=self._pairs.device).unsqueeze(1)
        return (starts + torch.arange(self._size, device=self._pairs.device)) % self._size

    def _extend(self, kept: Sequence[int], fresh: Tensor, curvature: Tensor, lengths: Tensor) -> None:
        """Add the newest pair's column to R and Y Y^T: S y and Y y are differences of S g and Y g."""
        rows = torch.tensor(kept, device=fresh.device)
        newest = torch.tensor([self._counts[lane] - 1 for lane in kept], device=fresh.device)
        older = torch.arange(self._size, device=fresh.device) < newest.unsqueeze(1)
        columns = (fresh - self._products)[rows].masked_fill(~older.unsqueeze(2), 0)
        columns = columns.scatter(
            1,
            newest.view(-1, 1, 1).expand(-1, 1, 2),
            torch.stack([curvature[rows], lengths[rows]], 1).unsqueeze(1),
        )
        self._upper[rows, newest] = 0
        self._upper[rows, :, newest] = columns[:, :, 0]
        self._y_products[rows, :, newest] = columns[:, :, 1]
        self._y_products[rows, newest] = columns[:, :, 1]
        self._gamma[rows] = curvature[rows] / lengths[rows]

    def _solve(self, products: Tensor) -> Tensor:
        """Return the weights of all s and y in the direction, oldest first, `B x size x 2`."""
        s_g, y_g = products[:, :, :1], products[:, :, 1:]
        a = torch.linalg.solve_triangular(self._upper, -s_g, upper=True)
        gamma = self._gamma.view(-1, 1, 1)
        diagonal = self._upper.diagonal(dim1=1, dim2=2).unsqueeze(2)
        right = diagonal * a + gamma * (y_g + torch.bmm(self._y_products, a))
        c = torch.linalg.solve_triangular(self._upper.mT, right, upper=False)
        return torch.cat([c, -gamma * a], 2)

    def _multiply(self, lanes: Sequence[int], gradients: Tensor) -> Tensor:
        """Return S g and Y g by slot, `B x size x 2`."""
        if gradients.device.type != "cpu":
            return torch.bmm(self._pairs.flatten(1, 2), gradients.unsqueeze(2)).view(-1, self._size, 2)
        products = torch.zeros_like(self._products)
        into, along = products.flatten(1).unbind(), gradients.unbind()
        for lane in lanes:
            used = 2 * self._counts[lane]
            torch.mv(self._matrices[lane][:used], along[lane], out=into[lane][:used])
        return products

    def _combine(self, lanes: Sequence[int], weights: Tensor) -> Tensor:
        """Return the sum of all s and y of a lane with weights by slot, `B x D`."""
        if weights.device.type != "cpu":
            return torch.bmm(weights.flatten(1).unsqueeze(1), self._pairs.flatten(1, 2)).squeeze(1)
        combined = self._pairs.new_zeros(len(weights), self._pairs.shape[3])
        into, of_pairs = combined.unbind(), weights.flatten(1).unbind()
        for lane in lanes:
            used = 2 * self._counts[lane]
            torch.mv(self._matrices[lane][:used].T, of_pairs[lane][:used], out=into[lane])
        return combined
