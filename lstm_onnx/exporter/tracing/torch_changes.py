"""Changes torch's behaviour while a module is traced and translated.

- torch builds some tables at each export, which takes more than half of the time of a small export; they are cached.
- It traces a program a second time to decompose its operators, a third of the remaining time; that is skipped if each
  operator has a translation.
- DropConnect assigns ``dropout(weight_raw, p, self.training)`` to ``lstm.weight_hh_l0`` at each call.  In eval mode
  dropout returns the parameter itself, which nn.Module accepts; in a trace it returns another tensor, which
  nn.Module refuses.
- It translates ``torch.divide`` and other aliases directly, without the casts of the operands that it adds for
  ``torch.div``, and without our translations; so aliases are decomposed to the original names.  The translations of
  ``atleast_1d`` and the like, as in ``torch.hstack``, give sequences, whose elements have one type.
- onnxscript removes ``x + c`` and ``x - c`` where c is 0, and ``x * c`` and ``x / c`` where it is 1; but it takes
  every c below 1e-8 for 0, and every c within 1e-5 of 1 for 1.  So it removes the eps of a norm, and zeros divided by
  their deviation become NaN.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import pkgutil
import threading
from collections.abc import Callable, Collection, Iterator
from types import SimpleNamespace
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from ..copies.caller_state import replaced
from .constant_operators import computed_operators
from .read_writes import read_directly

_ASSERTIONS = {torch.ops.aten._assert_tensor_metadata.default, torch.ops.aten._assert_scalar.default}
"""Operators that torch.onnx removes, see its ``remove_assertion_nodes``."""
_SECOND_NAMES = {
    *("divide", "true_divide", "multiply", "subtract", "greater", "greater_equal", "less", "less_equal"),
    *("concat", "concatenate", "atleast_1d", "atleast_2d", "atleast_3d"),
    *("special_erf", "special_erfc", "special_expm1", "special_sinc", "special_softmax", "special_log_softmax"),
}
_CACHES: dict[Callable[..., Any], Callable[..., Any]] = {}
"""torch's functions whose results are cached from export to export."""
_LAST: dict[Callable[..., Any], tuple[Any, Any]] = {}
"""By torch's function: what its last result was made from, and that result."""


@contextlib.contextmanager
def tables_kept(devices: Collection[str] = ()) -> Iterator[None]:
    """A context in which torch builds its table of translations once per process, and looks for new operators once.

    If this version of torch has these elsewhere, it has no effect.

    Args:
        devices: the types of the devices, other than the CPU, that the program's tensors are on.
    """
    kernels = functools.partial(_keys_of, {"cpu", "meta", *devices})
    changes: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
        ("torch.onnx._internal.exporter._registration:ONNXRegistry", "from_torchlib", _built_once),
        # Otherwise torch reads the annotations of each of our translations at each export.
        ("torch.onnx._internal.exporter._schemas", "op_signature_from_function", _cached),
        ("torch.onnx._internal.exporter._decomp", "create_onnx_friendly_decomposition_table", _last_table),
        # torch asks its dispatcher for all composite operators once per namespace.
        ("torch._export.utils", "_materialize_cpp_cia_ops", functools.cache),
        ("torch._export.utils", "_check_valid_to_preserve", _asked_once),
        ("torch.onnx._internal.exporter._fx_passes", "decompose_with_registry", _where_needed),
        ("torch.export.exported_program", "_split_decomp_table_to_cia_and_python_decomp", _last_parts),
        ("torch.export.exported_program", "_AUTOGRAD_ALIAS_BACKEND_KEYS_TO_OVERRIDE", kernels),
        ("torch.export.exported_program", "_BACKEND_KEYS_TO_OVERRIDE", kernels),
        ("torch._ops:OperatorBase", "py_impl", _faster_py_impl),
    )
    with contextlib.ExitStack() as stack:
        for place, name, change in changes:
            with contextlib.suppress(ImportError, AttributeError):
                owner = pkgutil.resolve_name(place)
                stack.enter_context(replaced(owner, name, change(getattr(owner, name))))
        yield


def _cached(own: Callable[..., Any]) -> Callable[..., Any]:
    return _CACHES.setdefault(own, functools.cache(own))


def _built_once(own: Any) -> Any:
    build = _cached(own.__func__)

    def kept(kind: type, opset_version: int = 18) -> Any:
        table = copy.copy(build(kind, opset_version))
        table.functions = {  # new lists, since callers add to them
            target: list(metas) for target, metas in table.functions.items() if not _is_second_name(target)
        }
        return table

    return classmethod(kept)


def _is_second_name(target: Any) -> bool:
    """Whether a key of torch's table, such as ``aten::divide.Tensor``, is an alias of another operator."""
    return isinstance(target, str) and target.removeprefix("aten::").partition(".")[0] in _SECOND_NAMES


def _last_kept(
    own: Callable[[Any], Any], made_from: Callable[[Any], Any], copied: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    """Cache the last result as long as everything it is made from stays the same; callers get copies."""

    def kept(given: Any) -> Any:
        composite = torch._C._dispatch_get_registrations_for_dispatch_key("CompositeImplicitAutograd")
        of = made_from(given), composite
        if own not in _LAST or _LAST[own][0] != of:
            _LAST[own] = of, own(given)
        return copied(_LAST[own][1])

    return kept


def _last_table(own: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The table of decompositions."""
    decompositions: dict[Any, Any] = torch._decomp.decomposition_table
    return _last_kept(own, lambda registered: (set(registered), list(decompositions.items())), dict)


def _last_parts(own: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The two parts of a table of decompositions, for composite operators and for others."""
    return _last_kept(own, lambda table: list(table.items()), lambda parts: tuple(map(dict, parts)))


def _where_needed(own: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Decompose only programs with an operator that has no translation as it is."""
    from torch._export.utils import _is_cia_op, _is_preservable_cia_op

    def decomposed(program: Any, registry: Any) -> Any:
        def stays(operator: Any) -> bool:
            # Composite views such as reshape are decomposed, although they have a translation.
            return registry.is_registered(operator) and (_is_preservable_cia_op(operator) or not _is_cia_op(operator))

        if not _is_translatable(program, stays):
            program = computed_operators(own(program, registry), registry.is_registered)
        return read_directly(program)

    return decomposed


def _is_translatable(program: torch.export.ExportedProgram, stays: Callable[[Any], bool]) -> bool:
    """Whether a program is one graph without writes, of operators that all stay as they are."""
    graphs = [module for module in program.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    if len(graphs) > 1 or any(node.op == "get_attr" for node in program.graph.nodes):
        return False
    for node in program.graph.nodes:
        operator = node.target
        if str(getattr(operator, "__module__", "")).startswith("torch._functorch."):  # of torch.vmap
            return False
        if not isinstance(operator, torch._ops.OperatorBase) or operator in _ASSERTIONS:  # sizes are Python's
            continue
        if not isinstance(operator, torch._ops.OpOverload) or operator._schema.is_mutable:
            return False
        if not stays(operator):
            return False
    return True


def _asked_once(own: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Cache torch's question, asked several times for some 2 000 operators, whether not to decompose an operator.

    For torch's own operators the answer never changes; others may get a kernel later.
    """

    cached = _cached(own)
    return lambda operator: (cached if getattr(operator, "namespace", None) == "aten" else own)(operator)


def _keys_of(kinds: Collection[str], keys: Any) -> list[Any]:
    """The keys of `kinds` only: torch replaces the kernels of some 700 operators for each kind of device it knows."""
    return [key for key in keys if key.name.removeprefix("Autograd").lower() in kinds]


def _faster_py_impl(own: Any) -> Any:
    """A faster way to set a kernel, some 3 000 times: torch's own spends most time on the annotations of a closure."""
    from torch._C import DispatchKey
    from torch._ops import OpOverload

    def py_impl(operator: Any, key: Any) -> Any:
        if type(key) is not DispatchKey or key == DispatchKey.Python or key in operator.py_kernels:
            return own(operator, key)

        def set_kernel(kernel):  # type: ignore[no-untyped-def]  # annotations cost time here
            operator.py_kernels[key] = kernel
            operator._dispatch_cache.clear()
            return kernel

        return set_kernel

    return py_impl if OpOverload.py_impl is own else own


@contextlib.contextmanager
def assigned_parameters() -> Iterator[None]:
    """Let modules of this thread accept any tensor as a parameter.

    The caller must hold `caller_state.ONE_AT_A_TIME`.
    """
    own = nn.Module.__setattr__
    thread = threading.get_ident()

    def assign(module: nn.Module, name: str, value: Any) -> None:
        parameters = module.__dict__.get("_parameters") or {}
        if threading.get_ident() == thread and isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            parameters.pop(name, None)  # it is found as a plain attribute in the same way
        own(module, name, value)

    with replaced(nn.Module, "__setattr__", assign):
        yield


@contextlib.contextmanager
def exact_rewrites() -> Iterator[None]:
    """Compare the constants of onnxscript's patterns exactly within the context."""
    from onnxscript.rewriter import _matcher

    # An AttributeError here is better than a file without some of its constants.
    exact = SimpleNamespace(**{**vars(math), "isclose": lambda one, other, **_: one == other})
    with replaced(_matcher, "math", exact):
        yield


def keep_initializers(model: ir.Model) -> None:
    """Store the constants that onnxscript's rules made but lost: two clips of one value give theirs the same names."""
    for node in model.graph.all_nodes():
        for value in node.inputs:
            if value is None or value.const_value is None or value.producer() is not None:
                continue
            if not value.is_initializer() and not value.is_graph_input():
                model.graph.register_initializer(value)
