"""A pool's step as a share of this machine's peak of matrix products, in one run.

``python -m tests.benchmarks.pool_peak [--threads N] [--rounds N]``: in each round, one after the other, numpy's product
of large float32 matrices on each core, ONNX Runtime's product of the pool's own shapes, a step of a pool of 64, and 64
steps one at a time through plain ONNX Runtime; medians of the rounds.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import lstm_onnx
from lstm_onnx.inspect import inspect
from lstm_onnx.runtime.pool.pinned_threads import allowed_cores
from lstm_onnx.runtime.providers import open_session

from .limits import PeakMeter, Work

STREAMS, INPUTS, HIDDEN, LAYERS = 64, 80, 256, 2
_SECONDS = 0.25
"""Of each sample."""
_SPIN = 0.0002
_PAUSE = 0.1
"""Before each sample: ONNX Runtime's threads spin for about 40 ms after a run, on a core that the next sample needs."""


def rate(run: Callable[[], object], flops: float) -> float:
    """FLOP/s at the median duration of a call that computes so many, of the calls within `_SECONDS`.

    The peak is that of the fastest products.
    """
    durations: list[float] = []
    while sum(durations) < _SECONDS:
        began = perf_counter()
        run()
        durations.append(perf_counter() - began)
    return flops / median(durations)


def products(folder: Path, threads: int) -> tuple[Callable[[], object], float]:
    """The products of a step by W and R of each layer, as one model of MatMul nodes, and their FLOPs."""
    rng = np.random.default_rng(0)
    nodes, weights, outputs, inputs, flops = [], [], [], {}, 0
    for layer in range(LAYERS):
        for name, size in (("W", HIDDEN if layer else INPUTS), ("R", HIDDEN)):
            value = f"{name}{layer}"
            matrix = rng.standard_normal((size, 4 * HIDDEN), np.float32)
            weights.append(numpy_helper.from_array(matrix, value))
            inputs[f"rows_{value}"] = rng.standard_normal((STREAMS, size), np.float32)
            nodes.append(helper.make_node("MatMul", [f"rows_{value}", value], [f"{value}_product"], name=value))
            outputs.append(helper.make_tensor_value_info(f"{value}_product", TensorProto.FLOAT, None))
            flops += 2 * STREAMS * matrix.size
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape) for name, array in inputs.items()]
    graph = helper.make_graph(nodes, "products", given, outputs, weights)
    path = folder / "products.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, inputs), flops


def main() -> None:
    """Print the rates, and each as a share of the peak."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name, PeakMeter(allowed_cores()[: options.threads]) as meter:
        folder = Path(name)
        path = folder / "model.onnx"
        lstm_onnx.export(nn.LSTM(INPUTS, HIDDEN, LAYERS), path)
        work = Work.of(inspect(path).lstms)
        assert work is not None
        pool = lstm_onnx.load(path, provider="cpu", threads=options.threads).pool(slots=STREAMS)
        slots = [pool.open() for _ in range(STREAMS)]
        x = np.random.default_rng(0).standard_normal((1, STREAMS, INPUTS), np.float32)
        awake = lstm_onnx.load(path, provider="cpu", threads=options.threads, spin=_SPIN).pool(slots=STREAMS)
        awake_slots = [awake.open() for _ in range(STREAMS)]
        session, _ = open_session(path, "cpu", 1)
        state = np.zeros((LAYERS, 1, HIDDEN), np.float32)
        one = {"input": x[:, :1], "h0": state, "c0": state}
        multiply, flops = products(folder, options.threads)
        candidates: dict[str, Callable[[], float]] = {
            "numpy's product of large matrices, a process for each core": lambda: meter.measure(0, _SECONDS).gemm,
            "ONNX Runtime's products of a step of 64, W and R apart": lambda: rate(multiply, flops),
            "a step of a pool of 64": lambda: rate(lambda: pool.step(slots, x), STREAMS * work.flops),
            f"a step of a pool of 64 with spin={_SPIN}": lambda: rate(
                lambda: awake.step(awake_slots, x), STREAMS * work.flops
            ),
            "plain ONNX Runtime, one stream at a time, one thread": lambda: rate(
                lambda: session.run(None, one), work.flops
            ),
        }
        found: dict[str, list[float]] = {label: [] for label in candidates}
        for index in range(options.rounds + 1):
            for label, measure in candidates.items():
                sleep(_PAUSE)
                sample = measure()
                if index:  # the first warms up
                    found[label].append(sample)
    rates = {label: median(samples) for label, samples in found.items()}
    peak = next(iter(rates.values()))
    print(f"I{INPUTS} H{HIDDEN} L{LAYERS}, {options.threads} threads, float32; the pool's bar: 80 per cent of the peak")
    for label, value in rates.items():
        print(f"{value / 1e9:8.1f} GFLOP/s  {100 * value / peak:5.1f}%  {label}")
    *_, step, awake_step, alone = rates.values()
    print(f"the pool is {step / alone:.1f} times as fast as one at a time, and {awake_step / alone:.1f} with spin")


if __name__ == "__main__":
    main()
