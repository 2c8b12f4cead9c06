"""An nn.LSTM as a spec and a state dict, and back."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, ExportError
from ...spec import DTYPES, LSTMSpec, from_attributes
from ..dependencies import import_torch
from ..weights import Array, require_own_names, validate_state_dict

if TYPE_CHECKING:
    from torch import nn

_MOST_LAYERS = 1000
"""More layers are surely a mistake: they take minutes to build, each with its own nodes in the file."""


_CALLED = ("__call__", "_call_impl", "__getattribute__", "__getattr__", "_flat_weights", "forward", "permute_hidden")
"""What a call of an nn.LSTM runs and reads, which a subclass or an instance may have replaced."""


def is_bare_lstm(module: nn.Module) -> bool:
    """Whether a module is an nn.LSTM and nothing more, so that it needs no tracing."""
    nn = import_torch("exporting a module needs it").nn
    hooks = nn.modules.module  # and global hooks
    every = hooks._global_forward_pre_hooks or hooks._global_forward_hooks
    if not isinstance(module, nn.LSTM) or module._forward_pre_hooks or module._forward_hooks or every:
        return False
    classes = type(module).__mro__
    added = {name for cls in classes[: classes.index(nn.LSTM)] for name in vars(cls)}
    added |= vars(module).keys() - {"_flat_weights"}
    return added.isdisjoint(_CALLED) and _uses_its_parameters(module)


def _uses_its_parameters(module: nn.LSTM) -> bool:
    """Whether a call computes with the parameters, and not with tensors that were put into the list of them."""
    torch = import_torch("exporting a module needs it")
    own = module._parameters
    used = zip(module._flat_weights_names, vars(module).get("_flat_weights", ()), strict=False)
    return all(tensor is own.get(name, tensor) or torch.equal(tensor, own[name]) for name, tensor in used)


def require_lstm_options(states: str | None, max_delay: int | None, chunk: int | None) -> None:
    """Refuse options of modules with states that a bare nn.LSTM has no use for (ConfigError)."""
    if states == "zero":
        raise ConfigError("a bare nn.LSTM always has its states as inputs; leave states out")
    has_none = max_delay is None or (isinstance(max_delay, int) and max_delay == 0)
    if not has_none or chunk is not None:
        raise ConfigError("a bare nn.LSTM has no look-ahead, and takes any chunks; leave out max_delay and chunk")


def dropout_notes(module: nn.LSTM) -> tuple[str, ...]:
    """A note on an nn.LSTM whose training mode differs from its eval mode, in which it is exported."""
    if not module.training or not module.dropout or module.num_layers == 1:
        return ()
    return ("the LSTM is in training mode and was exported in eval mode, without dropout; call eval() to compare it",)


def spec_of(module: Any) -> LSTMSpec:
    """The spec of an nn.LSTM.

    Raises:
        ExportError: `module` is not an nn.LSTM, changes its forward, or has a dtype that ONNX
            Runtime has no LSTM for.
    """
    torch = import_torch("exporting a module needs it")
    if not isinstance(module, torch.nn.LSTM):
        raise ExportError(
            f"{type(module).__name__} is not an nn.LSTM; a module that contains one is traced, with example_inputs"
        )
    if not is_bare_lstm(module):
        raise ExportError(
            f"{type(module).__name__} has hooks, a forward of its own or another method that a call runs, or "
            "_flat_weights that are not its parameters, so it is more than the nn.LSTM it derives from, and is traced; "
            "pass example_inputs"
        )
    if any(parameter.is_meta for parameter in module.parameters()):
        raise ExportError("the LSTM is on the meta device, where weights have no values; load them first")
    dtype = str(module.weight_ih_l0.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise ExportError(
            f"the LSTM's dtype is {dtype}, which ONNX Runtime has no LSTM for; "
            "export module.float() instead (for bfloat16 that is exact)"
        )
    names = (name for name in LSTMSpec.__dataclass_fields__ if name != "dtype")
    spec = from_attributes(LSTMSpec, {**{name: getattr(module, name) for name in names}, "dtype": dtype})
    require_own_names(spec, module._flat_weights_names, where=type(module).__name__)
    return spec


def state_of(module: nn.LSTM, spec: LSTMSpec) -> dict[str, Array]:
    """The parameters of `module` as arrays ``{name: array}``, on the CPU.

    They are read as attributes and not from the state dict, so that a parametrization (weight_norm,
    spectral_norm) gives the weight that the forward uses at inference.  The module is not changed.
    """
    torch = import_torch("reading a module needs it")
    modes = [(part, part.training) for part in module.modules()]
    try:
        for part, _ in modes:
            part.training = False  # else spectral_norm would do a step of its power iteration
        with torch.no_grad():
            state = {name: getattr(module, name).detach().cpu().numpy() for name in spec.parameter_shapes()}
    finally:
        for part, mode in modes:
            part.training = mode
    return validate_state_dict(spec, state, where=type(module).__name__)


def module_of(spec: LSTMSpec, state: Mapping[str, Array]) -> nn.LSTM:
    """An nn.LSTM in eval mode with sizes `spec` and parameters `state`."""
    torch = import_torch("the PyTorch side of a model needs it")
    # A new nn.LSTM draws weights, which must not change the caller's random state.
    with torch.random.fork_rng(devices=[]):
        module = _build(torch, spec)
    module.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in state.items()})
    return module.eval()


def seeded_state(spec: LSTMSpec, seed: int) -> dict[str, Array]:
    """The parameters that nn.LSTM draws right after ``torch.manual_seed(seed)``.

    The caller's random state is restored.
    """
    torch = import_torch("weights from a seed are drawn by it; weights from a .safetensors file need no torch")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return state_of(_build(torch, spec), spec)


def _build(torch: Any, spec: LSTMSpec) -> nn.LSTM:
    arguments = {name: getattr(spec, name) for name in spec.__dataclass_fields__ if name != "dtype"}
    with warnings.catch_warnings():
        # torch warns that dropout has no effect in a single layer.
        warnings.filterwarnings("ignore", message="dropout option adds dropout")
        try:
            module: nn.LSTM = torch.nn.LSTM(**arguments, dtype=getattr(torch, spec.dtype), device="cpu")
        except RuntimeError as error:
            if "allocate memory" not in str(error):
                raise
            size = f"{spec.num_parameters:,} parameters, {spec.num_bytes / 2**30:,.1f} GiB"
            raise ConfigError(f"the sizes need {size}, which do not fit into memory; use smaller sizes") from None
    return module


def check_sizes(spec: LSTMSpec) -> None:
    """Refuse sizes that do not fit into this machine's memory, before weights are allocated.

    Raises:
        ConfigError: the weights are larger than the physical memory, or there are more than `_MOST_LAYERS`.
    """
    if spec.num_layers > _MOST_LAYERS:
        raise ConfigError(
            f"num_layers = {spec.num_layers} is more than {_MOST_LAYERS}, which no LSTM needs; use fewer layers"
        )
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return  # not known on this platform
    if 0 < memory < spec.num_bytes:
        raise ConfigError(
            f"the sizes need {spec.num_parameters:,} parameters, {spec.num_bytes / 2**30:,.1f} GiB, "
            f"and this machine has {memory / 2**30:,.1f} GiB; use smaller sizes"
        )
