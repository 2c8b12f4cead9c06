"""A module's recurrent modules as opaque operators: each call is one node in the trace.

torch.export decomposes nn.LSTM into operators that no longer run at other shapes.  Here the LSTMs (and
GRUs, RNNs and their cells) of a copy get a forward of ours.  In an eager run it computes what PyTorch does
and records each call.  While the module is traced it calls one custom operator,
``lstm_onnx::recurrent``, which only defines its output shapes; `lower_calls` replaces it by the real
ONNX nodes.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.nn.utils.rnn import PackedSequence

from ...errors import ExportError
from ...spec import DTYPES, GRUSpec, LSTMSpec, RecurrentSpec, RNNSpec, from_attributes
from ..kept_digest import kept_folds
from ..user_code import stack_place, user_line
from ..weights import Array, ChangingWeightsError, require_own_names
from .packed_sequences import as_padded
from .recurrent_module import RecordedCall, RecurrentModule, States, with_axes

OPERATOR = "lstm_onnx::recurrent"


@torch.library.custom_op(
    OPERATOR,
    mutates_args=(),
    schema=(
        "(Tensor x, Tensor? h0, Tensor? c0, Tensor? lengths, str module, int call, bool batch_first,"
        " int rows, int output_size, int h_size, int c_size) -> (Tensor, Tensor, Tensor)"
    ),
)
def _recurrent(*_: Any) -> tuple[Tensor, Tensor, Tensor]:
    raise NotImplementedError("the operator stands for a module while it is traced, and never runs")


@_recurrent.register_fake
def _(
    x: Tensor, _h0: Any, _c0: Any, _lengths: Any, _module: str, _call: int, batch_first: bool, *sizes: int
) -> tuple[Tensor, Tensor, Tensor]:
    rows, output_size, h_size, c_size = sizes
    batch = x.shape[0 if batch_first else 1]
    output = x.new_empty((x.shape[0], x.shape[1], output_size))
    return output, x.new_empty((rows, batch, h_size)), x.new_empty((rows, batch, c_size))


def replace_recurrent_modules(copy: nn.Module) -> dict[str, RecurrentModule]:
    """Give every recurrent module of a copy a traceable forward; returns them by their paths.

    Raises:
        ExportError: a module has a dtype that ONNX Runtime cannot run.
    """
    recurrent_modules: dict[str, RecurrentModule] = {}
    for path, module in copy.named_modules():
        base = next((base for base in _TRACEABLE if isinstance(module, base)), None)
        if base is None:
            continue
        kind = type(module)
        cell, own_forward = isinstance(module, nn.RNNCellBase), kind.forward is not base.forward
        recurrent = RecurrentModule(path, _spec_of(module, path), cell=cell, own_forward=own_forward)
        recurrent_modules[path] = recurrent
        module.__dict__["_lstm_onnx_recurrent"] = recurrent
        traceable: Any = _TRACEABLE[base]
        if own_forward or "forward" in vars(module):
            # Ours goes between a user's subclass and torch's class, so that its super().forward() calls ours.
            bases = (traceable,) if kind is base else (kind, traceable)
            module.__class__ = type(kind.__name__, bases, {"__module__": kind.__module__})
        else:  # of its own class, which code may ask for: ``type(self.rnn) is nn.LSTM``
            module.__dict__["forward"] = types.MethodType(traceable.forward, module)
    return recurrent_modules


def _spec_of(module: nn.Module, path: str) -> RecurrentSpec:
    where, cell = path or type(module).__name__, isinstance(module, nn.RNNCellBase)
    found = _dtype_of(module)
    dtype = str(found).removeprefix("torch.")
    if dtype not in DTYPES:
        advice = f"; export module.float() instead{' (which is exact)' * (dtype == 'bfloat16')}"
        raise ExportError(
            f"{where} has dtype {dtype}, which ONNX Runtime has no recurrent operators for"
            f"{'' if found.is_complex else advice}"
        )
    sizes: dict[str, Any] = {name: getattr(module, name) for name in ("input_size", "hidden_size", "bias")}
    sizes["dtype"] = dtype
    if cell and hasattr(module, "bias_ih"):
        sizes["bias"] = module.bias_ih is not None  # which decides; `bias` may have been set later
    if not cell:
        sizes |= {name: getattr(module, name) for name in ("num_layers", "batch_first", "bidirectional")}
    if isinstance(module, (nn.LSTM, nn.LSTMCell)):
        return from_attributes(LSTMSpec, {**sizes, "proj_size": getattr(module, "proj_size", 0)})
    if isinstance(module, (nn.GRU, nn.GRUCell)):
        return from_attributes(GRUSpec, sizes)
    # nn.RNN computes by its mode, and its cell by its nonlinearity.
    relu = module.mode == "RNN_RELU" if not cell else module.nonlinearity == "relu"
    return from_attributes(RNNSpec, {**sizes, "nonlinearity": "relu" if relu else "tanh"})


def _dtype_of(module: Any) -> torch.dtype:
    """The dtype of its weights, of which code that computes one may have removed the parameter."""
    weights = [*module.parameters(recurse=False), *module.parameters(), *getattr(module, "_flat_weights", ())]
    return next((weight.dtype for weight in weights if isinstance(weight, Tensor)), torch.get_default_dtype())


def _parameters_of(module: Any, recurrent: RecurrentModule) -> list[Tensor]:
    """The parameters as this call used them, after parametrizations, hooks and code that computes them."""
    if recurrent.cell:
        return [getattr(module, name.removesuffix("_l0")) for name in recurrent.weight_names]
    require_own_names(recurrent.spec, module._flat_weights_names, where=recurrent.path or type(module).__name__)
    # Which nn.LSTM's forward passes on.
    flat = dict(zip(module._flat_weights_names, module._flat_weights, strict=True))
    return [flat[name] for name in recurrent.weight_names]


def record_uncalled(module: nn.Module, recurrent: RecurrentModule) -> None:
    """Keep the weights of a module that the trace alone has called: the example takes another branch."""
    if recurrent.branched and not recurrent.weights:
        _record_weights(module, recurrent)


def _record_weights(module: nn.Module, recurrent: RecurrentModule) -> None:
    """Keep the weights of a module's first call, and refuse others.

    Raises:
        ChangingWeightsError: a later call has other weights.
    """
    parameters = _parameters_of(module, recurrent)
    memory = [parameter.data_ptr() for parameter in parameters]
    weights, known, places = recurrent.compared or (None, [], [])
    # A loop's thousands of calls have the same parameters.  Elsewhere than on the CPU, the arrays are copies of them.
    if weights is recurrent.weights and memory == places and all(map(operator.is_, parameters, known)):
        return
    recurrent.computed = recurrent.computed or not all(isinstance(item, nn.Parameter) for item in parameters)
    arrays = [parameter.detach().cpu().numpy() for parameter in parameters]
    weights = dict(zip(recurrent.weight_names, arrays, strict=True))
    if not recurrent.weights:
        recurrent.weights = weights
        recurrent.folds = recurrent.folds or kept_folds(module, weights)
    elif not all(_is_equal(recurrent.weights[name], weights[name]) for name in weights):
        raise ChangingWeightsError(
            f"{recurrent.path or 'the module'}: its weights differ from call to call ({user_line()}); "
            "ONNX's operator takes constant weights, which no input, size or state may change"
        )
    if all(parameter.device.type == "cpu" for parameter in parameters):
        recurrent.compared = recurrent.weights, parameters, memory


def _is_equal(one: Array, other: Array) -> bool:
    # For a plain module the memory is the same at each call, and a verification makes hundreds.
    return one.__array_interface__ == other.__array_interface__ or np.array_equal(one, other, equal_nan=True)


def _operator(
    recurrent: RecurrentModule, x: Tensor, hx: States | None, lengths: Tensor | None, batch_first: bool
) -> tuple[Tensor, ...]:
    """Call the opaque operator; the comparisons of sizes made here become guards that tie axes to each other."""
    spec = recurrent.spec
    batch = x.shape[0 if batch_first else 1]
    where = f"{recurrent.path or 'the module'} ({user_line()})"
    if x.shape[2] != spec.input_size:
        raise ExportError(f"{where} takes {spec.input_size} features, but x has {x.shape[2]}")
    if str(x.dtype).removeprefix("torch.") != spec.dtype:
        raise ExportError(f"{where} is {spec.dtype}, but x is {x.dtype}")
    h_size, c_size = spec.state_size, spec.hidden_size if spec.has_cell else 0
    rows = spec.num_layers * spec.num_directions
    states: list[Tensor | None] = [None, None]
    if hx is not None:
        for index, (state, size) in enumerate(zip(hx, (h_size, c_size), strict=False)):
            if state.dim() != 3 or state.shape[0] != rows or state.shape[2] != size or state.shape[1] != batch:
                raise ExportError(
                    f"{where} takes states of shape ({rows}, batch, {size}), but one is {tuple(state.shape)}"
                )
            states[index] = state
    index = recurrent.num_traced
    recurrent.num_traced += 1
    # A mask may choose no rows, for which ONNX Runtime's operators end the process: it gets one more row.
    spare = bool(free_unbacked_symbols(batch))
    if spare:
        x = _with_spare_row(x, 0 if batch_first else 1, 0)
        states = [None if state is None else _with_spare_row(state, 1, 0) for state in states]
        lengths = None if lengths is None else _with_spare_row(lengths, 0, 1)
    result: tuple[Tensor, ...] = torch.ops.lstm_onnx.recurrent(
        x, *states, lengths, recurrent.path, index, batch_first, rows, spec.output_size, h_size, c_size
    )
    if spare:
        output, *final = result
        result = output.narrow(0 if batch_first else 1, 0, batch), *(state.narrow(1, 0, batch) for state in final)
    return result


def _with_spare_row(tensor: Tensor, axis: int, number: int) -> Tensor:
    shape = [1 if place == axis else size for place, size in enumerate(tensor.shape)]
    return torch.cat([tensor, tensor.new_full(shape, number)], axis)


def _forward(module: nn.Module, base: type[nn.Module], x: Any, hx: Any) -> Any:
    """The forward of a recurrent module, eager or traced."""
    recurrent: RecurrentModule = module.__dict__["_lstm_onnx_recurrent"]
    if not recurrent.tracing:
        return _eager(module, base, recurrent, x, hx)
    return (_traced_step if recurrent.cell else _traced_sequence)(module, recurrent, x, hx)


def _traced_sequence(module: nn.Module, recurrent: RecurrentModule, x: Any, hx: Any) -> Any:
    """nn.LSTM, nn.GRU and nn.RNN."""
    if isinstance(x, PackedSequence):
        padded = as_padded(x)
        if padded is None:
            raise ExportError(
                f"{recurrent.path} gets a PackedSequence that pack_padded_sequence did not make ({user_line()}); "
                "pack with pack_padded_sequence(x, lengths), lengths being an input of the module"
            )
        initial = _as_states(hx, recurrent)
        output, *final = _operator(recurrent, padded.value, initial, padded.lengths, padded.batch_first)
        return padded.with_value(output), _returned(final, recurrent)
    batch_first = bool(getattr(module, "batch_first", False))
    unbatched = x.dim() == 2
    row = 0 if batch_first else 1
    value = x.unsqueeze(row) if unbatched else x
    initial = with_axes(_as_states(hx, recurrent), _left_out_axes(recurrent, unbatched))
    output, *final = _operator(recurrent, value, initial, None, batch_first)
    output = output.squeeze(row) if unbatched else output
    return output, _returned(_as_given(final, recurrent, unbatched), recurrent)


def _traced_step(_module: nn.Module, recurrent: RecurrentModule, x: Any, hx: Any) -> Any:
    """nn.LSTMCell, nn.GRUCell and nn.RNNCell: a single step, as a sequence of length 1."""
    unbatched = x.dim() == 1
    value = (x.unsqueeze(0) if unbatched else x).unsqueeze(0)
    initial = with_axes(_as_states(hx, recurrent), _left_out_axes(recurrent, unbatched))
    final = _operator(recurrent, value, initial, None, batch_first=False)[1:]
    return _returned(_as_given(final, recurrent, unbatched), recurrent)


def _eager(module: nn.Module, base: type[nn.Module], recurrent: RecurrentModule, x: Any, hx: Any) -> Any:
    unbatched = isinstance(x, Tensor) and x.dim() == (1 if recurrent.cell else 2)
    if (override := recurrent.override.get(len(recurrent.calls))) is not None:
        hx = _returned(_as_given(override, recurrent, unbatched), recurrent)
    if isinstance(module, nn.LSTM) and isinstance(x, PackedSequence):
        _check_packed(module, x, hx)
    with _without_projection_warning(recurrent.spec):
        result = base.forward(module, x, hx)
    states = _as_states(hx, recurrent), _as_states(result if recurrent.cell else result[1], recurrent)
    # Copies: the module's code may write into its states afterwards.
    given, returned = (None if own is None else tuple(state.clone() for state in own) for own in states)
    _record_weights(module, recurrent)
    recurrent.calls.append(RecordedCall(given, returned or (), _left_out_axes(recurrent, unbatched), stack_place()))
    return result


def _check_packed(module: nn.LSTM, x: PackedSequence, hx: Any) -> None:
    """Check what torch 2.13 checks for an nn.LSTM's padded sequences, but not for packed ones.

    With packed ones, an h of more layers than c ends the process, and one step takes any number of features.
    """
    module.check_input(x.data, x.batch_sizes)
    if hx is not None:
        module.check_forward_args(x.data, hx, x.batch_sizes)


@contextlib.contextmanager
def _without_projection_warning(spec: RecurrentSpec) -> Iterator[None]:
    """Suppress torch's warning that projections do not use oneDNN."""
    if getattr(spec, "proj_size", 0) == 0:
        yield  # warning filters are global, so they are changed only where needed
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="LSTM with projections")
        yield


def _as_states(hx: Any, recurrent: RecurrentModule) -> States | None:
    """The states that a call is given or returns, as a tuple: (h, c) of an LSTM, (h,) of others."""
    if hx is None:
        return None
    return tuple(hx) if recurrent.spec.has_cell else (hx,)


def _returned(states: Sequence[Tensor], recurrent: RecurrentModule) -> Any:
    """States as a call returns them."""
    return tuple(states) if recurrent.spec.has_cell else states[0]


def _left_out_axes(recurrent: RecurrentModule, unbatched: bool) -> list[int]:
    """The axes of ``(L*D, batch, features)`` that states lack: a cell's the first, an unbatched call's the batch."""
    batch = [0 if recurrent.cell else 1] if unbatched else []
    return [*batch, 0] if recurrent.cell else batch


def _as_given(states: Sequence[Tensor], recurrent: RecurrentModule, unbatched: bool) -> States:
    """The reverse of `with_axes`."""
    axes = _left_out_axes(recurrent, unbatched)[::-1]
    return tuple(functools.reduce(torch.squeeze, axes, state) for state in states)


def _traceable(base: type[nn.Module]) -> type[nn.Module]:
    def forward(self: nn.Module, input: Any, hx: Any = None) -> Any:
        return _forward(self, base, input, hx)

    forward.is_recurrent = True  # type: ignore[attr-defined] # see traced_values.branch_effects
    return type(f"_Traceable{base.__name__}", (base,), {"__module__": __name__, "forward": forward})


_TRACEABLE: Mapping[type[nn.Module], type[nn.Module]] = {
    base: _traceable(base) for base in (nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell)
}
