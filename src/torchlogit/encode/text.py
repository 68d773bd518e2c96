"""Texts to counts of hashed words and pairs of neighbouring words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.utils import murmurhash3_32

BUCKETS = 2**20
_WORD = re.compile(r"\w+")
_CACHED_TOKENS = 2_000_000


def tokens(text: str) -> Counter[str]:
    """How often each word, and each pair of neighbouring words, occurs.

    Examples
    --------
    >>> sorted(tokens("Free entry, FREE").items())
    [('entry', 1), ('entry free', 1), ('free', 2), ('free entry', 1)]
    """
    words = _WORD.findall(text.lower())
    counts = Counter(words)
    counts.update(map("{} {}".format, words, words[1:]))
    return counts


class _Buckets(dict[str, int]):
    """Token to bucket, remembered: hashing each occurrence again took twice the time."""

    def __missing__(self, token: str) -> int:
        if len(self) >= _CACHED_TOKENS:
            self.clear()
        bucket = int(murmurhash3_32(token, positive=True)) % BUCKETS
        self[token] = bucket
        return bucket


class TextCounter:
    """Learns which buckets occur in how many texts, and which token stands for a bucket."""

    def __init__(self) -> None:
        self.texts = 0
        self.documents = np.zeros(BUCKETS, dtype=np.int64)
        self._seen: Counter[str] = Counter()
        self._bucket = _Buckets()

    def add(self, texts: Iterable[str | None]) -> None:
        """Count some texts; missing ones are none."""
        hits: list[int] = []
        for text in texts:
            if text is None:
                continue
            self.texts += 1
            found = tokens(text)
            self._seen.update(found.keys())
            hits.extend({self._bucket[token] for token in found})
        self.documents += np.bincount(np.asarray(hits, dtype=np.int64), minlength=BUCKETS)
        if len(self._seen) > _CACHED_TOKENS:  # names are for people: rare ones may be forgotten, counts may not
            self._seen = Counter({token: count for token, count in self._seen.items() if count > 1})

    def finish(self, least: int) -> tuple[NDArray[np.int32], list[str], NDArray[np.float64]]:
        """Buckets in at least ``least`` texts, the most frequent token of each, and its inverse document frequency.

        The frequency's formula is scikit-learn's smoothed one, ``log((1 + n) / (1 + d)) + 1``.
        """
        kept = np.flatnonzero(self.documents >= least).astype(np.int32)
        labels: dict[int, str] = {}
        for token, _ in sorted(self._seen.items(), key=lambda item: (-item[1], item[0])):
            labels.setdefault(self._bucket[token], token)
        idf = np.log((1.0 + self.texts) / (1.0 + self.documents[kept])) + 1.0
        return kept, [labels.get(int(bucket), f"#{bucket}") for bucket in kept], idf


class TextWeigher:
    """Texts to sparse rows: ``(1 + log count) * idf`` in the buckets that were kept.

    Rows are not normalised to length one: that would shrink every row of a long text and make C=1 too strong a
    penalty.
    """

    def __init__(self, kept: NDArray[np.int32], idf: NDArray[np.float64]) -> None:
        self.idf = idf
        self._column = np.full(BUCKETS, -1, dtype=np.int32)
        self._column[kept] = np.arange(kept.size, dtype=np.int32)
        self._bucket = _Buckets()

    def rows(self, texts: Iterable[str | None]) -> scipy.sparse.csr_array:
        """One row a text, columns sorted."""
        columns: list[int] = []
        counts: list[int] = []
        ends = [0]
        column_of = self._column
        for text in texts:
            if text is not None:
                totals: dict[int, int] = {}
                for token, count in tokens(text).items():
                    bucket = self._bucket[token]
                    totals[bucket] = totals.get(bucket, 0) + count
                columns.extend(totals.keys())
                counts.extend(totals.values())
            ends.append(len(columns))
        index = column_of[np.asarray(columns, dtype=np.int64)]
        known = index >= 0
        indptr = np.concatenate([[0], np.cumsum(known)])[np.asarray(ends)]
        index = index[known]
        values = (1.0 + np.log(np.asarray(counts, dtype=np.float64)[known])) * self.idf[index]
        matrix = scipy.sparse.csr_array((values, index, indptr), shape=(len(ends) - 1, self.idf.size))
        matrix.sort_indices()
        return matrix
