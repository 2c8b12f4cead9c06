"""Export of nn.LSTM, of any module that contains one, and of configured models, to ONNX files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, ExportError
from ..generation_spec import Generation
from ..onnxgraph.write import digest, require_model_path
from ..runtime.arguments import flag
from ..spec import DEFAULT_OPSET, INT8_KERNELS, INT8_LAYERS, ExportOptions
from ..tracebacks import short_tracebacks
from .bare_lstm import export_lstm
from .kept_digest import kept_digest, kept_folds
from .result import ExportResult
from .torch_names import translates_torch_names

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ExportResult", "export"]


@short_tracebacks
@translates_torch_names
def export(
    module: nn.Module,
    path: str | os.PathLike[str],
    *,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    states: str | None = None,
    max_delay: int = 0,
    chunk: int | None = None,
    output_names: Sequence[str] | None = None,
    lengths: bool = False,
    projection: str = "scan",
    opset: int = DEFAULT_OPSET,
    precision: str | None = None,
    layers: str = INT8_LAYERS[0],
    kernel: str = INT8_KERNELS[0],
    target: str | None = None,
    generate: Generation | Mapping[str, Any] | None = None,
    check: bool = True,
    dynamic_axes: Any = None,
) -> ExportResult:
    """Write an ``nn.LSTM``, or any module that contains one, to an ONNX file with dynamic batch and time.

    A bare ``nn.LSTM`` needs no example.  Its file's inputs are ``input`` (``(time, batch, input_size)``, or
    batch first as in the module), ``h0`` and ``c0`` (as nn.LSTM takes them), its outputs ``output``, ``hn``
    and ``cn``, all of the module's dtype (or as `precision` says).

    Any other module is traced by torch.export with `example_inputs`.  Each nn.LSTM, nn.GRU, nn.RNN and cell
    in it becomes one ONNX operator per layer (a projected layer one Scan).  Inputs are named after the
    forward's arguments, outputs after the keys of its result (``output`` for a single tensor, ``output.0``
    for the first of a tuple).  A state that the module keeps in an attribute becomes an input and an output
    (``hidden.h0`` and ``hidden.hn``).

    The module is exported in eval mode, without dropout, and is not changed.

    Args:
        module: of float32, float64 or float16 parameters; with `precision` also of bfloat16.
        path: the file to write; weights over 2 GB go to ``PATH.DIGEST.data`` beside it.
        example_inputs: for a module: a tensor, a tuple of arguments or a dict of them by name, with
            tensors in the containers that the forward takes.
        dynamic_shapes: the dynamic axes, as torch.export takes them, with names:
            ``{"tokens": {0: "batch", 1: "time"}}``.  ``torch.export.Dim("time", min=7, max=512)`` instead of a name
            limits the axis to these sizes, and an expression (``"4*time - 16"``) ties it to another one.  By default
            they are found by running the module with each axis made longer: the shapes that reach its recurrent
            modules tell batch from time; a note has the `dynamic_shapes` that were found.  ``{}`` makes all axes
            static.
        states: for a module: "zero" (the default) keeps the forward's own signature; "explicit" makes the states of
            every LSTM inputs and outputs (``encoder.lstm.h0`` and ``encoder.lstm.hn``), so that it can be streamed.
            If other layers need earlier steps as well (convolutions, differences, sums), these become states too
            (``conv1.cache``), and the file takes chunks of any length.
        max_delay: with explicit states, the largest look-ahead that a stream may have: the number of output steps that
            come only with `Stream.flush`.  "same" convolutions have (kernel - 1) / 2.
        chunk: with explicit states, the file takes only chunks whose number of steps is a multiple of this; a file
            with convolutions then has fewer nodes and is faster.  The model must have no look-ahead, and `chunk` must
            be a multiple of the product of all strides.
        output_names: for a module: names of its outputs, in order.
        lengths: for a bare nn.LSTM: add the int32 input ``lengths`` (batch,), with the effect of packed
            sequences in PyTorch: each sequence's final states at its own end, and zeros in the output after
            it.  A module that packs its sequences has an argument for the lengths.
        projection: how ``proj_size > 0`` and layers of float64 are written.  "scan" is exact for every weight and the
            faster one on the CPU; "fold" keeps the standard operators, which cuDNN and CUDA graphs require, and which
            the CPU does not run in float64.
        opset: 14 to 23.
        precision: "float64" and "float32" compute in this dtype, and inputs, outputs and states are of it.  "float16"
            and "int8" store the weights in half and a quarter of float32's bytes; inputs, outputs and states are
            float32.  "float16" computes in float32; "int8" is what `lstm_onnx.quantize` does, with its proof.  By
            default everything has the module's own dtype.
        layers: for "int8": "all" LSTM, GRU, RNN, Linear and Embedding layers, or only the "recurrent" ones.
        kernel: for "int8": the operator that computes the products, "MatMulInteger", "DynamicQuantizeLSTM",
            "MatMulNBits" or "MatMulNBits-256", as in `lstm_onnx.quantize`.
        target: the engine or server that the file is for, "openvino", "tract", "web", "webgpu", "coreml", "qnn",
            "tensorrt" or "triton": layers get a form that gives right results there, and a model that has none is
            refused, by the rules of ``lstm-onnx check --target``.  By default the file is for ONNX Runtime.
        generate: for a module that computes a step: write a file that runs it in a loop, each time on the output of
            the step before, such as ``{"input": "tokens", "output": "logits"}``; see `Generation` and
            `make_generating`.  The states are explicit.
        check: for a module: run the file at other shapes and compare it with the module before it is kept.
        dynamic_axes: torch.onnx.export's older form of `dynamic_shapes`; it is refused, with a translation.

    Returns:
        What was written.  The `notes` of a module's file say for which sizes of an axis it is right, if not
        for all; it refuses others.

    Raises:
        ExportError: the module has no form in ONNX; the message names the module or the line and what
            to write instead.  Or no form of it gives right results on the `target`.
        ConfigError: an option is not possible.
        ModelError: ``precision="int8"``, and the module has no layer for it, or none that is large enough.
        WeightsError: "fold" with a projection that is too badly conditioned for it.
        FileError: the file cannot be written; this is checked before the module is traced.
        MissingDependencyError: torch is not installed or, for a module, onnxscript.
    """
    from .sources.module_argument import unwrap_module
    from .sources.torch_lstm import dropout_notes, is_bare_lstm, require_lstm_options, spec_of, state_of

    require_model_path(path)
    module = unwrap_module(module)
    module, lengths = _without_lengths(module, example_inputs, lengths)
    if dynamic_axes is not None:
        raise ConfigError(_dynamic_axes_message(module, dynamic_axes))
    check = flag("check", check, ConfigError)
    if states is not None and not isinstance(states, str):
        raise ConfigError.of_argument("states", states, '"zero" or "explicit"')
    options = ExportOptions(
        lengths=lengths,
        projection=projection,
        opset=opset,
        precision=precision,
        layers=layers,
        kernel=kernel,
        target=target,
    )
    source = module
    if options.dtype is not None:
        from .precision import module_in_dtype

        module = module_in_dtype(module, options.dtype)
    generation = _generation(generate, module)
    if is_bare_lstm(module) and example_inputs is None:
        if output_names is not None or dynamic_shapes is not None:
            raise ConfigError(
                "a bare nn.LSTM's outputs are output, hn and cn, and its dynamic axes batch and time; leave out "
                "output_names and dynamic_shapes"
            )
        require_lstm_options(states, max_delay, chunk)
        spec = spec_of(module)
        state = state_of(module, spec)  # type: ignore[arg-type]
        identity = kept_digest(module, digest(state))
        notes = dropout_notes(module)  # type: ignore[arg-type]
        folds = kept_folds(module, state)
        return export_lstm(spec, options, state, path, notes=notes, weights_digest=identity, folds=folds)
    if example_inputs is None:
        raise ExportError(
            f"{type(module).__name__} is more than an nn.LSTM, so it is traced: pass example_inputs, the "
            "arguments of its forward"
        )
    if lengths:
        raise ConfigError(
            "lengths=True is for a bare nn.LSTM; a module that packs sequences takes its lengths as an "
            "argument of forward"
        )
    from .dependencies import require_tracer

    require_tracer()
    from .call.arguments import bind_arguments
    from .module import export_module
    from .module_options import ModuleOptions
    from .precision import arguments_in_dtype, copy_explained

    names = None if output_names is None else _names(output_names)
    arguments = bind_arguments(module, example_inputs, dynamic_shapes)
    if options.dtype is not None:
        arguments = arguments_in_dtype(arguments, options.dtype)
    default = "zero" if generation is None else "explicit"
    settings = ModuleOptions(
        options, states or default, names, check=check, max_delay=max_delay, chunk=chunk, generation=generation
    )
    with copy_explained(source, module, options):
        return export_module(module, arguments, settings, path)


def _generation(generate: Any, module: nn.Module) -> Generation | None:
    from .sources.torch_lstm import is_bare_lstm

    if generate is not None and is_bare_lstm(module):
        raise ConfigError(
            "a bare nn.LSTM's output cannot be its next input; generate needs a module that computes its own next input"
        )
    return None if generate is None else Generation.of(generate)


def _without_lengths(module: nn.Module, example_inputs: Any, lengths: bool) -> tuple[nn.Module, bool]:
    """The nn.LSTM in what `to_torch` makes of a file with lengths, and True; other modules as they are."""
    if example_inputs is not None:
        return module, lengths
    from .lstm_with_lengths import LSTMWithLengths

    changed = module._forward_pre_hooks or module._forward_hooks
    return (module.lstm, True) if type(module) is LSTMWithLengths and not changed else (module, lengths)


def _names(output_names: Any) -> tuple[str, ...]:
    if not isinstance(output_names, (list, tuple)) or not all(isinstance(name, str) for name in output_names):
        raise ConfigError.of_argument("output_names", output_names, "a list of names")
    return tuple(output_names)


def _dynamic_axes_message(module: nn.Module, dynamic_axes: Any) -> str:
    """`dynamic_axes` as `dynamic_shapes`: by the forward's arguments, without outputs, a name for each axis."""
    import inspect

    advice = "dynamic_axes is torch.onnx.export's older form"
    arguments = list(inspect.signature(module.forward).parameters)
    if not isinstance(dynamic_axes, dict):
        return f'{advice}; pass dynamic_shapes, such as {{"{arguments[0] if arguments else "x"}": {{0: "batch"}}}}'
    shapes = {}
    for name, axes in dynamic_axes.items():
        if name in arguments:
            axes = axes if isinstance(axes, (dict, list, tuple)) else [axes]
            shapes[name] = dict(axes) if isinstance(axes, dict) else {axis: f"{name}_{axis}" for axis in axes}
    others = [str(name) for name in dynamic_axes if name not in shapes]
    if not shapes:
        return (
            f"{advice}; pass dynamic_shapes, by the arguments of forward ({', '.join(arguments)}): "
            f"{', '.join(others) or 'it'} is not one of them"
        )
    dropped = f" ({', '.join(others)} left out: outputs need no entry)" if others else ""
    return f"{advice}; pass dynamic_shapes={shapes}{dropped}"
