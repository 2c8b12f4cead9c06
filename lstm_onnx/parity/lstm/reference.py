"""Runs a bare nn.LSTM in PyTorch, in its native precision or in float64."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from ...exporter.functional.operator_roundings import OperatorRoundings
from ..cases import Case
from ..expected import Arrays

Outputs = dict[str, np.ndarray]
"""``output``, ``hn`` and ``cn``."""


def run_torch(module: nn.LSTM, feeds: Arrays) -> Outputs:
    """Run `module`, on the CPU and in eval mode, on a file's inputs; lengths become packed sequences.

    Returns:
        float64 arrays, whatever the module's dtype.
    """
    dtype = next(module.parameters()).dtype
    tensors = {name: torch.from_numpy(array) for name, array in feeds.items()}
    x = tensors["input"].to(dtype)
    states = (tensors["h0"].to(dtype), tensors["c0"].to(dtype)) if "h0" in tensors else None
    with torch.no_grad(), warnings.catch_warnings():
        # torch warns that projections do not use oneDNN; only the numbers matter here.
        warnings.filterwarnings("ignore", message="LSTM with projections")
        if "lengths" not in tensors:
            output, (hn, cn) = module(x, states)
        else:
            packed = pack_padded_sequence(
                x, tensors["lengths"].long(), batch_first=module.batch_first, enforce_sorted=False
            )
            result, (hn, cn) = module(packed, states)
            assert isinstance(result, PackedSequence)  # noqa: S101 - for the type checker: packed in, packed out
            time = x.shape[1 if module.batch_first else 0]
            output, _ = pad_packed_sequence(result, batch_first=module.batch_first, total_length=time)
    return {name: value.double().numpy() for name, value in (("output", output), ("hn", hn), ("cn", cn))}


def run_rounded(module64: nn.LSTM, feeds: Arrays, unit: float, seed: int) -> Outputs:
    """As `run_torch`, with every operator off by up to `unit` of what it adds up; see `operator_roundings`."""
    with OperatorRoundings(unit, seed):
        return run_torch(module64, feeds)


def windows(module64: nn.LSTM, case: Case, size: int) -> Case:
    """Every `size` consecutive steps of `case`, each from the states of the float64 run, as one batch.

    This is teacher forcing: in a chaotic model PyTorch's own error grows along the sequence until its end can no longer
    be judged, but a few steps from the exact trajectory can.  Two steps still have an order and, with lengths, an end.
    In a bidirectional model the states are those that single steps reach in both directions; any states would do.
    """
    x = case.feeds["input"]
    batch_axis = 0 if module64.batch_first else 1
    time_axis = 1 - batch_axis
    batch, time = x.shape[batch_axis], x.shape[time_axis]
    lengths = case.feeds.get("lengths", np.full(batch, time, np.int32))
    parts: list[Outputs] = []
    for start, states in zip(range(max(1, time - size + 1)), _trajectory(module64, case.feeds), strict=False):
        rows = np.flatnonzero(lengths > start)
        carried = {name: state[:, rows].astype(x.dtype) for name, state in states.items()}
        window = np.take(np.take(x, range(start, start + size), axis=time_axis), rows, axis=batch_axis)
        parts.append({"input": window, **carried, "lengths": np.minimum(lengths[rows] - start, size).astype(np.int32)})
    axes = {"input": batch_axis, "h0": 1, "c0": 1, **({"lengths": 0} if "lengths" in case.feeds else {})}
    feeds = {name: np.concatenate([part[name] for part in parts], axis=axis) for name, axis in axes.items()}
    return Case(f"{case.label}, {size} at a time", feeds, "steps")


def _trajectory(module64: nn.LSTM, feeds: Arrays) -> Iterator[Outputs]:
    """h0 and c0 in float64 before each step."""
    time_axis = 1 if module64.batch_first else 0
    x = feeds["input"]
    states = states_after(module64, {**feeds, "input": x.take(range(0), axis=time_axis)})
    for step in range(x.shape[time_axis]):
        yield states
        states = states_after(module64, {"input": x.take([step], axis=time_axis), **states})


def states_after(module64: nn.LSTM, feeds: Arrays) -> Outputs:
    """h0 and c0 in float64 for what follows after all steps of an input, of which there may be none."""
    batch_axis = 0 if module64.batch_first else 1
    if feeds["input"].shape[1 - batch_axis] > 0:
        outputs = run_torch(module64, feeds)
        return {"h0": outputs["hn"], "c0": outputs["cn"]}
    if "h0" in feeds:
        return {name: feeds[name] for name in ("h0", "c0")}
    batch = feeds["input"].shape[batch_axis]
    layers = module64.num_layers * (2 if module64.bidirectional else 1)
    sizes = {"h0": module64.proj_size or module64.hidden_size, "c0": module64.hidden_size}
    return {name: np.zeros((layers, batch, size)) for name, size in sizes.items()}
