"""Whether a call left the caller's objects and the process's settings as they were, bit for bit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@contextmanager
def unchanged(*owned: Any) -> Iterator[None]:
    """Fails where the block changed a module, tensor or container in `owned`, or random states or defaults."""
    before = dict(_contents(owned)), _settings()
    yield
    after = dict(_contents(owned)), _settings()
    assert before[0].keys() == after[0].keys()
    for place, (held, value) in before[0].items():
        now, new = after[0][place]
        assert held is now, f"{place} is another object: {type(held).__name__}, now {type(now).__name__}"
        assert value == new, f"{place} was changed from {value!r:.200} to {new!r:.200}"
    assert before[1] == after[1]


def _settings() -> dict[str, Any]:
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002 - the global state is what must not change
    assert isinstance(numpy_state, dict)
    return {
        "torch's random state": torch.get_rng_state().numpy().tobytes(),
        "numpy's random state": (numpy_state["state"]["key"].tobytes(), numpy_state["state"]["pos"]),
        "Python's random state": random.getstate(),
        "default dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
    }


def _contents(owned: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Every object that `owned` leads to, by its place, with its value; each is visited once."""
    todo: list[tuple[str, Any]] = [("argument", owned)]
    seen: dict[int, Any] = {}
    while todo:
        place, held = todo.pop()
        if id(held) in seen:
            yield place, (held, None)
            continue
        seen[id(held)] = held  # kept alive, so that its id stays its own
        yield place, (held, _value(held))
        if isinstance(held, Tensor):
            todo.append((f"{place}.grad", held.grad))
        elif isinstance(held, dict):
            todo += [(f"{place}[{key!r}]", item) for key, item in held.items()]
        elif isinstance(held, list | tuple):
            todo += [(f"{place}[{index}]", item) for index, item in enumerate(held)]
        elif isinstance(held, nn.Module) or (hasattr(held, "__dict__") and not isinstance(held, type) and _ours(held)):
            todo += [(f"{place}.{name}", item) for name, item in vars(held).items()]


def _ours(held: Any) -> bool:
    return type(held).__module__.startswith("tests.")


def _value(held: Any) -> Any:
    """What can be compared: the bits of a tensor, a number or text itself, the keys or the length of a container."""
    if isinstance(held, Tensor):
        bits = held.detach().reshape(-1).view(torch.uint8).numpy().tobytes() if held.numel() else b""
        return bits, held.shape, held.stride(), held.dtype, held.requires_grad, held._version, type(held)
    if isinstance(held, np.ndarray):
        return held.tobytes(), held.shape, held.dtype
    if isinstance(held, dict):
        return list(held)
    if isinstance(held, set | frozenset):
        return sorted(map(repr, held))
    if isinstance(held, list | tuple):
        return len(held)
    if isinstance(held, nn.Module):
        return list(vars(held))
    return held if isinstance(held, int | float | str | bytes | None) else id(held)
