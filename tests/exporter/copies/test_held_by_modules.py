"""What a module holds goes into its file as PyTorch computes with it, and is the caller's own afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

import lstm_onnx
from lstm_onnx import ExportError
from tests.caller_snapshot import Snapshot
from tests.exporter.copies import held
from tests.exporter.helpers import agree, eager, signal

pytestmark = pytest.mark.sweep(9)

VERIFIED = (
    "hook of a list of the module",
    "hooks that change what comes out",
    "a list grows",
    "weight_assigned_scaled run",
    "spectral norm of LSTM",
    "held: attribute dict",
)
SHARED = (held.LOG, held.TOTALS, held.SCALE, held.ClassList, held.NamedLists)


@pytest.mark.filterwarnings("ignore:Lazy modules", "ignore:.*weight_norm.* is deprecated", "ignore:RNN module weights")
@pytest.mark.sweep(36)
@pytest.mark.parametrize("case", held.CASES)
def test_the_file_is_right_and_the_module_is_as_it_was(case: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = held.CASES[case]()
    module.eval()
    snapshot = Snapshot(module, SHARED)
    lstm_onnx.export(module, tmp_path / "m.onnx", example_inputs=signal(2, 4), dynamic_shapes=None)
    snapshot.require_unchanged()
    model = lstm_onnx.load(tmp_path / "m.onnx", provider="cpu", threads=1)
    if case in VERIFIED:
        assert lstm_onnx.verify(module, tmp_path / "m.onnx", provider="cpu", threads=1)
        snapshot.require_unchanged()
    for batch, time in ((1, 1), (3, 7)):
        outputs = model.run({"x": signal(batch, time)[0].numpy()})
        found = [value for name, value in outputs.items() if name not in model.states.values()]
        agree(found, [np.asarray(value) for value in eager(module, signal(batch, time))])


def test_hooks_on_all_modules_are_part_of_each_and_record_nothing(tmp_path: Path) -> None:
    module, names, sizes = held.Net().eval(), [], []

    def doubled(part: nn.Module, args: Any, result: Any) -> Any:
        names.append(type(part).__name__)
        return result * 2 if isinstance(part, nn.Linear) else None

    handles = [
        register_module_forward_hook(doubled),
        register_module_forward_pre_hook(lambda _, args: sizes.append(args[0].shape)),
    ]
    try:
        snapshot = Snapshot(module, names, sizes)
        lstm_onnx.export(module, tmp_path / "m.onnx", example_inputs=signal(2, 4))
        snapshot.require_unchanged()
        found = lstm_onnx.load(tmp_path / "m.onnx", provider="cpu").run({"x": signal(3, 5)[0].numpy()})
        agree(list(found.values()), eager(module, signal(3, 5)))
        assert set(names) == {"LSTM", "Linear", "Net"}
        with pytest.raises(ExportError, match="pass example_inputs"):
            lstm_onnx.export(nn.LSTM(3, 4), tmp_path / "bare.onnx")
    finally:
        for handle in handles:
            handle.remove()


class _Drawing(held.Net):
    """Draws from every generator, and does not come to an end in another one."""

    def __init__(self) -> None:
        super().__init__()
        self.own = torch.Generator().manual_seed(3)
        self.seen: list[Any] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append((torch.rand(2), np.random.rand(), torch.rand(2, generator=self.own)))  # noqa: NPY002
        return super().forward(x) + (torch.rand(2) if self.training else self.seen[-1][2])


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_a_refused_export_leaves_everything_as_it_was(context: Any, tmp_path: Path) -> None:
    module = _Drawing().eval()
    snapshot = Snapshot(module)
    with context(), pytest.raises(ExportError, match=r"draws random numbers|depends on what earlier calls left"):
        lstm_onnx.export(module, tmp_path / "m.onnx", example_inputs=signal(2, 4))
    snapshot.require_unchanged()
    assert not (tmp_path / "m.onnx").exists()


def test_a_module_is_exported_in_inference_mode(tmp_path: Path) -> None:
    module = held.Net().eval()
    with torch.inference_mode():
        snapshot = Snapshot(module)
        lstm_onnx.export(module, tmp_path / "m.onnx", example_inputs=signal(2, 4))
        snapshot.require_unchanged()
    found = lstm_onnx.load(tmp_path / "m.onnx", provider="cpu").run({"x": signal(3, 5)[0].numpy()})
    agree(list(found.values()), eager(module, signal(3, 5)))


def test_a_part_in_training_mode_is_named(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Dropout(0.5), nn.LSTM(3, 4, batch_first=True)).eval()
    module[0].train()
    exported = lstm_onnx.export(module, tmp_path / "m.onnx", example_inputs=signal(2, 4), check=False)
    assert any(note.startswith("0: in training mode within a module in eval mode") for note in exported.notes)
    assert module[0].training


def test_the_snapshot_sees_what_has_changed() -> None:
    module = held.CASES["hook that counts in a variable"]()
    module.seen = {"a": [torch.zeros(2)]}
    for change in (
        lambda: module(signal(1, 1)[0]),
        lambda: module.seen["a"][0].add_(1),
        lambda: module.seen["a"].append(1),
        lambda: torch.rand(1),
        lambda: module.train(not module.training),
        lambda: module.head.register_forward_hook(print),
    ):
        snapshot = Snapshot(module)
        assert snapshot.differences() == []
        change()
        assert snapshot.differences()
