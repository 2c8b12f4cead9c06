"""How a file generates: which output becomes the next step's input, how a token is chosen, and what ends a sequence.

`Generation` is what the caller asks for.  `GeneratingStep` travels in the metadata of a generating file as well and
describes the step that is run in its loop, so that the file can be verified against the step's module.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import ConfigError, one_of
from .input_spec import InputSpec, is_name

CHOICES = ("greedy", "sample", "value")
"""How the next input is made of an output."""
MAX_STEPS, NOISE, TEMPERATURE = "max_steps", "noise", "temperature"
"""Inputs that a generating file has beside its step's."""
GENERATED, SCORES, COUNTS = "generated", "scores", "counts"
"""Outputs that a generating file has beside the states."""
_LARGEST = 2**31 - 1


@dataclass(frozen=True)
class Generation:
    """How a step is run in a loop, each time on the output of the step before.

    Attributes:
        input: the input of the step that is fed back, such as ``tokens``.  The generating file's input of this name
            is the prompt: what the first step takes, of any number of time steps.
        output: the output that gives the next input, at its last time step.
        choose: "greedy" takes the token with the largest number; "sample" draws a token with the softmax of the
            numbers divided by the input ``temperature``, by the input ``noise``; "value" feeds the output back as it
            is.  None is "greedy" where the input is of integers, and "value" where it is of floats.
        top_k: for "sample": draw only from the tokens with the `top_k` largest numbers, and from all that are equal to
            the smallest of these.
        stop_token: tokens that end a sequence.
        stop_output: an output of the step, one number or bool for each sequence, that ends it where it is more than
            `stop_above`, or True.
        stop_above: see `stop_output`.
        pad: the output of a sequence that has ended, until its whole batch has; by default the first stop token, or 0.
        states: each state input of the step and the output that is its next value, if the step's file does not say so
            itself: for a module that takes and returns states other than those of nn.LSTM, nn.GRU, nn.RNN and cells.

    Raises:
        ConfigError: a value is of the wrong type, or two contradict each other.
    """

    input: str
    output: str
    choose: str | None = None
    top_k: int | None = None
    stop_token: tuple[int, ...] = ()
    stop_output: str | None = None
    stop_above: float = 0.5
    pad: int | float | None = None
    states: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Validate, and make `stop_token` a tuple."""
        for name in ("input", "output"):
            if not is_name(getattr(self, name)):
                raise ConfigError.of_argument(name, getattr(self, name), "the name of an " + name)
        if self.choose is not None and (not isinstance(self.choose, str) or self.choose not in CHOICES):
            raise ConfigError.of_argument("choose", self.choose, one_of(CHOICES))
        if self.top_k is not None and (not _is_token(self.top_k) or self.top_k < 1):
            raise ConfigError.of_argument("top_k", self.top_k, "an integer of 1 or more")
        if self.top_k is not None and self.choose != "sample":
            raise ConfigError('top_k goes with choose = "sample"')
        stop = self.stop_token
        tokens = (stop,) if _is_token(stop) else tuple(stop) if isinstance(stop, (list, tuple)) else None
        if tokens is None or not all(map(_is_token, tokens)) or len(set(tokens)) != len(tokens):
            allowed = "a token, an integer of 0 or more, or a list of different ones"
            raise ConfigError.of_argument("stop_token", stop, allowed)
        object.__setattr__(self, "stop_token", tokens)
        if self.stop_output is not None and not is_name(self.stop_output):
            raise ConfigError.of_argument("stop_output", self.stop_output, "the name of an output")
        if type(self.stop_above) not in (int, float) or not abs(self.stop_above) < float("inf"):
            raise ConfigError.of_argument("stop_above", self.stop_above, "a number")
        if self.choose == "value" and tokens:
            raise ConfigError('stop_token is for tokens, and choose = "value" feeds numbers back; use stop_output')
        if self.pad is not None and (type(self.pad) not in (int, float) or not abs(self.pad) <= _LARGEST):
            raise ConfigError.of_argument("pad", self.pad, "a number")
        pairs = self.states.items() if isinstance(self.states, Mapping) else [("", "")]
        if not all(is_name(name) and is_name(after) and name != self.input for name, after in pairs):
            allowed = "a mapping of state inputs to outputs, such as {'h': 'h_next'}"
            raise ConfigError.of_argument("states", self.states, allowed)

    @property
    def stops(self) -> bool:
        """Whether a sequence can end before the largest number of steps."""
        return bool(self.stop_token) or self.stop_output is not None

    @property
    def padding(self) -> int | float:
        """What a sequence that has ended gives."""
        return self.pad if self.pad is not None else self.stop_token[0] if self.stop_token else 0

    def to_dict(self) -> dict[str, Any]:
        """The fields that are not the defaults, ready for JSON."""
        values = {item.name: (getattr(self, item.name), item.default) for item in dataclasses.fields(self)}
        found = {name: value for name, (value, default) in values.items() if value != default}
        found.pop("states", None)  # which are among the file's own
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}

    @classmethod
    def of(cls, fields: object) -> Generation:
        """From a mapping of the fields, such as a .toml's table.

        Raises:
            ConfigError: a field is missing, unknown or impossible.
        """
        if isinstance(fields, Generation):
            return fields
        if not isinstance(fields, Mapping):
            allowed = 'a Generation or a dict, such as {"input": "tokens", "output": "logits"}'
            raise ConfigError.of_argument("generate", fields, allowed)
        known = [item.name for item in dataclasses.fields(cls)]
        if unknown := [str(name) for name in fields if name not in known]:
            raise ConfigError(f"{unknown[0]} is unknown", hint=f"the keys are {', '.join(known)}")
        if missing := [name for name in ("input", "output") if name not in fields]:
            raise ConfigError(f"{missing[0]} is missing; it must be the name of an {missing[0]}")
        return cls(**fields)


@dataclass(frozen=True)
class GeneratingStep:
    """The step that a generating file repeats.

    Attributes:
        generation: how.
        batch_axis: the batch axis of the input that is fed back.
        time_axis: its time axis; None where each step takes one element without such an axis.
        output_time_axis: the time axis of the output; None where it has none.
        outputs: the step's outputs, states included, in order.
        inputs: what the step takes, states not included.
        outer_axis: where batch and time are one axis of the output, the first, the outer of the two: "batch" or "time".
    """

    generation: Generation
    batch_axis: int
    time_axis: int | None
    output_time_axis: int | None
    outputs: tuple[str, ...]
    inputs: tuple[InputSpec, ...] = ()
    outer_axis: str | None = None

    @property
    def of_tokens(self) -> bool:
        """Whether what is fed back are tokens, not values."""
        return self.generation.choose != "value"

    @property
    def element_batch(self) -> int:
        """The batch axis of the input without its time axis."""
        return self.batch_axis - (self.time_axis is not None and self.time_axis < self.batch_axis)

    def steps_axis(self, rank: int) -> int:
        """The axis of the generated sequence along which steps follow each other; `rank` is that of an element."""
        return self.time_axis if self.time_axis is not None else min(self.batch_axis + 1, rank)

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return {
            "generation": self.generation.to_dict(),
            "batch_axis": self.batch_axis,
            "time_axis": self.time_axis,
            "output_time_axis": self.output_time_axis,
            "outputs": list(self.outputs),
            "inputs": [spec.to_dict() for spec in self.inputs],
            **({} if self.outer_axis is None else {"outer_axis": self.outer_axis}),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> GeneratingStep:
        """Read back what `to_dict` wrote.

        Raises:
            ConfigError: a field is missing or impossible.
        """
        axes = fields["batch_axis"], fields["time_axis"], fields["output_time_axis"]
        outputs = fields["outputs"]
        whole = type(axes[0]) is int and all(axis is None or (type(axis) is int and 0 <= axis < 64) for axis in axes)
        outer = fields.get("outer_axis")
        named = isinstance(outputs, list) and all(map(is_name, outputs)) and outer in (None, "batch", "time")
        if not whole or not named:
            raise ConfigError("the metadata's generation must hold axes and names of outputs")
        specs = tuple(InputSpec.from_dict(item) for item in fields["inputs"])
        return cls(Generation.of(fields["generation"]), *axes, tuple(outputs), specs, outer)


def _is_token(value: object) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST
