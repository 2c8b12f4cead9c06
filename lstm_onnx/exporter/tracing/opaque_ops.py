"""The recurrent modules of a module: recorded while it runs, one opaque operator each while it is traced.

PyTorch's own export takes nn.LSTM apart, and what is left no longer runs at other shapes.  Here the
LSTMs (and GRUs, RNNs and their cells) of a structural copy are given classes of our own.  In an eager
run these do what PyTorch does and record each call.  While the module is traced they call one custom
operator, ``lstm_onnx::recurrent``, which knows its output shapes and nothing else; `splice` puts
the real ONNX nodes in its place.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ...errors import ExportError
from ...spec import DTYPES, GRUSpec, LSTMSpec, RecurrentSpec, RNNSpec
from ..weights import Array
from .packed_sequences import Padded
from .user_code import user_line

States = tuple[Tensor, ...]
"""(h, c) of an LSTM, (h,) of a GRU or RNN, each ``(L*D, batch, features)``."""

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
    x: Tensor,
    h0: Tensor | None,  # noqa: ARG001
    c0: Tensor | None,  # noqa: ARG001
    lengths: Tensor | None,  # noqa: ARG001
    module: str,  # noqa: ARG001
    call: int,  # noqa: ARG001
    batch_first: bool,
    rows: int,
    output_size: int,
    h_size: int,
    c_size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    batch = x.shape[0 if batch_first else 1]
    output = x.new_empty((x.shape[0], x.shape[1], output_size))
    return output, x.new_empty((rows, batch, h_size)), x.new_empty((rows, batch, c_size))


@dataclass
class Call:
    """One call of a recurrent module in an eager run.

    `given` and `final` are its states before and after, float as the model's, each
    ``(L*D, batch, features)``; `given` is None where the caller passed none.  `line` is where.
    """

    given: States | None
    final: States
    line: str


@dataclass
class Site:
    """One recurrent module within the copy: its spec, its weights, and the calls of the last eager run."""

    path: str
    spec: RecurrentSpec
    cell: bool
    weights: dict[str, Array] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    override: dict[int, States] = field(default_factory=dict)
    """Initial states by call, in the place of what the module's code passes."""
    tracing: bool = False
    traced: int = 0
    """Calls in this pass of the tracer, which may run the forward more than once."""

    def begin(self) -> None:
        """Count calls from the first again; those of the last eager run are kept while the module is traced."""
        self.traced = 0
        if not self.tracing:
            self.calls.clear()


def install(copy: nn.Module) -> dict[str, Site]:
    """Give every recurrent module of a structural copy one of our classes; the sites by module path.

    Raises:
        ExportError: a module has a dtype that ONNX Runtime cannot run.
    """
    sites: dict[str, Site] = {}
    for path, module in copy.named_modules():
        base = next((base for base in _OURS if isinstance(module, base)), None)
        if base is None:
            continue
        site = Site(path, _spec_of(module, path), cell=isinstance(module, nn.RNNCellBase))
        sites[path] = site
        module.__dict__["_lstm_onnx_site"] = site
        kind = type(module)
        ours = _OURS[base]
        # Ours goes between a subclass and torch's class, so that the subclass's own forward is kept
        # and its super().forward() comes to us.
        module.__class__ = ours if kind is base else type(kind.__name__, (kind, ours), {"__module__": kind.__module__})
    return sites


def _spec_of(module: nn.Module, path: str) -> RecurrentSpec:
    where = path or type(module).__name__
    cell = isinstance(module, nn.RNNCellBase)
    first: Any = module
    dtype = str((first.weight_ih if cell else first.weight_ih_l0).dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise ExportError(
            f"{where} has dtype {dtype}, which ONNX Runtime has no recurrent operators for; "
            "export module.float() instead (for bfloat16 that is exact)"
        )
    sizes: dict[str, Any] = {name: getattr(module, name) for name in ("input_size", "hidden_size", "bias")}
    sizes["dtype"] = dtype
    if not cell:
        sizes |= {name: getattr(module, name) for name in ("num_layers", "batch_first", "bidirectional")}
    if isinstance(module, (nn.LSTM, nn.LSTMCell)):
        return LSTMSpec(**sizes, proj_size=getattr(module, "proj_size", 0))
    if isinstance(module, (nn.GRU, nn.GRUCell)):
        return GRUSpec(**sizes)
    return RNNSpec(**sizes, nonlinearity=first.nonlinearity)


def _weights_of(module: nn.Module, site: Site) -> dict[str, Array]:
    """The parameters as this very call uses them: what a parametrisation or a hook makes of them."""
    suffix = "_l0" if site.cell else ""
    names = list(site.spec.parameter_shapes())
    return {
        name: getattr(module, name.removesuffix(suffix) if suffix else name).detach().cpu().numpy() for name in names
    }


def _record(module: nn.Module, site: Site, given: States | None, final: States) -> None:
    weights = _weights_of(module, site)
    if not site.weights:
        site.weights = weights
    elif any(not np.array_equal(site.weights[name], weights[name], equal_nan=True) for name in weights):
        raise ExportError(
            f"{site.path}: its weights are other ones from call to call ({user_line()}); "
            "ONNX's operator takes constant weights"
        )
    site.calls.append(Call(given, final, user_line()))


def _operator(
    site: Site, x: Tensor, hx: States | None, lengths: Tensor | None, batch_first: bool
) -> tuple[Tensor, ...]:
    """The opaque operator; checks made here become the guards that tie one axis to another."""
    spec = site.spec
    batch = x.shape[0 if batch_first else 1]
    where = f"{site.path or 'the module'} ({user_line()})"
    if x.shape[2] != spec.input_size:
        raise ExportError(f"{where} takes {spec.input_size} features and was given {x.shape[2]}")
    if str(x.dtype).removeprefix("torch.") != spec.dtype:
        raise ExportError(f"{where} is {spec.dtype} and was given {x.dtype}")
    h_size, c_size = spec.state_size, spec.hidden_size if spec.has_cell else 0
    rows = spec.num_layers * spec.num_directions
    states: list[Tensor | None] = [None, None]
    if hx is not None:
        for index, (state, size) in enumerate(zip(hx, (h_size, c_size), strict=False)):
            if state.dim() != 3 or state.shape[0] != rows or state.shape[2] != size or state.shape[1] != batch:
                raise ExportError(
                    f"{where} takes states of shape ({rows}, batch, {size}) and was given {tuple(state.shape)}"
                )
            states[index] = state
    index = site.traced
    site.traced += 1
    result: tuple[Tensor, ...] = torch.ops.lstm_onnx.recurrent(
        x, *states, lengths, site.path, index, batch_first, rows, spec.output_size, h_size, c_size
    )
    return result


def _sequence_forward(module: nn.Module, base: type[nn.Module], x: Any, hx: Any) -> Any:
    """nn.LSTM, nn.GRU and nn.RNN, eager or traced."""
    site: Site = module.__dict__["_lstm_onnx_site"]
    spec = site.spec
    if not site.tracing:
        return _eager(module, base, site, x, hx)
    if isinstance(x, PackedSequence) and not isinstance(x, Padded):
        raise ExportError(
            f"{site.path} was given a PackedSequence that did not come from pack_padded_sequence ({user_line()}); "
            "pack with pack_padded_sequence(x, lengths), lengths being an input of the module"
        )
    lengths = None
    batch_first = bool(getattr(module, "batch_first", False))
    unbatched = False
    if isinstance(x, Padded):
        value, lengths, batch_first = x.value, x.lengths, x.batch_first
    else:
        value = x
        unbatched = value.dim() == 2
        if unbatched:
            value = value.unsqueeze(0 if batch_first else 1)
    given = _as_states(hx, spec)
    if given is not None and unbatched:
        given = tuple(state.unsqueeze(1) for state in given)
    output, hn, cn = _operator(site, value, given, lengths, batch_first)
    if unbatched:
        output, hn, cn = output.squeeze(0 if batch_first else 1), hn.squeeze(1), cn.squeeze(1)
    out = x.with_value(output) if isinstance(x, Padded) else output
    return (out, (hn, cn)) if spec.has_cell else (out, hn)


def _eager(module: nn.Module, base: type[nn.Module], site: Site, x: Any, hx: Any) -> Any:
    given = _as_states(hx, site.spec)
    unbatched = isinstance(x, Tensor) and x.dim() == 2
    if (forced := site.override.get(len(site.calls))) is not None:
        given = tuple(state[:, 0] for state in forced) if unbatched else forced
        hx = given if site.spec.has_cell else given[0]
    with _without_remark(site.spec):
        output, final = base.forward(module, x, hx)
    after = final if site.spec.has_cell else (final,)
    if unbatched:
        given = None if given is None else tuple(state.unsqueeze(1) for state in given)
        after = tuple(state.unsqueeze(1) for state in after)
    _record(module, site, given, after)
    return output, final


@contextlib.contextmanager
def _without_remark(spec: RecurrentSpec) -> Iterator[None]:
    """torch remarks that projections do not go through oneDNN; here only the numbers matter."""
    if getattr(spec, "proj_size", 0) == 0:
        yield  # the filters are the whole process', so they are left alone where that can be
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="LSTM with projections")
        yield


def _as_states(hx: Any, spec: RecurrentSpec) -> States | None:
    if hx is None:
        return None
    return tuple(hx) if spec.has_cell else (hx,)


def _cell_forward(module: nn.Module, base: type[nn.Module], x: Any, hx: Any) -> Any:
    """nn.LSTMCell, nn.GRUCell and nn.RNNCell: one step, as a sequence of one."""
    site: Site = module.__dict__["_lstm_onnx_site"]
    given = _as_states(hx, site.spec)
    unbatched = x.dim() == 1
    if not site.tracing:
        if (forced := site.override.get(len(site.calls))) is not None:
            given = tuple(state[0, 0] if unbatched else state[0] for state in forced)
            hx = given if site.spec.has_cell else given[0]
        final = base.forward(module, x, hx)
        after = final if site.spec.has_cell else (final,)
        _record(module, site, _lifted(given, unbatched), _lifted(after, unbatched) or ())
        return final
    value = (x.unsqueeze(0) if unbatched else x).unsqueeze(0)
    _, hn, cn = _operator(site, value, _lifted(given, unbatched), None, batch_first=False)
    final = tuple(state.squeeze(0).squeeze(0) if unbatched else state.squeeze(0) for state in (hn, cn))
    return final if site.spec.has_cell else final[0]


def _lifted(states: States | None, unbatched: bool) -> States | None:
    """A cell's ``(batch, H)`` or ``(H,)`` as ``(1, batch, H)``."""
    if states is None:
        return None
    return tuple((state.unsqueeze(0) if unbatched else state).unsqueeze(0) for state in states)


class _OurLSTM(nn.LSTM):
    def forward(self, input: Any, hx: Any = None) -> Any:
        return _sequence_forward(self, nn.LSTM, input, hx)


class _OurGRU(nn.GRU):
    def forward(self, input: Any, hx: Any = None) -> Any:
        return _sequence_forward(self, nn.GRU, input, hx)


class _OurRNN(nn.RNN):
    def forward(self, input: Any, hx: Any = None) -> Any:
        return _sequence_forward(self, nn.RNN, input, hx)


class _OurLSTMCell(nn.LSTMCell):
    def forward(self, input: Any, hx: Any = None) -> Any:
        return _cell_forward(self, nn.LSTMCell, input, hx)


class _OurGRUCell(nn.GRUCell):
    def forward(self, input: Any, hx: Any = None) -> Any:
        return _cell_forward(self, nn.GRUCell, input, hx)


class _OurRNNCell(nn.RNNCell):
    def forward(self, input: Any, hx: Any = None) -> Any:
        return _cell_forward(self, nn.RNNCell, input, hx)


_OURS: Mapping[type[nn.Module], type[nn.Module]] = {
    nn.LSTM: _OurLSTM,
    nn.GRU: _OurGRU,
    nn.RNN: _OurRNN,
    nn.LSTMCell: _OurLSTMCell,
    nn.GRUCell: _OurGRUCell,
    nn.RNNCell: _OurRNNCell,
}
