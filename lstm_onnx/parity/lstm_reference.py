"""Running a bare nn.LSTM in PyTorch, in its native precision or in float64."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from .cases import Case

Outputs = dict[str, np.ndarray]
"""``output``, ``hn`` and ``cn``."""


def run_torch(module: nn.LSTM, case: Case) -> Outputs:
    """Run `module`, on the CPU and in eval mode, on a case; lengths become packed sequences.

    Returns:
        float64 arrays, whatever the module's dtype.
    """
    dtype = next(module.parameters()).dtype
    x = torch.from_numpy(case.input).to(dtype)
    states = None if case.states is None else tuple(torch.from_numpy(state).to(dtype) for state in case.states)
    with torch.no_grad(), warnings.catch_warnings():
        # torch warns that projections do not use oneDNN; only the numbers matter here.
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


def windows(module64: nn.LSTM, case: Case, size: int) -> Case:
    """Every `size` consecutive steps of `case`, each from the states of the float64 run, as one batch.

    This is teacher forcing: in a chaotic model PyTorch's own error grows along the sequence until its end can no
    longer be judged, but a few steps from the exact trajectory can.  Two steps still have an order and, with
    lengths, an end.  In a bidirectional model the states are those that single steps reach in both directions,
    which serve as well as any.
    """
    batch_axis = 0 if module64.batch_first else 1
    time_axis = 1 - batch_axis
    batch, time = case.input.shape[batch_axis], case.input.shape[time_axis]
    lengths = np.full(batch, time, np.int32) if case.lengths is None else case.lengths
    inputs, hs, cs, ends = [], [], [], []
    starts = range(max(1, time - size + 1))
    for start, (h, c) in zip(starts, _trajectory(module64, case), strict=False):
        rows = np.flatnonzero(lengths > start)
        inputs.append(np.take(np.take(case.input, range(start, start + size), axis=time_axis), rows, axis=batch_axis))
        hs.append(h[:, rows].astype(case.input.dtype))
        cs.append(c[:, rows].astype(case.input.dtype))
        ends.append(np.minimum(lengths[rows] - start, size).astype(np.int32))
    return Case(
        f"{case.label}, {size} at a time",
        np.concatenate(inputs, axis=batch_axis),
        (np.concatenate(hs, axis=1), np.concatenate(cs, axis=1)),
        None if case.lengths is None else np.concatenate(ends),
    )


def _trajectory(module64: nn.LSTM, case: Case) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """h and c in float64 before each step of `case`."""
    time_axis = 1 if module64.batch_first else 0
    states = states_after(module64, replace(case, input=case.input.take(range(0), axis=time_axis), lengths=None))
    for step in range(case.input.shape[time_axis]):
        yield states
        one = Case("", case.input.take([step], axis=time_axis), states, None)
        states = states_after(module64, one)


def states_after(module64: nn.LSTM, case: Case) -> tuple[np.ndarray, np.ndarray]:
    """h and c in float64 after all steps of `case`, which may have none."""
    batch_axis = 0 if module64.batch_first else 1
    if case.input.shape[1 - batch_axis] > 0:
        outputs = run_torch(module64, case)
        return outputs["hn"], outputs["cn"]
    if case.states is not None:
        return case.states
    batch = case.input.shape[batch_axis]
    layers = module64.num_layers * (2 if module64.bidirectional else 1)
    h_size = module64.proj_size or module64.hidden_size
    return np.zeros((layers, batch, h_size)), np.zeros((layers, batch, module64.hidden_size))
