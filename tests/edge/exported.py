"""Exported models run by ONNX Runtime and by torch, and compared with what they were exported from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from torchlogit.export import export, onnx_inputs, torch_inputs


def onnx_session(path) -> Any:
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime, which runs ONNX files")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def export_onnx(model, path):
    """What `export` says it wrote, checked by onnx itself and against the file's own inputs and outputs."""
    onnx = pytest.importorskip("onnx", reason="needs onnx, which writes ONNX files")
    written = export(model, path, "onnx")
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnx_session(path)
    kinds = {"tensor(double)": "double", "tensor(string)": "string", "tensor(int64)": "int64", "tensor(bool)": "bool"}
    for ports, said in ((session.get_inputs(), written.inputs), (session.get_outputs(), written.outputs)):
        assert [(p.name, kinds[p.type], tuple(p.shape)) for p in ports] == [(p.name, p.type, p.shape) for p in said]
    return written, session


def export_torch(model, path):
    written = export(model, path, "torch")
    return written, torch.export.load(path).module()


def agree(model, tables, folder, *, offsets=None, atol=1e-12):
    """Both programs give each table's probabilities and labels. Returns the largest differences."""
    _, session = export_onnx(model, folder / "model.onnx")
    _, program = export_torch(model, folder / "model.pt2")
    worst = {"onnx": 0.0, "torch": 0.0}
    for j, table in enumerate(tables):
        extra = {} if offsets is None else {"offset": offsets[j]}
        expected = model.predict_proba(table, **extra) if extra else model.predict_proba(table)
        labels = model.predict(table, **extra) if extra else model.predict(table)
        label, probability = session.run(None, onnx_inputs(model, table, **extra))
        traced = program(*torch_inputs(model, table, **extra)).detach().numpy()
        for name, found in (("onnx", probability), ("torch", traced)):
            assert found.dtype == np.float64
            assert found.shape == expected.shape
            np.testing.assert_allclose(found, expected, rtol=0, atol=atol, err_msg=name)
            worst[name] = max(worst[name], float(np.abs(found - expected).max(initial=0.0)))
        assert label.tolist() == np.asarray(labels).tolist()
        # No row is what `predict` refuses; a service that has nothing to do gets nothing.
        none = {name: values[:0] for name, values in onnx_inputs(model, table, **extra).items()}
        assert session.run(["probabilities"], none)[0].shape == (0, expected.shape[1])
        assert program(*(part[:0] for part in torch_inputs(model, table, **extra))).shape == (0, expected.shape[1])
    return worst
