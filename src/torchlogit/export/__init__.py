"""Fitted models as programs that need no torchlogit: ONNX graphs and ``torch.export`` archives."""

from torchlogit.export.feeds import onnx_inputs, torch_inputs
from torchlogit.export.signature import Exported, Port
from torchlogit.export.writing import export

__all__ = ["Exported", "Port", "export", "onnx_inputs", "torch_inputs"]
