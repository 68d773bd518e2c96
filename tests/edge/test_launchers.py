"""Other launchers than torchrun: each has initialised ``torch.distributed`` (or set its variables) when a fit begins.

They are no dependency of the project: without them these tests are skipped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torchlogit import LogisticRegression

# What their own libraries warn about is not ours to mend.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def _fit(given: dict[str, Any]) -> None:
    """What each process runs; it arrives there by pickle, so it imports what it needs."""
    import json as json_
    from pathlib import Path as Path_

    from sklearn.datasets import load_breast_cancer

    from torchlogit import LogisticRegression as Classifier
    from torchlogit import distributed
    from torchlogit.sources import shard

    shard.GATHERED_BYTES = 0
    X, y = load_breast_cancer(return_X_y=True)
    with distributed() as processes:
        own = slice(processes.rank, None, processes.world)
        model = Classifier(tol=1e-10).fit(X[own], y[own])
    said = {"world": processes.world, "coefficients": model.coef_[0].tolist(), "objective": model.plan_.objective}
    (Path_(given["folder"]) / f"{processes.rank}.json").write_text(json_.dumps(said))


def _check(folder: Path) -> None:
    from sklearn.datasets import load_breast_cancer

    X, y = load_breast_cancer(return_X_y=True)
    alone = LogisticRegression(tol=1e-10).fit(X, y)
    said = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    assert said[0] == said[1]
    assert said[0]["world"] == 2
    assert said[0]["objective"] == alone.plan_.objective
    np.testing.assert_allclose(said[0]["coefficients"], alone.coef_[0], rtol=1e-9)


def test_ray(tmp_path: Path) -> None:
    """Ray Train's ``TorchTrainer``."""
    ray = pytest.importorskip("ray", reason="ray is not installed")
    pytest.importorskip("ray.train.torch", reason="ray is installed without ray.train")
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    try:
        TorchTrainer(
            _fit,
            train_loop_config={"folder": str(tmp_path)},
            scaling_config=ScalingConfig(num_workers=2),
            torch_config=TorchConfig(backend="gloo"),
            run_config=RunConfig(storage_path=str(tmp_path / "ray")),
        ).fit()
    finally:
        ray.shutdown()
    _check(tmp_path)


def test_spark(tmp_path: Path) -> None:
    """Spark's ``TorchDistributor``, on the driver's machine."""
    pytest.importorskip("pyspark", reason="pyspark is not installed")
    from pyspark.ml.torch.distributor import TorchDistributor
    from pyspark.sql import SparkSession

    session = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        TorchDistributor(num_processes=2, local_mode=True, use_gpu=False).run(_fit, {"folder": str(tmp_path)})
    finally:
        session.stop()
    _check(tmp_path)
