"""Tables of torch's that are kept from export to export."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from lstm_onnx.exporter.opaque.operators import OPERATOR
from lstm_onnx.exporter.tracing.torch_changes import tables_kept
from lstm_onnx.exporter.tracing.torch_logs import suppress_torch_output


def test_the_table_of_translations_is_built_once_and_nobody_else_sees_it() -> None:
    registration: Any = pytest.importorskip("torch.onnx._internal.exporter._registration")
    own = registration.ONNXRegistry.__dict__["from_torchlib"]
    with tables_kept():
        one, other = (registration.ONNXRegistry.from_torchlib(opset_version=18) for _ in range(2))
        one.register_op(torch.ops.lstm_onnx.recurrent.default, lambda x: x)
    assert one.functions.keys() - other.functions.keys() == {OPERATOR}
    assert all(one.functions[target] == metas for target, metas in other.functions.items())
    assert registration.ONNXRegistry.__dict__["from_torchlib"] is own


def test_a_torch_without_that_table_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.onnx._internal.exporter._registration", None)
    with tables_kept():
        pass


def test_operators_are_looked_for_once_and_the_same_are_found() -> None:
    utils: Any = pytest.importorskip("torch._export.utils")
    own, calls = utils._materialize_cpp_cia_ops, []

    def counted() -> None:
        calls.append(1)
        own()

    utils._materialize_cpp_cia_ops = counted
    try:
        expected = utils._collect_all_valid_cia_ops()
        several = len(calls)
        with tables_kept():
            assert utils._collect_all_valid_cia_ops() == expected
            assert utils._collect_all_valid_cia_ops() == expected
        assert len(calls) == several + 1 < 2 * several
        assert utils._materialize_cpp_cia_ops is counted
    finally:
        utils._materialize_cpp_cia_ops = own


def test_a_torch_without_that_function_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    utils = pytest.importorskip("torch._export.utils")
    monkeypatch.delattr(utils, "_materialize_cpp_cia_ops")
    with tables_kept():
        assert not hasattr(utils, "_materialize_cpp_cia_ops")


def test_kernels_are_replaced_on_the_devices_in_use_alone() -> None:
    exported: Any = pytest.importorskip("torch.export.exported_program")
    names = ("_AUTOGRAD_ALIAS_BACKEND_KEYS_TO_OVERRIDE", "_BACKEND_KEYS_TO_OVERRIDE")
    before = [getattr(exported, name) for name in names]

    def kinds() -> list[set[str]]:
        return [{key.name for key in getattr(exported, name)} for name in names]

    with tables_kept():
        assert kinds() == [{"AutogradCPU", "AutogradMeta"}, {"CPU", "Meta"}]
    with tables_kept({"cpu", "cuda"}):
        assert kinds() == [{"AutogradCPU", "AutogradCUDA", "AutogradMeta"}, {"CPU", "CUDA", "Meta"}]
    assert all(getattr(exported, name) is own for name, own in zip(names, before, strict=True))


def _decomposed(forward: Callable[[torch.Tensor], Any]) -> tuple[Any, Any]:
    """A program, and what torch.onnx translates of it."""
    passes: Any = pytest.importorskip("torch.onnx._internal.exporter._fx_passes")
    registration: Any = pytest.importorskip("torch.onnx._internal.exporter._registration")

    class Module(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return forward(x)

    with tables_kept(), suppress_torch_output():
        program = torch.export.export(Module(), (torch.ones(2, 3),), strict=False)
        return program, passes.decompose_with_registry(program, registration.ONNXRegistry.from_torchlib())


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: torch.relu(x) @ x.transpose(0, 1),
        lambda x: torch.nn.functional.linear(x, x[:1]),
        lambda x: x.permute(1, 0).unsqueeze(-1) + x.shape[0],
    ],
)
def test_operators_that_all_have_a_translation_are_not_decomposed(forward: Callable[[torch.Tensor], Any]) -> None:
    program, translated = _decomposed(forward)
    assert translated is program


@pytest.mark.parametrize(
    ("forward", "operator"),
    [
        (lambda x: torch.rsub(x, 1.0), "aten.rsub.Scalar"),  # no translation
        (lambda x: x.clone().add_(1), "aten.add_.Tensor"),  # a write
        (lambda x: x.reshape(3, 2), "aten.reshape.default"),  # has one, of which a size of 0 would be another
    ],
)
def test_other_programs_are(forward: Callable[[torch.Tensor], Any], operator: str) -> None:
    program, translated = _decomposed(forward)
    assert translated is not program
    assert operator in {str(node.target) for node in program.graph.nodes}
    assert operator not in {str(node.target) for node in translated.graph.nodes}


def test_a_program_with_another_graph_inside_is() -> None:
    program, translated = _decomposed(lambda x: torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,)))
    assert translated is not program


def test_a_program_of_vmap_is() -> None:
    translated = _decomposed(lambda x: torch.vmap(torch.sin)(x))[1]
    called = [node.target for node in translated.graph.nodes if node.op == "call_function"]
    assert called == [torch.ops.aten.sin.default]


def test_the_table_of_decompositions_follows_what_it_is_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    tables: Any = pytest.importorskip("torch.onnx._internal.exporter._decomp")
    own = tables.create_onnx_friendly_decomposition_table
    relu, gelu = torch.ops.aten.relu.default, torch.ops.aten.gelu.default
    with tables_kept():
        assert tables.create_onnx_friendly_decomposition_table({relu}).keys() == own({relu}).keys()
        first = tables.create_onnx_friendly_decomposition_table({relu})
        first.clear()  # a caller's own
        assert gelu in tables.create_onnx_friendly_decomposition_table({relu})
        assert gelu not in tables.create_onnx_friendly_decomposition_table({relu, gelu})
        other = torch.ops.lstm_onnx.recurrent.default
        monkeypatch.setitem(torch._decomp.decomposition_table, other, lambda *_: None)
        assert other in tables.create_onnx_friendly_decomposition_table({relu})
    assert tables.create_onnx_friendly_decomposition_table is own


def test_a_kernel_that_is_there_is_not_replaced() -> None:
    """And torch's own message says so."""
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    operator: Any = torch.ops.lstm_onnx.recurrent.default
    own = type(operator).py_impl
    kernels = dict(operator.py_kernels)
    with tables_kept():
        assert type(operator).py_impl is not own
        operator.py_impl(key)(len)
        try:
            assert operator.py_kernels[key] is len
            with pytest.raises(RuntimeError, match="override"):
                operator.py_impl(key)(len)
        finally:
            del operator.py_kernels[key]
            operator._dispatch_cache.clear()
    assert (operator.py_kernels, type(operator).py_impl) == (kernels, own)


def test_what_a_decomposition_may_leave_is_asked_once_for_each_operator_of_torch() -> None:
    utils: Any = pytest.importorskip("torch._export.utils")
    own = utils._check_valid_to_preserve
    operators = [torch.ops.aten.linear.default, torch.ops.aten.relu_.default, torch.ops.lstm_onnx.recurrent.default]
    expected = [own(operator) for operator in operators]
    with tables_kept():
        assert [utils._check_valid_to_preserve(operator) for operator in operators * 2] == expected * 2
    assert len(set(expected)) == 2
    assert utils._check_valid_to_preserve is own


def test_a_translation_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    schemas: Any = pytest.importorskip("torch.onnx._internal.exporter._schemas")
    own, calls = schemas.op_signature_from_function, []

    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        return own(*arguments, **named)

    def translation(x: Any, y: int = 2) -> Any:
        return x

    monkeypatch.setattr(schemas, "op_signature_from_function", counted)
    for _ in range(2):
        with tables_kept():
            found = schemas.op_signature_from_function(translation, "__traced", "translation")
            other = schemas.op_signature_from_function(translation, "__traced", "other")
    assert (found, other) == (own(translation, "__traced", "translation"), own(translation, "__traced", "other"))
    assert found != other
    assert len(calls) == 2


def test_a_table_is_split_once_while_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    exported: Any = pytest.importorskip("torch.export.exported_program")
    name = "_split_decomp_table_to_cia_and_python_decomp"
    own, calls = getattr(exported, name), []

    def counted(table: Any) -> Any:
        calls.append(1)
        return own(table)

    monkeypatch.setattr(exported, name, counted)
    linear, gelu = torch.ops.aten.linear.default, torch.ops.aten.gelu.default
    tables = [{linear: len, gelu: max}, {gelu: max}, {linear: len, gelu: min}]
    for table in tables:
        expected = own(dict(table))
        for _ in range(2):
            with tables_kept():
                found = getattr(exported, name)(dict(table))
            assert [list(part.items()) for part in found] == [list(part.items()) for part in expected]
            for part in found:
                part.clear()  # a caller's own
    assert len(calls) == len(tables)
