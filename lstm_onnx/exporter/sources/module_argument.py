"""The module that a caller passes, without torch's wrappers; or an error that says what to pass instead."""

from __future__ import annotations

import functools
import inspect
import itertools
import os
import re
import types
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ...errors import ExportError, shown
from ..dependencies import import_torch

if TYPE_CHECKING:
    from torch import nn

_SCRIPT = "TorchScript, which keeps the weights and no Python code to trace"
_QUANTIZED = re.compile(r"torch\.ao\.nn\.(intrinsic\.)?quantized\.")
_FLOAT = ("FloatFunctional", "FXFloatFunctional")
"""Classes among the quantized ones that compute in float."""
_MOST_NAMES = 4


def unwrap_module(module: Any) -> Any:
    """The module within the wrappers of torch.compile, DataParallel and DistributedDataParallel.

    Raises:
        ExportError: it is not a module, or one whose code or weights cannot be read.
    """
    nn = import_torch("exporting a module needs it").nn
    from ..wrappers import wrapped_module

    if not isinstance(module, nn.Module):
        raise ExportError(not_a_module(module))
    while (inner := wrapped_module(module)) is not None:
        module = inner
    problem = next(_problems(module), None)
    if problem is not None:
        raise ExportError(problem)
    return module


def not_a_module(value: Any) -> str:
    """What was passed instead of an nn.Module, and what to pass, for an error."""
    return _known(value) or f"{type(value).__name__} is not an nn.Module"


def is_unknown(value: Any) -> bool:
    """Whether nothing is known of a value but that it is not an nn.Module."""
    torch = import_torch("exporting a module needs it")
    return not isinstance(value, torch.nn.Module) and _known(value) is None


def _known(value: Any) -> str | None:
    torch = import_torch("exporting a module needs it")
    kinds = (_class, _program, _weights, _data, _collection, _callable, _holder)
    return next((text for describe in kinds if (text := describe(torch, value)) is not None), None)


def _class(torch: Any, value: Any) -> str | None:
    if isinstance(value, types.ModuleType):
        return f"{value.__name__} is a Python module; pass an nn.Module, such as one that a class in it makes"
    if value is None:
        return "None is not an nn.Module; a function that makes the module must return it"
    if not isinstance(value, type):
        return None
    if not issubclass(value, torch.nn.Module):
        return f"{value.__name__} is a class, and not one of nn.Module"
    return f"{value.__name__} is a class; pass an instance, {construction(value)}"


def construction(kind: type) -> str:
    """How a class is called: ``Net()``, or ``Net(vocabulary, hidden)`` with the arguments that it requires."""
    try:
        parameters = list(inspect.signature(kind).parameters.values())
    except (TypeError, ValueError):
        return f"{kind.__name__}(...)"
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = [item.name for item in parameters if item.default is item.empty and item.kind not in kinds]
    if not required and any(item.kind in kinds for item in parameters):
        required = ["..."]
    return f"{kind.__name__}({', '.join(required)})"


def _program(torch: Any, value: Any) -> str | None:
    if isinstance(value, torch.export.ExportedProgram):
        return (
            "this is an ExportedProgram, in which torch.export has already replaced the recurrent modules by "
            "operators of fixed sizes; pass the nn.Module that it was made from"
        )
    if isinstance(value, torch.jit.ScriptFunction):
        return f"this is a function of {_SCRIPT}; pass the nn.Module that it was made from"
    kind = type(value)
    if kind.__module__ == "onnx.onnx_ml_pb2" or kind.__module__.startswith(("onnxruntime.", "lstm_onnx.")):
        return f"{kind.__name__} is an ONNX model already; pass the nn.Module that it was made from"
    if kind.__module__.startswith(("keras.", "tensorflow.", "jax.", "flax.")):
        return f"{kind.__name__} is of {kind.__module__.partition('.')[0]}; only PyTorch's nn.Module is exported"
    return None


def _weights(torch: Any, value: Any) -> str | None:
    if isinstance(value, torch.optim.Optimizer):
        return f"{type(value).__name__} is an optimizer; pass the module whose parameters it updates"
    if not isinstance(value, Mapping):
        return None
    modules = [shown(key) for key, item in value.items() if isinstance(item, torch.nn.Module)]
    if modules:
        return f"this is a dict that holds modules ({', '.join(modules[:_MOST_NAMES])}); pass one of them"
    if value and all(isinstance(item, torch.Tensor) for item in value.values()):
        return "this is a state dict; load it into the module first: module.load_state_dict(...)"
    if any(isinstance(item, Mapping) for item in value.values()):
        return "this is a dict, such as a checkpoint; load its state dict into the module first"
    return None


def _data(torch: Any, value: Any) -> str | None:
    if isinstance(value, (torch.Tensor, torch.nn.utils.rnn.PackedSequence)) or type(value).__name__ == "ndarray":
        return f"{type(value).__name__} is data and no nn.Module; pass the module first, and data as example_inputs"
    if isinstance(value, (str, os.PathLike)):
        return (
            f"{type(value).__name__} is not an nn.Module; pass the module itself, with its weights loaded "
            "(the command line, lstm-onnx export, takes a models/*.toml or file.py:callable)"
        )
    return None


def _collection(torch: Any, value: Any) -> str | None:
    if not isinstance(value, (list, tuple)) or not any(isinstance(item, torch.nn.Module) for item in value):
        return None
    kind = type(value).__name__
    if isinstance(value, tuple) and isinstance(value[0], torch.nn.Module) and not isinstance(value[-1], type(value[0])):
        return f"this is a {kind}; pass the module alone, and the arguments of its forward as example_inputs"
    return f"this is a {kind} that holds modules; pass one nn.Module, whose forward calls them"


def _callable(torch: Any, value: Any) -> str | None:
    if isinstance(value, functools.partial):
        return "this is a functools.partial; pass the nn.Module that it makes when it is called"
    owner = getattr(value, "__self__", None)
    if isinstance(owner, torch.nn.Module):
        return f"{getattr(value, '__name__', 'this')} is a method of {type(owner).__name__}; pass the module itself"
    if isinstance(value, (types.FunctionType, types.BuiltinFunctionType, types.MethodType)):
        return (
            f"{shown(value.__name__)} is a function; pass an nn.Module that has the recurrent modules as attributes "
            "and calls them in its forward (or, if the function makes the module, what it returns)"
        )
    return None


def _holder(torch: Any, value: Any) -> str | None:
    """Objects that hold a module, such as a trainer or a pipeline."""
    attributes = getattr(value, "__dict__", None)
    items = attributes.items() if isinstance(attributes, dict) else ()
    held = [name for name, item in items if isinstance(item, torch.nn.Module)]
    if not held:
        return None
    names = ", ".join(f".{name}" for name in held[:_MOST_NAMES])
    return f"{type(value).__name__} is not an nn.Module; pass one that it holds ({names})"


def _problems(module: nn.Module) -> Iterator[str]:
    """Why a module, or a part of it, has no code or no weights that can be read; nothing for others."""
    import torch

    from ..wrappers import rounds

    for path, part in module.named_modules():
        where = f"{path} ({type(part).__name__})" if path else type(part).__name__
        kind = f"{type(part).__module__}.{type(part).__name__}"
        if isinstance(part, torch.jit.ScriptModule):
            name = getattr(part, "original_name", "") or "a module"
            if getattr(type(part), "_methods", None):  # those with @script_method, of a class that derives from it
                mend = f"derive {type(part).__name__} from nn.Module, and leave out @torch.jit.script_method"
            else:
                mend = "pass the nn.Module that it was made from"
            yield (
                f"{path or name} is {_SCRIPT}; {mend} (its weights fit that: "
                "module.load_state_dict(scripted.state_dict()))"
            )
        elif _is_exported(part):
            yield (
                f"{where} comes from torch.export, which has already replaced the recurrent modules by operators of "
                "fixed sizes; pass the nn.Module that was exported"
            )
        elif _QUANTIZED.match(kind) and type(part).__name__ not in _FLOAT:
            yield (
                f"{path or 'the module'} is {kind}, of PyTorch's own quantization, which ONNX has no operators for; "
                "pass the float module, as it was before it was quantized"
            )
        elif rounds(part):
            yield (
                f"{where} rounds numbers as a quantized module does, and the smallest difference before it can tip a "
                "rounding; switch it off, module.apply(torch.ao.quantization.disable_fake_quant), which leaves the "
                'trained weights, and let precision="int8" quantize them'
            )
        elif kind.startswith("torch.distributed.fsdp."):
            yield f"{where} keeps its parameters in shards; {_GATHER}"
    for name, tensor in itertools.chain(module.named_parameters(), module.named_buffers()):
        if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
            kind = type(tensor).__name__
            if kind == "DTensor":
                yield f"{name} is a DTensor, in shards over devices; {_GATHER}"
            else:
                yield (
                    f"{name} is a {kind}, a tensor of another kind than torch.Tensor, such as quantized ones; pass "
                    "the module with plain float parameters"
                )
    if type(module).forward is torch.nn.Module.forward and "forward" not in vars(module):
        yield _without_forward(module)


_GATHER = (
    "gather them with torch.distributed.checkpoint.state_dict.get_model_state_dict (full_state_dict=True), load them "
    "into a plain module, and pass that"
)


def _is_exported(part: nn.Module) -> bool:
    import torch

    if type(part).__module__ == "torch.export.unflatten":
        return True
    if not isinstance(part, torch.fx.GraphModule):
        return False
    return any(isinstance(node.target, torch._ops.OpOverload) for node in part.graph.nodes)


def _without_forward(module: nn.Module) -> str:
    names = list(module._modules)
    parts = f"one of its submodules ({', '.join(names[:_MOST_NAMES])}), or " if names else ""
    return f"{type(module).__name__} has no forward; pass {parts}a module whose forward calls the recurrent modules"
