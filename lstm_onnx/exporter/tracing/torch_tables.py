"""Tables that torch builds at each export, and that would be more than half of the time of a small one."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Collection, Iterator
from typing import Any

from ..copies.caller_state import replaced

_TRANSLATIONS: dict[tuple[type, int], Any] = {}
_DECOMPOSITIONS: list[Any] = []
"""What the last table was made of, and the table."""
_PRESERVABLE: dict[int, tuple[Any, bool]] = {}
"""By the id of an operator, which is kept with the answer so that no other gets its id."""


@contextlib.contextmanager
def tables_kept(devices: Collection[str] = ()) -> Iterator[None]:
    """Let torch build its table of translations once in a process, and look for new operators once within.

    A torch that has these elsewhere goes on as it does.

    Args:
        devices: the types of the devices, other than the CPU, that the program's tensors are on.
    """
    with (
        _translations_kept(),
        _decompositions_kept(),
        _operators_found_once(),
        _operators_judged_once(),
        _kernels_replaced_on(devices),
        _kernels_set_faster(),
    ):
        yield


@contextlib.contextmanager
def _translations_kept() -> Iterator[None]:
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        build = vars(ONNXRegistry)["from_torchlib"].__func__
    except (ImportError, KeyError, AttributeError):
        yield
        return

    def kept(kind: type, opset_version: int = 18) -> Any:
        key = (kind, opset_version)
        if key not in _TRANSLATIONS:
            _TRANSLATIONS[key] = build(kind, opset_version)
        table = copy.copy(_TRANSLATIONS[key])
        table.functions = {target: list(metas) for target, metas in table.functions.items()}  # callers add theirs
        return table

    with replaced(ONNXRegistry, "from_torchlib", classmethod(kept)):
        yield


@contextlib.contextmanager
def _decompositions_kept() -> Iterator[None]:
    """Of the table of decompositions keep the last one, as long as all that it is made of is the same."""
    try:
        import torch
        from torch.onnx._internal.exporter import _decomp

        own: Any = _decomp.create_onnx_friendly_decomposition_table
        decompositions: dict[Any, Any] = torch._decomp.decomposition_table
        registrations: Callable[[str], Any] = torch._C._dispatch_get_registrations_for_dispatch_key
    except (ImportError, AttributeError):
        yield
        return

    def kept(registered: Any) -> Any:
        of = set(registered), list(decompositions.items()), registrations("CompositeImplicitAutograd")
        if not _DECOMPOSITIONS or _DECOMPOSITIONS[0] != of:
            _DECOMPOSITIONS[:] = [of, own(registered)]
        return dict(_DECOMPOSITIONS[1])

    with replaced(_decomp, "create_onnx_friendly_decomposition_table", kept):
        yield


@contextlib.contextmanager
def _operators_found_once() -> Iterator[None]:
    """torch asks its dispatcher for all composite operators once for each namespace; once for all is enough."""
    try:
        from torch._export import utils

        own: Callable[[], None] = utils._materialize_cpp_cia_ops
    except (ImportError, AttributeError):
        yield
        return
    found = False

    def once() -> None:
        nonlocal found
        if not found:
            own()
            found = True

    with replaced(utils, "_materialize_cpp_cia_ops", once):
        yield


@contextlib.contextmanager
def _operators_judged_once() -> Iterator[None]:
    """torch asks for each of some 2 000 operators, several times, whether a decomposition may leave it as it is.

    Of an operator of torch's own the answer never changes; others may get a kernel later.
    """
    try:
        from torch._export import utils

        own: Callable[[Any], bool] = utils._check_valid_to_preserve
    except (ImportError, AttributeError):
        yield
        return

    def kept(operator: Any) -> bool:
        if getattr(operator, "namespace", None) != "aten":
            return own(operator)
        found = _PRESERVABLE.get(id(operator))
        if found is None:
            found = _PRESERVABLE[id(operator)] = operator, own(operator)
        return found[1]

    with replaced(utils, "_check_valid_to_preserve", kept):
        yield


@contextlib.contextmanager
def _kernels_replaced_on(devices: Collection[str]) -> Iterator[None]:
    """torch replaces the kernels of some 700 operators for each kind of device that it knows; ours are enough."""
    kinds = {"cpu", "meta", *devices}
    with contextlib.ExitStack() as stack:
        try:
            from torch.export import exported_program

            for name in ("_AUTOGRAD_ALIAS_BACKEND_KEYS_TO_OVERRIDE", "_BACKEND_KEYS_TO_OVERRIDE"):
                keys = getattr(exported_program, name)
                ours = [key for key in keys if key.name.removeprefix("Autograd").lower() in kinds]
                stack.enter_context(replaced(exported_program, name, ours))
        except (ImportError, AttributeError):
            pass
        yield


@contextlib.contextmanager
def _kernels_set_faster() -> Iterator[None]:
    """Setting a kernel, which torch does some 3 000 times, takes most of its time for the annotations of a closure."""
    try:
        from torch._C import DispatchKey
        from torch._ops import OperatorBase, OpOverload

        own = OperatorBase.py_impl
        plain = OpOverload.py_impl is own
    except (ImportError, AttributeError):
        yield
        return

    def py_impl(operator: Any, key: Any) -> Any:
        if type(key) is not DispatchKey or key == DispatchKey.Python or key in operator.py_kernels:
            return own(operator, key)

        def set_kernel(kernel):  # type: ignore[no-untyped-def]  # annotations cost time here
            operator.py_kernels[key] = kernel
            operator._dispatch_cache.clear()
            return kernel

        return set_kernel

    with replaced(OperatorBase, "py_impl", py_impl if plain else own):
        yield
