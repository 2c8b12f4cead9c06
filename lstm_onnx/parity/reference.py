"""What PyTorch gives, in the model's own precision and in float64."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from .sweep import Case

Outputs = dict[str, np.ndarray]
"""``output``, ``hn`` and ``cn``."""


def in_dtype(module: nn.LSTM, dtype: torch.dtype) -> nn.LSTM:
    """A copy of `module` on the CPU, in eval mode; the module itself is not changed."""
    return copy.deepcopy(module).to("cpu", dtype).eval()


def run_torch(module: nn.LSTM, case: Case) -> Outputs:
    """Run `module` (see `in_dtype`) on a case; lengths go through packed sequences.

    Returns:
        float64 arrays, whatever the module's dtype.
    """
    dtype = next(module.parameters()).dtype
    x = torch.from_numpy(case.input).to(dtype)
    states = None if case.states is None else tuple(torch.from_numpy(state).to(dtype) for state in case.states)
    with torch.no_grad(), warnings.catch_warnings():
        # torch remarks that projections do not go through oneDNN; here only the numbers matter.
        warnings.filterwarnings("ignore", message="LSTM with projections")
        if case.lengths is None:
            output, (hn, cn) = module(x, states)
        else:
            lengths = torch.from_numpy(case.lengths).long()
            packed = pack_padded_sequence(x, lengths, batch_first=module.batch_first, enforce_sorted=False)
            result, (hn, cn) = module(packed, states)
            assert isinstance(result, PackedSequence)  # noqa: S101 - for the type checker: packed in, packed out
            time = x.shape[1 if module.batch_first else 0]
            output, _ = pad_packed_sequence(result, batch_first=module.batch_first, total_length=time)
    return {name: value.double().numpy() for name, value in (("output", output), ("hn", hn), ("cn", cn))}


def single_steps(module64: nn.LSTM, case: Case) -> Case:
    """Every step of `case` by itself, from the states that float64 reaches: one batch of single steps.

    Teacher forcing: where a model is chaotic, PyTorch's own error explodes along the sequence and
    nothing can be said of its end; one step from the exact trajectory stays comparable.  Row
    ``t * batch + b`` of the new batch is step t of sequence b.  In a bidirectional model the states
    are those of the prefix that ends before the step, which are as good as any.
    """
    batch_axis = 0 if module64.batch_first else 1
    time_axis = 1 - batch_axis
    time = case.input.shape[time_axis]
    steps, hs, cs = [], [], []
    for step in range(time):
        steps.append(np.take(case.input, [step], axis=time_axis))
        if step == 0:
            batch = case.input.shape[batch_axis]
            layers = module64.num_layers * (2 if module64.bidirectional else 1)
            h = np.zeros((layers, batch, module64.proj_size or module64.hidden_size))
            c = np.zeros((layers, batch, module64.hidden_size))
            h, c = (h, c) if case.states is None else case.states
        else:
            prefix = Case("", np.take(case.input, range(step), axis=time_axis), case.states, None)
            outputs = run_torch(module64, prefix)
            h, c = outputs["hn"], outputs["cn"]
        hs.append(h.astype(case.input.dtype))
        cs.append(c.astype(case.input.dtype))
    states = (np.concatenate(hs, axis=1), np.concatenate(cs, axis=1))
    return Case(f"{case.label}, step by step", np.concatenate(steps, axis=batch_axis), states, None)
