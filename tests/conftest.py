"""Fixtures that more than one directory of tests uses."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

# One thread a process: pytest-xdist already fills the machine, and sums must not depend on how many share it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# Before anything imports it: the loops for CUDA devices are tested on CPU tensors.
os.environ.setdefault("TRITON_INTERPRET", "1")

import numpy as np
import pytest
import torch

SHARED_DATA = Path(__file__).parents[1].parent / "shared" / "data"


@pytest.fixture(autouse=True)
def fixed_numerics():
    """The same threads, seeds and default dtype for every test, whatever ran before."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def rng():
    return np.random.default_rng(20240607)


@pytest.fixture(scope="session")
def shared_data():
    """Real data sets beside the repository; see the README there."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the real data sets are not on this machine: {SHARED_DATA} does not exist")
    return SHARED_DATA


@pytest.fixture(scope="session")
def agaricus(shared_data):
    """``X (6513, 126)`` CSR and ``y`` in {0, 1}: mushrooms, separated by their smell."""
    from sklearn.datasets import load_svmlight_file

    X, y = load_svmlight_file(str(shared_data / "agaricus.train.libsvm"))
    return X.tocsr(), y.astype(int)


@pytest.fixture(scope="session")
def a9a(shared_data):
    """``X (32561, 123)`` CSR of zeros and ones, ``y`` in {0, 1}."""
    from sklearn.datasets import load_svmlight_file

    with gzip.open(shared_data / "a9a.libsvm.gz") as file:
        X, y = load_svmlight_file(file)
    return X.tocsr(), (y > 0).astype(int)


@pytest.fixture(scope="session")
def endometrial(shared_data):
    """Columns NV, PI, EH and the grade of 79 tumours; NV separates quasi-completely."""
    import pandas as pd

    frame = pd.read_csv(shared_data / "endometrial.csv")
    return frame[["NV", "PI", "EH"]], frame["HG"]


@pytest.fixture(scope="session")
def wells(shared_data):
    import pandas as pd

    return pd.read_csv(shared_data / "wells.csv")


@pytest.fixture(scope="session")
def birthwt(shared_data):
    import pandas as pd

    frame = pd.read_csv(shared_data / "birthwt.csv")
    for level in (2, 3):
        frame[f"race{level}"] = (frame["race"] == level).astype(float)
    return frame
