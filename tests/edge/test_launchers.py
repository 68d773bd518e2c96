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


def _work() -> Any:
    """What each process runs. It arrives there by value, as functions inside of functions do, with its imports."""

    def fit(given: dict[str, Any]) -> None:
        import json
        from pathlib import Path

        from sklearn.datasets import load_breast_cancer

        from torchlogit import LogisticRegression, distributed
        from torchlogit.sources import shard

        shard.GATHERED_BYTES = 0
        X, y = load_breast_cancer(return_X_y=True)
        with distributed() as processes:
            own = slice(processes.rank, None, processes.world)
            model = LogisticRegression(tol=1e-10).fit(X[own], y[own])
        said = {"world": processes.world, "coefficients": model.coef_[0].tolist(), "objective": model.plan_.objective}
        (Path(given["folder"]) / f"{processes.rank}.json").write_text(json.dumps(said))

    fit.__annotations__ = {}
    return fit


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
            _work(),
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
        TorchDistributor(num_processes=2, local_mode=True, use_gpu=False).run(_work(), {"folder": str(tmp_path)})
    finally:
        session.stop()
    _check(tmp_path)
