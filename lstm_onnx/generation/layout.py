"""Finds the batch and time axes of a step's input and output, and refuses an output that cannot be fed back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..errors import ConfigError, ModelError
from ..generation_spec import COUNTS, GENERATED, MAX_STEPS, NOISE, SCORES, TEMPERATURE, GeneratingStep, Generation
from ..metadata import Metadata
from ..runtime import Model
from ..runtime.batch_axes import batch_name, state_batch_axis
from ..runtime.beam_search import is_late
from ..runtime.tensor_info import ValueInfo
from .rows import outer_axis


@dataclass(frozen=True)
class Layout:
    """The layout of a step that can be repeated.

    Attributes:
        step: how to repeat the step, with `choose` set, and the axes.
        fed: the input that is fed back.
        output: the output from which its next value is made.
        states: each state input and the output that feeds it.
        state_axes: the batch axis of each state, if sequences can end before others.
        context: the other inputs, which have the same value in every step.
    """

    step: GeneratingStep
    fed: ValueInfo
    output: ValueInfo
    states: Mapping[str, str]
    state_axes: Mapping[str, int]
    context: tuple[str, ...]

    @property
    def element_dims(self) -> tuple[int | str | None, ...]:
        """The axes of the input, without the time axis."""
        return tuple(dim for axis, dim in enumerate(self.fed.shape) if axis != self.step.time_axis)


def layout_of(model: Model, generation: Generation) -> Layout:
    """The layout of a step's file, from the names of axes and the ranks of values.

    Raises:
        ConfigError: the file has no such input or output.
        ModelError: the output cannot be fed back as the input, or the file cannot be run step by step.
    """
    metadata = model.metadata
    _require_step(model, metadata)
    fed, output = _known(model, "input", generation.input), _known(model, "output", generation.output)
    if fed.name in model.states:
        raise ConfigError(f"the input {fed.name} is a state, which is fed back in any case", path=model.path)
    tokens = fed.dtype is not None and fed.dtype.kind in "iu"
    if not tokens and (fed.dtype is None or fed.dtype.kind != "f"):
        raise _unfit(model, f"its input {fed} has neither tokens nor numbers")
    choose = generation.choose or ("greedy" if tokens else "value")
    if tokens == (choose == "value"):
        what = "takes tokens, which must be chosen" if tokens else "takes numbers, which are fed back as they are"
        raise ConfigError(f'choose = "{choose}" is not possible: {fed.name} {what}', path=model.path)
    generation = replace(generation, choose=choose)
    batch = _batch_axis(model, fed)
    time = _time_axis(model, fed, batch, tokens)
    output_time = _output_time_axis(fed, output, time, tokens)
    _require_fit(model, fed, output, time, output_time, tokens)
    _require_stop(model, generation, fed)
    outer = None
    if time is not None and output_time is None and not isinstance(fed.shape[time], int):
        outer = outer_axis(model, fed, output, (batch, time)) if output.shape[0] != fed.shape[batch] else None
    layout = Layout(
        GeneratingStep(generation, batch, time, output_time, tuple(model.outputs), tuple(metadata.inputs), outer),
        fed,
        output,
        dict(model.states),
        _known_state_axes(model) if generation.stops else {},
        tuple(name for name in model.inputs if name != fed.name and name not in model.states),
    )
    _require_names(model, layout)
    return layout


def _require_step(model: Model, metadata: Metadata) -> None:
    if metadata.generation is not None:
        raise _unfit(model, "it generates already")
    if metadata.spec is not None:
        raise _unfit(
            model, "it is a bare nn.LSTM, whose output cannot be its next input", "export a module that computes one"
        )
    if not model.states:
        hint = 'export it with states="explicit", or name its states: states= (--state INPUT=OUTPUT)'
        raise _unfit(model, "it has no states, so no step would depend on those before it", hint)
    for after in model.states.values():
        fed = [name for name, output in model.states.items() if output == after]
        if len(fed) > 1:  # after 0 steps its value would have to equal each of the initial states
            names = " and ".join(fed)
            hint = "export it with an output for each state"
            raise _unfit(model, f"its output {after} feeds {names}, but each state needs an output of its own", hint)
    if is_late(metadata.streaming_or_default):
        raise _unfit(model, "it looks ahead, so its output for a step comes later than the step")
    if (least := metadata.streaming_or_default.least) > 1:
        hint = "pad the start, so that every step has an output"
        raise _unfit(model, f"a prompt of fewer than {least} steps would have no output", hint)
    if metadata.not_streamable and metadata.time_axes:
        raise _unfit(model, f"step by step its results differ: {metadata.not_streamable}")


def _known(model: Model, kind: str, name: str) -> ValueInfo:
    infos = model.inputs if kind == "input" else model.outputs
    if name not in infos:
        names = ", ".join(one for one in infos if one not in {*model.states, *model.states.values()})
        raise ConfigError(f"{name} is not an {kind}", path=model.path, hint=f"its {kind}s are {names}")
    return infos[name]


def _batch_axis(model: Model, fed: ValueInfo) -> int:
    name = batch_name(model)
    axes = [axis for axis, dim in enumerate(fed.shape) if isinstance(dim, str) and dim == name]
    if len(axes) != 1:
        raise _unfit(
            model, f"it is not known which axis of its input {fed} is the batch", "export it with a dynamic batch"
        )
    return axes[0]


def _time_axis(model: Model, fed: ValueInfo, batch: int, tokens: bool) -> int | None:
    others = [axis for axis in range(len(fed.shape)) if axis != batch]
    if tokens and len(others) > 1:
        raise _unfit(model, f"its input {fed} has more than one token for each step")
    dynamic = [axis for axis in others if not isinstance(fed.shape[axis], int)]
    named = [axis for axis in dynamic if fed.shape[axis] in model.metadata.time_axes] or dynamic
    if len(named) > 1:
        raise _unfit(model, f"it is not known which axis of its input {fed} is time")
    if named:
        least, _ = model.metadata.axis_limits.get(str(fed.shape[named[0]]), (1, None))
        if least > 1:
            raise _unfit(model, f"it needs {least} steps or more at once, but generating runs one at a time")
        return named[0]
    fixed = [axis for axis in others if fed.shape[axis] == 1]
    if tokens and others and not fixed:
        raise _unfit(model, f"its input {fed} has {fed.shape[others[0]]} steps, but generating runs one at a time")
    return fixed[0] if tokens and fixed else fixed[0] if fixed and len(others) > 1 else None


def _output_time_axis(fed: ValueInfo, output: ValueInfo, time: int | None, tokens: bool) -> int | None:
    if time is None:
        return None
    same = [axis for axis, dim in enumerate(output.shape) if isinstance(dim, str) and dim == fed.shape[time]]
    if len(same) == 1:
        return same[0]
    return time if len(output.shape) == len(fed.shape) + tokens else None


def _require_fit(
    model: Model, fed: ValueInfo, output: ValueInfo, time: int | None, output_time: int | None, tokens: bool
) -> None:
    """Refuse an output whose last step has no number for each token, or a shape that differs from the input's."""
    last = [dim for axis, dim in enumerate(output.shape) if axis != output_time]
    wanted = [dim for axis, dim in enumerate(fed.shape) if axis != time]
    if output.dtype is None or output.dtype.kind != "f" or (not tokens and output.dtype != fed.dtype):
        raise _unfit(model, f"its output {output} does not have the float dtype that {fed} needs")
    if tokens:
        if len(last) != 2:
            raise _unfit(
                model, f"a step of its output {output} does not have one number for each token, (batch, tokens)"
            )
        return
    differ = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(last, wanted, strict=False))
    if len(last) != len(wanted) or differ:
        raise _unfit(
            model,
            f"the shape of a step of its output {output} differs from that of its input {fed}",
            "export a module whose output is the next input",
        )


def _require_stop(model: Model, generation: Generation, fed: ValueInfo) -> None:
    if generation.stop_token and generation.choose == "value":
        raise ConfigError(f"stop_token is for tokens, but {fed.name} takes numbers; use stop_output", path=model.path)
    if generation.pad is not None and generation.choose != "value" and type(generation.pad) is not int:
        raise ConfigError(f"pad = {generation.pad} is not a token", path=model.path)
    tokens = _known(model, "output", generation.output).shape[-1]
    if isinstance(tokens, int) and generation.choose != "value":
        if generation.top_k is not None and generation.top_k > tokens:
            raise ConfigError(f"top_k = {generation.top_k} is more than the {tokens} tokens", path=model.path)
        for token in (*generation.stop_token, *([generation.padding] if generation.stops else [])):
            if not 0 <= token < tokens:
                what = "the stop token" if token in generation.stop_token else "pad ="
                raise ConfigError(f"{what} {token} is not one of the {tokens} tokens", path=model.path)
    if generation.stop_output is not None:
        info = _known(model, "output", generation.stop_output)
        others = [dim for dim in info.shape if dim not in fed.shape or isinstance(dim, int)]
        of_numbers = info.dtype is not None and info.dtype.kind in "fb"
        if not of_numbers or any(dim != 1 for dim in others) or info.name in model.states.values():
            raise _unfit(model, f"its output {info} is not one number or bool for each sequence")


def state_axes_of(model: Model) -> dict[str, int]:
    """The batch axis of each state that has one."""
    found = {name: state_batch_axis(model.inputs[name]) for name in model.states}
    return {name: axis for name, axis in found.items() if axis is not None}


def _known_state_axes(model: Model) -> dict[str, int]:
    axes = state_axes_of(model)
    unknown = next((name for name in model.states if name not in axes), None)
    if unknown is not None:
        raise _unfit(model, f"it is not known which axis of its state {model.inputs[unknown]} is the batch")
    return axes


def _require_names(model: Model, layout: Layout) -> None:
    fed = layout.fed
    time = fed.shape[layout.step.time_axis] if layout.step.time_axis is not None else None
    for name in layout.context:
        info = model.inputs[name]
        if isinstance(time, str) and time in info.shape:
            raise _unfit(
                model,
                f"its input {info} has the time axis of {fed.name}, but only one input is fed back",
                "export a module that takes both as one input, or makes the other one constant",
            )
        if info.dtype is None or info.dtype.kind not in "fiub":
            raise _unfit(model, f"its input {info} does not have numbers")
    taken = {*model.inputs, *model.outputs}
    for name in (MAX_STEPS, NOISE, TEMPERATURE, GENERATED, SCORES, COUNTS):
        if name in taken:
            raise _unfit(
                model, f"it has a value named {name}, a name that the generating file uses itself", "rename it"
            )


def _unfit(model: Model, reason: str, hint: str | None = None) -> ModelError:
    return ModelError(f"cannot generate: {reason}", path=model.path, hint=hint)


def numbers_of(info: ValueInfo) -> np.dtype[np.generic]:
    """The dtype of a value that is known to have numbers."""
    assert info.dtype is not None  # noqa: S101 - the layout requires it
    return info.dtype
