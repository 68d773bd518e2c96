"""scikit-learn's own tests of LogisticRegression, with one import changed.

The module is read from the installed scikit-learn when this test runs; what is left out is listed with its reason. A
reason that no longer matches any test fails too, so that the list cannot outlive its causes.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import sklearn

_IMPORT = "from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, SGDClassifier\n"
_CHANGED = (
    "from sklearn.linear_model import LogisticRegressionCV, SGDClassifier\n"
    "from torchlogit import LogisticRegression\n"
)

_L1 = "L1 and elastic-net penalties are not part of this estimator yet"
_CV = "LogisticRegressionCV alone: scikit-learn's own class, the changed import does not reach it"
_CV_L1 = "LogisticRegressionCV beside an L1 or elastic-net fit"
_CALLBACKS = "scikit-learn's callback protocol"
_PRIVATE = "calls a private helper of scikit-learn's module"
_INDEX64 = "that solver's C code refuses 64-bit indices; there is no such limit here"

# Regular expressions that match whole test names, parameters included.
LEFT_OUT = {
    r"test_check_solver_option\[.*\]": "which penalty goes with which of scikit-learn's solvers",
    r"test_elasticnet_l1_ratio_err_helpful\[LogisticRegressionCV.*\]": _CV,
    r"test_consistency_path\[.*\]": _PRIVATE,
    r"test_logistic_regression_path_.*": _PRIVATE,
    r"test_logistic_cv_multinomial_score\[.*\]": _PRIVATE,
    r"test_liblinear_dual_random_state\[.*\]": "wants liblinear's dual solver to depend on its random numbers",
    r"test_logistic_cv\[.*\]": "wants six digits of a liblinear fit at its loose default tolerance",
    r"test_logistic_cv_(refit|mock|folds|sparse).*": _CV,
    r"test_multinomial_cv_iris\[.*\]": _CV,
    r"test_logistic_regressioncv_class_weights\[.*\]": _CV,
    r"test_logistic_regression_sample_weights\[.*-cv\]": _CV,
    r"test_LogisticRegressionCV_(no_refit|elasticnet|on_folds).*": _CV,
    r"test_LogisticRegressionCV_GridSearchCV_elastic_net\[.*\]": _CV_L1,
    r"test_lr_cv_scores_.*": _CV,
    r"test_scores_attribute_layout_elasticnet": _CV_L1,
    r"test_logistic_regression_cv_refit\[.*-1\]": _CV_L1,
    r"test_sample_and_class_weight_equivalence_liblinear\[.*\]": _L1,
    r"test_logreg_l1\[.*\]": _L1,
    r"test_logreg_predict_proba_multinomial\[.*\]": "calls _predict_proba_lr, a private method",
    r"test_saga_vs_liblinear\[.*-1\]": _L1,
    r"test_dtype_match\[.*-liblinear\]": "wants float64 coefficients of float32 rows, as liblinear gives",
    r"test_elastic_net_coeffs\[.*\]": _L1,
    r"test_elastic_net_l1_l2_equivalence\[.*-l1-1-.*\]": _L1,
    r"test_elastic_net_vs_l1_l2\[.*\]": _L1,
    r"test_LogisticRegression_elastic_net_objective\[.*\]": _L1,
    r"test_l1_ratio_non_elasticnet": _L1,
    r"test_elastic_net_versus_sgd\[.*\]": _L1,
    r"test_logisticregression_liblinear_sample_weight\[.*-params0\]": _L1,
    r"test_large_sparse_matrix\[.*-(liblinear|sag|saga)\]": _INDEX64,
    r"test_liblinear_with_large_values": "wants liblinear's refusal of values above 1e30",
    r"test_liblinear_not_stuck\[.*\]": _L1,
    r"test_newton_cholesky_fallback_to_lbfgs": "which of two of scikit-learn's solvers ran",
    r"test_lr_penalty_l1ratio_incompatible\[l1-.*\]": _L1,
    r"test_(liblinear_multiclass_raises|penalty_deprecated)\[LogisticRegressionCV\]": _CV,
    r"test_logisticregressioncv_warns_with_use_legacy_attributes": _CV,
    r"test_lr_scoring_warns": _CV,
    r"test_logistic_regression_callback_.*": _CALLBACKS,
}
# Of 688 tests in scikit-learn 1.9.1, 393 need an array library that is not configured there.
_LEAST_PASSED = 160

_CONFTEST = '''
import json
import re
from pathlib import Path

from sklearn.conftest import *

_HERE = Path(__file__).parent




def pytest_collection_modifyitems(config, items):
    patterns = {pattern: 0 for pattern in json.loads((_HERE / "left_out.json").read_text())}
    kept, dropped = [], []
    for item in items:
        matching = [pattern for pattern in patterns if re.fullmatch(pattern, item.name)]
        for pattern in matching:
            patterns[pattern] += 1
        (dropped if matching else kept).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=dropped)
    (_HERE / "unmatched.json").write_text(json.dumps([p for p, count in patterns.items() if not count]))
'''


@pytest.mark.slow
def test_own_tests_pass_with_one_import_changed(tmp_path):
    package = importlib.util.find_spec("sklearn.linear_model.tests.test_logistic")
    if package is None or package.origin is None:
        pytest.skip("this build of scikit-learn comes without its tests")
    source = Path(package.origin).read_text(encoding="utf-8")
    if _IMPORT not in source:
        pytest.skip(f"the import line is another one in scikit-learn {sklearn.__version__}")
    (tmp_path / "test_logistic.py").write_text(source.replace(_IMPORT, _CHANGED), encoding="utf-8")
    (tmp_path / "conftest.py").write_text(_CONFTEST, encoding="utf-8")
    (tmp_path / "left_out.json").write_text(json.dumps(list(LEFT_OUT)), encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")

    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_"))}
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore"]
        + ["--tb=short", "-c", "pytest.ini", "test_logistic.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    summary = finished.stdout.splitlines()[-1] if finished.stdout else finished.stderr
    assert finished.returncode == 0, finished.stdout[-8000:]
    passed = re.search(r"(\d+) passed", summary)
    assert passed is not None, summary
    assert int(passed.group(1)) >= _LEAST_PASSED, summary
    assert "failed" not in summary
    assert "error" not in summary
    if sklearn.__version__.startswith("1.9."):
        unmatched = json.loads((tmp_path / "unmatched.json").read_text(encoding="utf-8"))
        assert unmatched == [], "left out for a reason that matches no test"
