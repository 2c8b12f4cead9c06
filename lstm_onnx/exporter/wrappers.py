"""What torch puts around a module, or into it, that does not change what it computes.

Around it: torch.compile and data parallelism.  Into it, where it was prepared for quantization: observers, which pass
on the numbers that they get, as do those that round once they are switched off.
"""

from __future__ import annotations

import contextlib
import sys
import types
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import nn

_COMPILED = "_orig_mod"
"""Where torch.compile's wrapper keeps the module, as a submodule."""
_IN_PLACE = "_compiled_call_impl"
"""The attribute that ``module.compile()`` sets, and that `nn.Module.__call__` calls instead of the forward."""
_UNCOMPILED = "_torchdynamo_orig_callable"
"""The attribute of a compiled function that holds the function as it was."""
_COMPILER = str(Path(torch.__file__).parent / "_dynamo")
"""The folder with the code of the compiler's wrapper functions."""
_QUANTIZATION = "torch.ao.quantization."
"""The package of observers, and of modules that round as a quantized module does."""


def wrapped_module(module: nn.Module) -> nn.Module | None:
    """The module within a wrapper of torch.compile, DataParallel or DistributedDataParallel; None for others.

    A wrapper with hooks of its own is more than what it wraps; `is_wrapper` recognises it all the same.
    """
    return None if module._forward_pre_hooks or module._forward_hooks else _inner(module)


def is_wrapper(module: nn.Module) -> bool:
    """Whether a module is one of the wrappers that `wrapped_module` knows, with hooks or without."""
    return _inner(module) is not None


def _inner(module: nn.Module) -> nn.Module | None:
    if isinstance(module, torch.jit.ScriptModule):  # whose submodules are not in a dict
        return None
    for kind in (nn.DataParallel, nn.parallel.DistributedDataParallel):
        if isinstance(module, kind):  # a subclass with a forward of its own is more than what it wraps
            return module._modules.get("module") if type(module).forward is kind.forward else None
    # Nothing is compiled where nothing has imported the compiler.
    compiled = getattr(sys.modules.get("torch._dynamo.eval_frame"), "OptimizedModule", ())
    return module._modules.get(_COMPILED) if isinstance(module, compiled) else None


def uncompiled(function: Any) -> Any:
    """The function or method that torch.compile (or torch.compiler.disable) wrapped; other values unchanged."""
    while isinstance(function, types.FunctionType) and function.__code__.co_filename.startswith(_COMPILER):
        inner = function.__dict__.get(_UNCOMPILED) or function.__dict__.get("__wrapped__")
        if inner is None:
            break
        function = inner
    return function


class HookedWrapper(nn.Module):
    """Calls the module that a wrapper holds, with the wrapper's own hooks around it and its attributes behind it."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module."""
        return next(iter(self._modules.values()))(*args, **kwargs)  # type: ignore[misc]

    def __getattr__(self, name: str) -> Any:
        """An attribute of the wrapper, or else of the module in it."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(next(iter(self.__dict__["_modules"].values())), name)


def plain_attributes(module: nn.Module) -> dict[str, Any]:
    """The attributes of a module without what torch.compile left in them.

    That is the compiled call of ``module.compile()``, compiled functions, and a ``module.forward`` that is just the one
    of the module's class.
    """
    found = {name: uncompiled(value) for name, value in module.__dict__.items() if name != _IN_PLACE}
    own = found.get("forward")
    if isinstance(own, types.MethodType) and own.__self__ is module and own.__func__ is type(module).forward:
        del found["forward"]
    return found


def without_compiler() -> AbstractContextManager[Any]:
    """A context in which what torch.compile made, such as a decorated function, runs as it was written."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled; importing it takes a second
        return contextlib.nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def rounds(module: nn.Module) -> bool:
    """Whether a module rounds the numbers that it gets to those of an integer type."""
    enabled: Any = getattr(module, "fake_quant_enabled", None)
    return _is_a(module, "fake_quantize", "FakeQuantizeBase") and bool(enabled.any())


def remove_observers(copy: nn.Module) -> None:
    """Replace the submodules of a copy that pass on what they get, and keep records of it, by nn.Identity."""
    for part in list(copy.modules()):
        for name, child in part._modules.items():
            if child is not None and _passes(child):
                part._modules[name] = nn.Identity().eval()


def _passes(module: nn.Module) -> bool:
    if not type(module).__module__.startswith(_QUANTIZATION) or module._forward_hooks or module._forward_pre_hooks:
        return False
    off = _is_a(module, "fake_quantize", "FakeQuantizeBase") and not rounds(module)
    return off or _is_a(module, "observer", "ObserverBase")


def _is_a(module: nn.Module, file: str, base: str) -> bool:
    # There is none where nothing imported them, and importing them here would cost each export its time.
    return isinstance(module, getattr(sys.modules.get(_QUANTIZATION + file), base, ()))
