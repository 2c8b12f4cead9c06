"""The acceptance set is what it says: each model runs at every size, and its counts and axes are right."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.architectures import ALL, Architecture
from tests.architectures.architecture import Inputs

SIZES = ((1, 1), (2, 3), (1, 7), (3, 1), (3, 5), (5, 12))
FAMILIES: tuple[tuple[str, type[nn.Module]], ...] = (("LSTM", nn.LSTM), ("GRU", nn.GRU), ("RNN", nn.RNN))

# torch remarks that projections do not go through oneDNN; here only the numbers matter.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

each_architecture = pytest.mark.parametrize("architecture", ALL, ids=lambda architecture: architecture.name)


def call(module: nn.Module, inputs: Inputs) -> Any:
    return module(**inputs) if isinstance(inputs, dict) else module(*inputs)


def tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    else:
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors(item)


def fresh(architecture: Architecture, batch: int) -> nn.Module:
    module = architecture.build()
    if architecture.set_state is not None:
        architecture.set_state(module, batch)
    return module


def largest_size(architecture: Architecture) -> tuple[int, int]:
    return 1 if architecture.fixed_batch else 3, 1 if architecture.fixed_time else 5


def by_argument(module: nn.Module, inputs: Inputs) -> dict[str, Any]:
    if isinstance(inputs, dict):
        return inputs
    return dict(zip(inspect.signature(module.forward).parameters, inputs, strict=False))


def kept(module: nn.Module) -> list[Tensor]:
    """Copies of the tensors that the modules hold beside their parameters."""
    found = []
    for part in module.modules():
        held = [value for name, value in vars(part).items() if name not in ("_parameters", "_modules")]
        for value in held:
            if isinstance(value, Tensor | tuple | list | dict):
                found += [item.detach().clone() for item in leaves(value)]
    return found


def leaves(value: Any) -> Iterator[Tensor]:
    """The tensors in a container that may hold anything."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)


def axes(value: Any, shapes: Any) -> Iterator[tuple[Tensor, dict[int, str]]]:
    """Each tensor with its dynamic axes, as the nesting of both has it."""
    if isinstance(value, Tensor):
        yield value, shapes or {}
    elif isinstance(value, dict):
        assert value.keys() == shapes.keys()
        for key, item in value.items():
            yield from axes(item, shapes[key])
    else:
        assert type(value) is type(shapes)
        for item, shape in zip(value, shapes, strict=True):
            yield from axes(item, shape)


def test_there_are_enough_of_them_and_each_has_its_name() -> None:
    assert len(ALL) >= 46
    assert len({architecture.name for architecture in ALL}) == len(ALL)


@pytest.mark.sweep(4)
@each_architecture
def test_runs_in_eager_mode_at_every_size(architecture: Architecture) -> None:
    ran = 0
    for batch, time in SIZES:
        if not architecture.takes(batch, time):
            continue
        module = fresh(architecture, batch)
        assert not any(part.training for part in module.modules())
        with torch.no_grad():
            outputs = list(tensors(call(module, architecture.inputs(batch, time))))
        assert outputs
        assert all(output.numel() and output.isfinite().all() for output in outputs)
        ran += 1
    assert ran >= 2


@each_architecture
def test_node_counts_are_what_hooks_count(architecture: Architecture) -> None:
    batch, time = largest_size(architecture)
    module = fresh(architecture, batch)
    counts: Counter[str] = Counter()

    def count(part: nn.Module, *_: object) -> None:
        if isinstance(part, nn.LSTMCell):
            counts["cell"] += 1
            return
        assert isinstance(part, nn.RNNBase)
        family = next(name for name, kind in FAMILIES if isinstance(part, kind))
        counts["scan" if part.proj_size else family] += part.num_layers

    for part in module.modules():
        if isinstance(part, nn.RNNBase | nn.LSTMCell):
            part.register_forward_hook(count)
    with torch.no_grad():
        call(module, architecture.inputs(batch, time))
    expected = {"LSTM": architecture.lstm_nodes, "scan": architecture.scan_nodes, "cell": architecture.cell_calls}
    assert counts == Counter(expected | architecture.other_nodes)


@each_architecture
def test_builds_and_inputs_repeat_and_leave_the_random_state_alone(architecture: Architecture) -> None:
    batch, time = largest_size(architecture)
    before = torch.get_rng_state()
    first, second = (
        list(tensors(call(fresh(architecture, batch), architecture.inputs(batch, time)))) for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(before, torch.get_rng_state())


@each_architecture
def test_axes_are_named_where_sizes_vary(architecture: Architecture) -> None:
    module = architecture.build()
    seen: list[list[tuple[tuple[int, ...], dict[int, str]]]] = []
    for batch, time in ((1, 7), (1, 12)) if architecture.fixed_batch else ((3, 7), (5, 12)):
        inputs = by_argument(module, architecture.inputs(batch, time))
        found = list(axes(inputs, architecture.dynamic_shapes))
        sizes = {"batch": batch, "time": time}
        for tensor, names in found:
            assert tensor.dtype in (torch.float32, torch.int64, torch.bool)
            for axis, name in names.items():
                assert tensor.shape[axis] == sizes.setdefault(name, tensor.shape[axis])
        seen.append([(tuple(tensor.shape), names) for tensor, names in found])
    for (small, names), (large, _) in zip(*seen, strict=True):
        assert {axis for axis in range(len(small)) if small[axis] != large[axis]} == names.keys()
    open_axes = {name for _, names in seen[0] for name in names.values()}
    assert ("batch" in open_axes) is not architecture.fixed_batch
    assert ("time" in open_axes) is not architecture.fixed_time


@each_architecture
def test_state_is_kept_where_it_says_so(architecture: Architecture) -> None:
    batch, time = largest_size(architecture)
    module = fresh(architecture, batch)
    inputs = architecture.inputs(batch, time)
    with torch.no_grad():
        first = list(tensors(call(module, inputs)))  # weight norm computes its weights here
        before = kept(module)
        second = list(tensors(call(module, inputs)))
    changed = [not torch.equal(a, b) for a, b in zip(before, kept(module), strict=True)]
    assert sum(changed) == architecture.states
    same = all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert same is (architecture.set_state is None) is (architecture.states == 0)
    if architecture.set_state is not None:
        architecture.set_state(module, batch)
        with torch.no_grad():
            again = list(tensors(call(module, inputs)))
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.sweep(4)
@each_architecture
def test_every_weight_of_a_recurrent_layer_reaches_an_output(architecture: Architecture) -> None:
    # so that an export that drops or swaps one cannot pass
    batch, time = largest_size(architecture)
    module = fresh(architecture, batch)
    if architecture.set_state is not None:
        call(module, architecture.inputs(batch, time))  # states that are not zero
    outputs = tensors(call(module, architecture.inputs(batch, time)))
    sum(output.sin().sum() for output in outputs if output.requires_grad).backward()  # type: ignore[union-attr]
    idle = [
        name
        for name, parameter in module.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().max() > 0
    ]
    assert idle == (["cell.weight_hh"] if architecture.name == "first_cell_step" else [])


@pytest.mark.parametrize(("batch", "time"), SIZES)
def test_lengths_suit_what_packs_them(batch: int, time: int) -> None:
    for architecture in ALL:
        lengths = by_argument(architecture.build(), architecture.inputs(batch, time)).get("lengths")
        if lengths is None:
            continue
        assert lengths.shape == (batch,)
        assert lengths.min() >= 1
        trimmed = architecture.name in ("packed_tagger_trimmed", "packed_max_pool", "packed_mean")
        assert (lengths.max() < time) if trimmed and time > 1 else lengths.max() == time
        if architecture.name == "packed_sorted":
            assert torch.equal(lengths, lengths.sort(descending=True).values)
