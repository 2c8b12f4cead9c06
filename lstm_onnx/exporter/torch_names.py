"""The arguments of torch.onnx.export by the names that they have here: an error says what to pass instead."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from ..errors import ConfigError

P = ParamSpec("P")
T = TypeVar("T")

_EXAMPLES = ("args", "dummy_input", "dummy_inputs", "example_args", "inputs")
_NOT_NEEDED = (
    *("artifacts_dir", "autograd_inlining", "custom_opsets", "custom_translation_table", "do_constant_folding"),
    *("dump_exported_program", "dynamo", "export_modules_as_functions", "fallback", "keep_initializers_as_inputs"),
    *("operator_export_type", "optimize", "profile", "report", "strict", "verbose"),
)
_NAMES = {
    **dict.fromkeys(_EXAMPLES, "pass example_inputs, the arguments of forward"),
    **dict.fromkeys(("kwargs", "example_kwargs"), "pass example_inputs as a dict of arguments by name"),
    **dict.fromkeys(_NOT_NEEDED, "leave it out"),
    "model": "pass the module as the first argument",
    "f": "pass the path of the file as the second argument",
    "input_names": "leave it out: inputs have the names of forward's arguments",
    "opset_version": "pass opset",
    "export_params": "leave it out: the file holds the weights",
    "training": "leave it out: the module is exported in eval mode",
    "external_data": "leave it out: weights over 2 GB go to a file of their own",
    "verify": "leave it out: the file is tested before it is kept; check=False skips that",
}


def translates_torch_names(export: Callable[P, T]) -> Callable[P, T]:
    """Make a call as of torch.onnx.export a ConfigError that says how it is written here."""

    @functools.wraps(export)
    def translated(*args: P.args, **kwargs: P.kwargs) -> T:
        others = [name for name in kwargs if name in _NAMES]
        if len(args) > 2:
            shown = "export(module, path, example_inputs=...)"
            order = ": the path is the second argument" if isinstance(args[2], (str, os.PathLike)) else ""
            raise ConfigError(f"export takes two arguments without a name{order}; write {shown}")
        if len(others) == 1:
            raise ConfigError(f"{others[0]} is an argument of torch.onnx.export; {_NAMES[others[0]]}")
        if others:
            instead = "; ".join(f"{name}: {_NAMES[name]}" for name in others)
            raise ConfigError(f"{', '.join(others)} are arguments of torch.onnx.export; {instead}")
        return export(*args, **kwargs)

    return translated
