"""The LSTMs in an ONNX file from any tool: sizes, states, parameters, bytes and FLOPs.

The file is only read: no weight is loaded (sizes come from the tensors' dimensions), and no node runs.
LSTMs are the operator of that name, ONNX Runtime's quantized one, and the Scan that lstm-onnx writes
for a projected layer and for some targets; GRU and RNN are listed, too.  All are found in the bodies of If,
Loop and Scan and in model functions as well.

FLOPs are counted for one sequence and one time step.  A multiplication, an addition and an
activation count as one each, and a product of an ``m x n`` matrix with a vector as ``2mn``.  With I
input features, H hidden_size, P proj_size, and S features of h in the node, each direction takes

    2 * 4H * (I + S)    W x and R h, accumulated into the four gates
    + 4H                with biases
    + 6H                with peepholes
    + 9H                4 activations, f c, i g, their sum, tanh(c), o tanh(c), on H features each
    + 2 * P * H         with a projection

A GRU and an RNN take

    2 * 3H * (I + H)        2 * H * (I + H)     products
    + 3H                    + H                 with biases
    + H                                         with biases and linear_before_reset, as torch's GRU
    + 8H                    + H                 3 activations, the reset, (1 - z) n + z h; 1 activation

S is P in a Scan, and H for a projection that is folded into the operator.  What is computed once a
sequence (mapping h0 and hn) is not counted.
"""

from __future__ import annotations

from ..callable_package import make_callable
from ..onnxgraph import Value
from .file import inspect
from .report import Inspection, LSTMInfo

__all__ = ["Inspection", "LSTMInfo", "Value", "inspect"]

make_callable(__name__)
