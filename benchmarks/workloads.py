"""What is fitted: every workload by name, made from a fixed seed. A new one is one line of ``WORKLOADS``."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from problem import Problem

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@dataclass(frozen=True)
class Workload:
    """How rows are made: ``make(scale)`` gives ``(X, y)``; ``asks`` are further fields of `Problem`."""

    title: str
    make: Callable[[float], tuple[Any, Any]]
    asks: dict[str, Any] = field(default_factory=dict)
    needs: Path | None = None


# -- made rows --------------------------------------------------------------------------------------------------------


def sized(number: int, scale: float, least: int) -> int:
    return max(least, round(number * scale))


def labels(eta: Any, random: Any) -> Any:
    """Drawn from the model: there is an optimum, and it is not separated."""
    import numpy as np

    return (eta + random.logistic(size=len(eta)) > 0).astype(np.int64)


def dense(rows: int, columns: int, dtype: str, scale: float, *, widely: bool = False) -> tuple[Any, Any]:
    """Columns of spread one, each correlated with the one before. ``widely``: the scale goes to the columns too."""
    import numpy as np

    share = math.sqrt(scale) if widely else scale
    rows, columns = sized(rows, share, 300), sized(columns, share if widely else 1.0, 4)
    random = np.random.default_rng(0)
    X = random.standard_normal((rows, columns))
    for j in range(columns - 1, 0, -1):  # column by column: no second copy of X
        X[:, j] = 0.6 * X[:, j - 1] + 0.8 * X[:, j]
    w = random.standard_normal(columns) / columns**0.5
    y = labels(3 * (X @ w) - 0.5, random)
    return X.astype(dtype, copy=False), y


def unscaled(scale: float) -> tuple[Any, Any]:
    """Spreads from 1e-3 to 1e5, every mean 3 to 300 spreads away from zero."""
    import numpy as np

    X, y = dense(500_000, 50, "float64", scale)
    random = np.random.default_rng(2)
    spread = random.permutation(np.logspace(-3, 5, X.shape[1]))
    away = 10 ** random.uniform(np.log10(3), np.log10(300), X.shape[1]) * random.choice([-1, 1], X.shape[1])
    X += away
    X *= spread
    return X, y


def tfidf(most: int, vocabulary: int, words: float, scale: float) -> tuple[Any, Any]:
    """Documents as TfidfVectorizer leaves them: log counts times log rarity, rows of length one.

    So many words in each on average, from a vocabulary whose popularity follows Zipf's law.
    """
    import numpy as np
    import scipy.sparse

    rows, columns = sized(most, scale, 300), sized(vocabulary, math.sqrt(scale), 500)
    random = np.random.default_rng(1)
    chance = filling(columns, words)
    frequent = int((chance > 0.05).sum())
    held = [np.flatnonzero(random.random(rows) < chance[j]) for j in range(frequent)]
    keys = [j * rows + i for j, i in enumerate(held)]
    # Rare words are drawn with replacement, as many as leave the wanted number when the repeated ones are struck out.
    counts = random.poisson(-rows * np.log1p(-chance[frequent:]))
    drawn = np.repeat(np.arange(frequent, columns), counts) * rows + random.integers(rows, size=counts.sum())
    j, i = np.divmod(np.concatenate([*keys, np.unique(drawn)]), rows)
    rarity = np.log((1 + rows) / (1 + np.bincount(j, minlength=columns))) + 1
    values = (1 + np.log(random.geometric(0.7, size=i.size))) * rarity[j]
    X = scipy.sparse.csr_array((values, (i, j)), shape=(rows, columns))
    X.data /= np.repeat(np.sqrt(X.power(2).sum(axis=1)), np.diff(X.indptr))
    X.indices, X.indptr = X.indices.astype(np.int32), X.indptr.astype(np.int32)
    return X, labels(6 * (X @ random.standard_normal(columns)), random)


def filling(columns: int, words: float) -> Any:
    """The chance of each word, ``(columns,)``: Zipf, at most 0.95, adding up to ``words``."""
    import numpy as np

    popular = 1 / np.arange(5, columns + 5)
    low, high = 0.0, 1e9
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(0.95, middle * popular).sum() < words else (low, middle)
    return np.minimum(0.95, low * popular)


def words(rows: int, columns: int, density: float, scale: float) -> tuple[Any, Any]:
    """Columns from frequent to rare, exponential values, rows not normalised."""
    import numpy as np
    import scipy.sparse

    rows = sized(rows, scale, 300)
    random = np.random.default_rng(1)
    frequency = 1 / np.arange(5, columns + 5)
    frequency *= density * columns / frequency.sum()
    counts = random.binomial(rows, np.minimum(frequency, 1))
    i = np.concatenate([random.choice(rows, count, replace=False) for count in counts])
    j = np.repeat(np.arange(columns), counts)
    X = scipy.sparse.csr_array((random.exponential(size=i.size), (i, j)), shape=(rows, columns))
    X.indices, X.indptr = X.indices.astype(np.int32), X.indptr.astype(np.int32)
    return X, labels(X @ random.standard_normal(columns), random)


def clicks(most: int, scale: float) -> tuple[Any, Any]:
    """Ten fields of two to 20,000 values each, one column a value, whose popularity follows Zipf's law."""
    import numpy as np
    import scipy.sparse

    rows, sizes = sized(most, scale, 300), np.array([24, 7, 1_000, 5_000, 20_000, 300, 50, 2, 2, 10_000])
    random = np.random.default_rng(8)
    score, columns = np.full(rows, -2.0), []
    for size, first in zip(sizes, np.cumsum(sizes) - sizes, strict=True):
        popular = 1 / np.arange(2, size + 2)
        value = random.choice(size, rows, p=popular / popular.sum())
        score += 0.4 * random.standard_normal(size)[value]
        columns.append(first + value)
    indptr = np.arange(0, 10 * rows + 1, 10, dtype=np.int32)
    parts = (np.ones(10 * rows), np.stack(columns, 1).ravel().astype(np.int32), indptr)
    return scipy.sparse.csr_array(parts, shape=(rows, int(sizes.sum()))), labels(score, random)


def embeddings(most: int, width: int, classes: int, dtype: str, scale: float) -> tuple[Any, Any]:
    """As a network's last layer: a spectrum that decays as 1/i, classes that overlap, rows of length one."""
    import numpy as np

    rows, columns = sized(most, math.sqrt(scale), 300), sized(width, math.sqrt(scale), 16)
    classes = sized(classes, math.sqrt(scale), 5)
    random = np.random.default_rng(3)
    rotation = np.linalg.qr(random.standard_normal((columns, columns)))[0]
    spectrum = 1 / np.arange(1, columns + 1)
    y = random.integers(classes, size=rows)
    X = (random.standard_normal((classes, columns))[y] + random.standard_normal((rows, columns))) * spectrum
    X = X @ rotation
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return np.ascontiguousarray(X, dtype), np.unique(y, return_inverse=True)[1]


def genes(scale: float) -> tuple[Any, Any]:
    """Fewer rows than columns, of which one in a hundred differs between two classes: separated, as such rows are."""
    import numpy as np

    rows, columns = sized(300, math.sqrt(scale), 30), sized(20_000, math.sqrt(scale), 300)
    random = np.random.default_rng(6)
    y = random.integers(2, size=rows)
    X = random.standard_normal((rows, 10)) @ random.standard_normal((10, columns))
    X += random.standard_normal((rows, columns))
    X[:, : columns // 100] += y[:, None]
    return X, y


def overlapping_classes(most: int, classes: int, strength: float, seed: int, scale: float) -> tuple[Any, Any]:
    """Few independent columns, classes that overlap: nothing is hard about it."""
    import numpy as np

    rows, columns = sized(most, scale, 300), 50
    random = np.random.default_rng(seed)
    X = random.standard_normal((rows, columns))
    scores = X @ random.standard_normal((columns, classes)) * strength / np.sqrt(columns)
    return X, (scores + random.gumbel(size=scores.shape)).argmax(1)


# -- real rows --------------------------------------------------------------------------------------------------------


def mnist(scale: float) -> tuple[Any, Any]:
    """The 10,000 test images, pixels divided by 255."""
    import numpy as np

    with gzip.open(SHARED / "mnist_t10k-images-idx3-ubyte.gz") as file:
        X = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784) / 255.0
    with gzip.open(SHARED / "mnist_t10k-labels-idx1-ubyte.gz") as file:
        y = np.frombuffer(file.read(), np.uint8, offset=8).astype(np.int64)
    rows = sized(len(y), scale, 300)
    return X[:rows].copy(), y[:rows]


def cancer(scale: float, *, standardised: bool) -> tuple[Any, Any]:
    import numpy as np
    from sklearn.datasets import load_breast_cancer

    X, y = load_breast_cancer(return_X_y=True)
    if standardised:
        X = (X - X.mean(0)) / X.std(0)
    return np.ascontiguousarray(X), y.astype(np.int64)


def digits(scale: float) -> tuple[Any, Any]:
    import numpy as np
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return np.ascontiguousarray(X), y.astype(np.int64)


# -- names ------------------------------------------------------------------------------------------------------------

MILLION = partial(dense, 1_000_000, 100, "float64")
SMALL = partial(dense, 200_000, 50, "float64")
DOCUMENTS = partial(tfidf, 200_000, 50_000, 72.0)

WORKLOADS: dict[str, Workload] = {
    "dense-1m": Workload("dense", MILLION),
    "dense-1m-float32": Workload("dense float32", partial(dense, 1_000_000, 100, "float32")),
    "dense-5m": Workload("dense", partial(dense, 5_000_000, 20, "float64")),
    "dense-2000": Workload("dense", partial(dense, 20_000, 2_000, "float64", widely=True)),
    "dense-1000": Workload("dense", partial(dense, 60_000, 1_000, "float64", widely=True)),
    "tfidf": Workload("tf-idf, rows of length one", DOCUMENTS),
    "texts": Workload("tf-idf of short texts", partial(tfidf, 5_000, 10_000, 15.0)),
    "clicks": Workload("one-hot columns of clicks", partial(clicks, 100_000)),
    "genes": Workload("fewer rows than columns", genes),
    "unscaled": Workload("unscaled, spreads 1e-3 to 1e5, far from centred", unscaled),
    "mnist": Workload("MNIST / 255", mnist, needs=SHARED / "mnist_t10k-images-idx3-ubyte.gz"),
    "embeddings": Workload("embeddings", partial(embeddings, 20_000, 512, 100, "float64")),
    "probe": Workload("few embeddings, float32", partial(embeddings, 2_000, 384, 10, "float32")),
    "two-classes": Workload("two classes, few independent columns", partial(overlapping_classes, 10_000, 2, 2, 7)),
    "three-classes": Workload("200,000 x 50, three classes", partial(overlapping_classes, 200_000, 3, 2, 6)),
    "ten-classes": Workload("ten classes, few independent columns", partial(overlapping_classes, 10_000, 10, 3, 5)),
    "cancer-raw": Workload("breast cancer, raw units", partial(cancer, standardised=False)),
    "cancer": Workload("breast cancer, standardised", partial(cancer, standardised=True)),
    "digits": Workload("digits", digits),
    "dense": Workload("dense", SMALL),
    "dense-float32": Workload("dense float32", partial(dense, 200_000, 50, "float32")),
    "dense-no-penalty": Workload("dense, no penalty", SMALL, {"C": math.inf}),
    "sparse": Workload("sparse, rows not normalised", partial(words, 50_000, 5_000, 0.01)),
    # Without an intercept, since Celer has none; C so small that about half of the columns are out.
    "dense-l1": Workload("dense, L1, no intercept", SMALL, {"C": 3e-4, "l1": True, "intercept": False}),
    "predict-row": Workload("probabilities of one row, dense", SMALL, {"predict": "row"}),
    "predict-1m": Workload("probabilities, dense", MILLION, {"predict": "all"}),
    "predict-tfidf": Workload("probabilities, tf-idf", DOCUMENTS, {"predict": "all"}),
}


def shape(X: Any, y: Any) -> str:
    """Real sizes, whatever was asked for."""
    filled = f", {X.nnz:,} non-zeros" if hasattr(X, "nnz") else ""
    classes = int(y.max()) + 1
    return f"{X.shape[0]:,} x {X.shape[1]:,}{filled}" + (f", {classes} classes" if classes > 2 else "")


def load(name: str, scale: float, threads: int, folder: Path) -> Problem:
    """The rows from ``folder``, where the first call puts them: read again, they leave no temporary memory behind."""
    import numpy as np
    import scipy.sparse

    workload = WORKLOADS[name]
    told = folder / "told.json"
    if not told.exists():
        X, y = workload.make(scale)
        parts = {"data": X.data, "indices": X.indices, "indptr": X.indptr} if hasattr(X, "nnz") else {"X": X}
        for key, part in {**parts, "y": y}.items():
            np.save(folder / f"{key}.npy", part)
        told.write_text(json.dumps({"shape": X.shape, "title": f"{workload.title}, {shape(X, y)}"}), encoding="utf-8")
        del X, y, parts
    facts = json.loads(told.read_text(encoding="utf-8"))
    if (folder / "X.npy").exists():
        X = np.load(folder / "X.npy")
    else:
        parts = tuple(np.load(folder / f"{key}.npy") for key in ("data", "indices", "indptr"))
        X = scipy.sparse.csr_array(parts, shape=facts["shape"])
    return Problem(name, facts["title"], X, np.load(folder / "y.npy"), **workload.asks, threads=threads)
