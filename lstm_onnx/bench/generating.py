"""Times a generating file, in one call, against its step in a Python loop, in a plain session and in a stream."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..exporter.sources.source import ModuleSource
from ..generation.layout import state_axes_of
from ..generation.proof import draw_prompt
from ..generation.python_loop import repeat
from ..generation_spec import GENERATED
from ..runtime import Model
from ..runtime.providers import ort_errors
from .cases import PLAIN, RUNTIME, BenchmarkCase
from .measure import Candidate
from .opened import OpenedModel
from .pytorch import EAGER
from .sizes import Point

_PROMPT = 4
"""Time steps of the prompt, if it has a time axis."""
_NO_TORCH = "a module's forward does not say how its states are carried from step to step"


@dataclass(frozen=True)
class GeneratingSubject:
    """A generating file and its step's file, in every form that is timed.

    Attributes:
        opened: the generating file.
        step: the step's file.
        seed: the seed of the random prompt.
        threads: the number of threads of every candidate.
        dtype: the dtype of the outputs by which two candidates are compared.
        hop: a step of the file is one step of the input.
        torch: PyTorch is not compared.
    """

    opened: OpenedModel
    step: OpenedModel
    seed: int
    threads: int
    dtype: str = "float32"
    hop: int = 1
    torch: None = None

    @property
    def model(self) -> Model:
        """The generating file in this runtime."""
        return self.opened.model


def open_generating(source: ModuleSource, provider: str, threads: int, seed: int, folder: Path) -> GeneratingSubject:
    """Export a source that generates, and its step, into a folder, and open both.

    Raises:
        LSTMOnnxError: the model cannot be exported or opened.
    """
    paths = [str(folder / name) for name in ("generating.onnx", "step.onnx")]
    source.export(paths[0], check=False)
    step = replace(source.options, generation=None, states="explicit")
    replace(source, options=step).export(paths[1], check=False)
    opened, stepped = (OpenedModel.at(path, provider, threads) for path in paths)
    return GeneratingSubject(opened, stepped, seed, threads)


def generating_case(subject: GeneratingSubject, point: Point) -> BenchmarkCase:
    """Make the candidates: a Python loop around a plain session or a stream, and the file that contains the loop.

    Raises:
        ConfigError: the point's case is another one.
    """
    if point.case != "generate":
        raise ConfigError("it repeats a step, but this case times single steps; leave out [generate] for it")
    model, session = subject.model, subject.opened.session
    step, step_session = subject.step.model, subject.step.session
    described = model.metadata.generation
    assert described is not None  # noqa: S101 - of a source that generates
    feeds = draw_prompt(model, (point.batch, _PROMPT, point.time), np.random.default_rng(subject.seed), states=False)
    feeds = {**model.completed(dict(feeds))}
    axes = state_axes_of(model)
    names = [output.name for output in step_session.get_outputs()]
    wanted = {item.name for item in step_session.get_inputs()}
    start = {name: array for name, array in feeds.items() if name in wanted and name in step.states}

    def plain_step(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(names, step_session.run(None, {**start, **arrays}), strict=True))

    def plain_loop() -> np.ndarray:
        return repeat(plain_step, described, model.states, axes, feeds).results[GENERATED]

    stream = step.stream(point.batch)

    without_states = {name: array for name, array in feeds.items() if name not in model.states}

    def stream_loop() -> np.ndarray:
        stream.reset()
        return repeat(stream.run, described, {}, {}, without_states).results[GENERATED]

    at = [output.name for output in session.get_outputs()].index(GENERATED)
    taken = {item.name for item in session.get_inputs()}
    whole: Callable[[], Any] = functools.partial(
        session.run, None, {name: array for name, array in feeds.items() if name in taken}
    )
    baseline = f"{PLAIN}, the step in a Python loop"
    candidates = [
        Candidate(baseline, plain_loop, output=np.asarray, errors=ort_errors()),
        Candidate(
            f"{RUNTIME}, one call",
            functools.partial(model.run, feeds),
            output=lambda outputs: np.asarray(outputs[GENERATED]),
            is_lstm_onnx=True,
        ),
        Candidate(f"{PLAIN}, one call", whole, output=lambda outputs: np.asarray(outputs[at]), errors=ort_errors()),
        Candidate(f"{RUNTIME} stream, the step in a Python loop", stream_loop, output=np.asarray, is_lstm_onnx=True),
    ]
    # A sequence may end before the most steps.
    steps = max(1, plain_loop().size // max(1, point.batch))
    features = model.outputs[GENERATED].shape[-1] if described.generation.choose == "value" else 1
    steps = max(1, steps // features) if isinstance(features, int) else steps
    return BenchmarkCase(candidates, baseline, "step", point.batch * steps, {EAGER: _NO_TORCH})
