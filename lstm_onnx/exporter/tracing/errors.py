"""Turns errors of torch.export and torch.onnx into ones that name the user's line and say what to write instead."""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
from collections.abc import Mapping

import onnx_ir
import torch

from ...errors import ExportError, LSTMOnnxError, MissingDependencyError
from ..functional.attribute_states import forward_error, initial_tensors
from ..functional.functional_module import FixedSizeError, FunctionalModule, within_operator
from ..functional.undefined_results import RandomLine, draws, random_error
from ..opaque.recurrent_module import RecurrentModule
from ..user_code import NUMBERS, causes, error_line, first_line, stack_trace_line


def own_error(error: BaseException) -> LSTMOnnxError | None:
    """An error of ours that torch wrapped in one of its own."""
    return next((cause for cause in causes(error) if isinstance(cause, LSTMOnnxError)), None)


_LOOKED_UP = (
    "a size, or a number of a tensor, is looked up in a set or a dict, which a trace cannot do; compare it by ==, or "
    "keep what is made once for each size by functools.lru_cache"
)
_REWRITES = (
    (
        r"GuardOnData|data-dependent|DataDependentOutput|Could not (guard|extract spec)|_local_scalar_dense|PendingU",
        NUMBERS,
    ),
    (
        r"aten\.nonzero|masked_select|unique|DynamicOutputShape",
        "the size of the result depends on the numbers in a tensor; use a mask and torch.where instead",
    ),
    (r"\.numpy\(\) is not supported", "numpy computes outside of the graph; use torch's operations instead"),
    (
        r"'(SymbolicRange|RangeList)' object is not subscriptable",
        "a slice of a range or list as long as an axis would fix its size; index torch.arange(x.size(i)) instead",
    ),
    (
        r"unhashable type: .*Sym(Int|Float|Bool)",
        _LOOKED_UP,
    ),
    (
        r"Cannot access data pointer|its data is not allocated yet",
        "code outside of torch, such as a C++ extension, reads a tensor's memory while tracing; use torch's operations",
    ),
    (
        r"fake tensor in the exported program constant",
        "a tensor is computed where the tracer cannot see it, such as in another thread or in torch.vmap with out_dims",
    ),
)


_LONGEST = (
    "; instead of a loop up to the longest length, loop over the padded axis, range(x.size(1)), of the result of "
    "pad_packed_sequence(..., total_length=x.size(1))"
)


def explained(functional: FunctionalModule, error: Exception, lines: Mapping[str, str]) -> ExportError | None:
    """A tracing error whose cause is known, with what to write instead; None for others."""
    cause = forward_error(error)
    text = str(cause)
    line = error_line(cause)
    fixed = _fixed_axes(functional, text, lines) or within_operator(cause)
    drawn = _random_line(functional)
    if drawn is not None and (line == drawn or str(fixed).startswith(_at(drawn))):
        return random_error(drawn)
    if fixed:
        return fixed
    advice = next((item for pattern, item in _REWRITES if re.search(pattern, type(cause).__name__ + text)), None)
    if advice is None:
        return None
    longest = _LONGEST if advice is NUMBERS and line is not None and "range(" in line else ""
    return ExportError(f"{_at(line)}{advice}{longest}")


def _random_line(functional: FunctionalModule) -> str | None:
    """The first line of the user's code that draws random numbers."""
    drawn = RandomLine()
    with drawn, contextlib.suppress(ExportError):
        functional.run(functional.arguments.tensors, initial_tensors(functional.attribute_states))
    return drawn.line


def unexplained(error: Exception) -> ExportError:
    """A tracing error whose cause is not known, with the user's line."""
    cause = forward_error(error)
    at, kind, message = _at(error_line(cause)), type(cause).__name__, first_line(cause)
    if kind == "UnsupportedOperatorException":
        return ExportError(f"{at}{message} is an operator that torch cannot trace; use other operators")
    return ExportError(f"{at}torch.export cannot trace the module: {kind}: {message}")


def _at(line: str | None) -> str:
    return f"at {line}: " if line else ""


_FIXED_AXIS = re.compile(r"(L\[[^\n]*?\])\.size\(\)\[(\d+)\]|inputs(\[[^\n]*?\])\.shape\[(\d+)\]")
_FIXED_SIZE = re.compile(r"(?:constant \(|static shape of |hint of )(\d+)")


def _fixed_axes(functional: FunctionalModule, text: str, lines: Mapping[str, str]) -> FixedSizeError | None:
    """An error that names the axis that, according to torch, became a constant, and why."""
    known = sources(functional)
    found: dict[str, str] = {}
    axes: list[tuple[str, int]] = []
    where: str | None = None
    for row in text.splitlines():
        match, size = _FIXED_AXIS.search(row), _FIXED_SIZE.search(row)
        if match is None or size is None:
            continue
        source, axis = match.group(1) or "L" + match.group(3), int(match.group(2) or match.group(4))
        name = known.get(source)
        if name is None:
            continue
        axes.append((name, axis))
        label = functional.arguments.axes.get(name, {}).get(axis)
        named = label is not None and label not in functional.arguments.unnamed
        found[f"{label} of {name}" if named else f"axis {axis} of {name}"] = size.group(1)
        where = where or lines.get(f"{source}.size()[{axis}]")
    if not found:
        return None
    names = ", ".join(f"{name} (always {size})" for name, size in found.items())
    looped = [each for each in functional.recurrent_modules.values() if each.cell and each.num_traced > 1]
    advice = _loop_advice(looped[0]) if looped else _SIZE_ADVICE
    return FixedSizeError(f"{_at(where)}{names} would be fixed: {advice}", axes)


def require_sound(functional: FunctionalModule, model: onnx_ir.Model, lines: Mapping[str, str]) -> None:
    """Refuse a graph that draws random numbers, or in which torch gave a dynamic axis a single size after the trace.

    Of a module that seeds the generator itself, no two calls differ.

    Raises:
        ExportError: it does.
        FixedSizeError: there is such an axis.
    """
    for node in onnx_ir.traversal.RecursiveGraphIterator(model.graph):
        if node.op_type in _RANDOM or (node.op_type == "Dropout" and _is_training(node)):
            raise random_error(stack_trace_line(node.metadata_props.get("pkg.torch.onnx.stack_trace", "")))
    for (source, name), value in zip(sources(functional).items(), model.graph.inputs, strict=False):
        for axis, label in functional.arguments.axes.get(name, {}).items():
            size = value.shape[axis] if value.shape is not None else ""
            if not isinstance(size, int) and str(size).isdigit():
                at = _at(lines.get(f"{source}.size()[{axis}]"))
                raise FixedSizeError(
                    f"{at}{label} of {name} (always {size}) would be fixed: {_SIZE_ADVICE}", [(name, axis)]
                )


def _is_training(dropout: onnx_ir.Node) -> bool:
    training = dropout.inputs[2] if len(dropout.inputs) > 2 else None
    known = None if training is None else onnx_ir.convenience.get_const_tensor(training)
    return training is not None and (known is None or bool(known.numpy()))


_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
_SIZE_ADVICE = (
    "the module's code turns the size into a constant (a Python loop over the axis, an if on a size, int() of one, a "
    "number in view or expand, a parameter of that size); compute with x.size(i) and whole tensors instead, or "
    "leave the axis out of dynamic_shapes"
)


def _loop_advice(recurrent: RecurrentModule) -> str:
    """What to write instead of a loop over a cell."""
    return (
        f"{recurrent.path} is called in a Python loop over time, which a trace unrolls; use "
        f"nn.{recurrent.spec.op_type} with the same "
        "weights (weight_ih becomes weight_ih_l0, and so on), or export a single step and keep the loop outside"
    )


def sources(functional: FunctionalModule) -> dict[str, str]:
    """The name of each input, by the name that torch derives from StatefulModule.forward's argument."""
    return {f"L['tensors'][{index}]": name for index, name in enumerate(functional.arguments.tensors)}


def translation_error(error: BaseException, program: torch.export.ExportedProgram) -> LSTMOnnxError:
    """An error of torch.onnx as ours, with the line of the operator that it was translating."""
    own = own_error(error)
    if own is None:
        return _version_error(error) or ExportError(_translation_problem(error, program))
    line = _translated_line(f"{error}\n{error.__cause__}", program)
    told = line is None or type(own) is not ExportError or str(own).startswith("at ")
    return own if told else ExportError(f"{_at(line)}{own}")


def _version_error(error: BaseException) -> MissingDependencyError | None:
    """The error of an onnxscript or onnx_ir too old for this torch; None for other errors."""
    root = _root(error)
    if not isinstance(root, (ImportError, AttributeError)) or not re.search(r"'(onnxscript|onnx_ir)\b", str(root)):
        return None
    versions = {name: importlib.metadata.version(name) for name in ("torch", "onnxscript", "onnx-ir")}
    return MissingDependencyError(
        f"{' and '.join(f'{name} {version}' for name, version in versions.items())} do not work together: "
        f"{first_line(root)}",
        hint="pip install -U onnxscript onnx-ir",
    )


def _root(error: BaseException) -> BaseException:
    """The innermost cause, which says what is wrong; the exporter's own errors only name its steps."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _translated_line(text: str, program: torch.export.ExportedProgram) -> str | None:
    named = re.search(r"Error when translating node %(\w+) :", text)
    lines = (_node_line(node) for node in program.graph.nodes if named and node.name == named[1])
    return next((line for line in lines if line), None)


def _node_line(node: torch.fx.Node) -> str | None:
    return stack_trace_line(str(node.meta.get("stack_trace", "")))


def _translation_problem(error: BaseException, program: torch.export.ExportedProgram) -> str:
    """Which operator has no translation, and the line that calls it."""
    text = f"{error}\n{error.__cause__}"
    missing = re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", text)
    line = stack_trace_line(text) or _translated_line(text, program)
    line = line or (_line_of(program, missing.group(1)) if missing else None)
    # The third argument of dropout is whether it trains.
    drawing = [node for node in program.graph.nodes if draws(node.target) and node.args[2:3] != (False,)]
    if line is not None and line in map(_node_line, drawing):
        return str(random_error(line))
    if missing and _is_of_complex_numbers(program, missing.group(1)):
        return (
            f"{_at(line)}{missing.group(1)} of complex numbers has no translation to ONNX; use it on their real and "
            "imaginary parts (torch.view_as_real), and torch.view_as_complex on its result"
        )
    if missing:
        return (
            f"{_at(line)}{missing.group(1)} has no translation to ONNX in this version of torch; use other operations, "
            "or update torch"
        )
    root = _root(error)
    advice = "; use other operations in that line" if line else ""
    if "data-dependent" in str(root):  # a translation reads the value of a 0-d tensor
        return f"{_at(line)}a 0-d tensor is used as an index or a number there; give it an axis: x.view(1)"
    return f"{_at(line)}torch.onnx cannot translate the module: {type(root).__name__}: {first_line(root)}{advice}"


def _is_of_complex_numbers(program: torch.export.ExportedProgram, operator: str) -> bool:
    """Whether the program calls an operator, given as ``aten.pad``, with complex numbers."""
    nodes = [node for node in program.graph.nodes if str(node.target) in (operator, f"{operator}.default")]
    values = [getattr(item.meta.get("val"), "dtype", None) for node in nodes for item in node.all_input_nodes]
    return any(dtype is not None and dtype.is_complex for dtype in values)


def _line_of(program: torch.export.ExportedProgram, operator: str) -> str | None:
    """The user's line that calls an operator, given as ``aten.linalg_eig``."""
    name = operator.rpartition(".")[2].removeprefix("_").removesuffix("_ex")
    for node in program.graph.nodes:
        if name in str(node.target) and (line := _node_line(node)):
            return line
    return None
