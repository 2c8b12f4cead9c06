"""State dicts from checkpoint files: .safetensors, and PyTorch's .pt, .pth and .ckpt (Lightning).

A checkpoint may nest its state dict (``{"state_dict": ...}``, ``{"model": ...}``), and its names may start
with the ``module.`` of DataParallel or the ``_orig_mod.`` of torch.compile, which are removed.
"""

from __future__ import annotations

import os
import pickle
import warnings
import zipfile
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...atomic_io import readable_file
from ...errors import WeightsError
from ..dependencies import import_torch
from ..weights import Array, shortened

_NESTS = ("state_dict", "model_state_dict", "model", "net", "module")
_WRAPPERS = ("module.", "_orig_mod.")
_MAX_EXPANSION = 100
"""A .pt is a zip of uncompressed tensors: one that expands by more than this is malicious."""
_SMALL = 2**26
"""Bytes below which an expansion is harmless."""
_MARKS = ("weight_ih_l0", "weight_hh_l0")


def load_state_dict(
    path: str | os.PathLike[str], prefix: str = "", *, module_names: Collection[str] | None = None
) -> dict[str, Array]:
    """The tensors of `path` whose names start with `prefix`, by their names without it.

    bfloat16 tensors are converted to float32, which represents all their values.

    Args:
        path: the file.
        prefix: such as "encoder.lstm.".
        module_names: the names in the state dict of the module that the tensors are for; None for an nn.LSTM.

    Raises:
        FileError: the file is missing, empty or a folder.
        WeightsError: the file is damaged, holds code instead of tensors, expands beyond reason, or
            has nothing under `prefix`; the message lists the prefixes under which there is something.
        MissingDependencyError: any other file than .safetensors needs torch, which is not installed.
    """
    found = readable_file(path, "a .safetensors, .pt, .pth or .ckpt file with weights")
    if found.suffix.lower() == ".safetensors":
        return _read_safetensors(found, prefix, module_names)
    return _read_torch(found, prefix, module_names)


def _read_safetensors(path: Path, prefix: str, module_names: Collection[str] | None) -> dict[str, Array]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            chosen = _under_prefix(list(file.keys()), prefix, module_names, where=str(path))
            kinds = {name: file.get_slice(key).get_dtype() for name, key in chosen.items()}
            if "BF16" in kinds.values():
                # numpy has no bfloat16; importing this package registers one, which safetensors then uses.
                import ml_dtypes  # noqa: F401
            tensors = {name: file.get_tensor(key) for name, key in chosen.items()}
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise WeightsError(f"{path}: is truncated, or not a .safetensors file: {error}") from None
    return {name: array.astype(np.float32) if kinds[name] == "BF16" else array for name, array in tensors.items()}


def _read_torch(path: Path, prefix: str, module_names: Collection[str] | None) -> dict[str, Array]:
    _refuse_bombs(path)
    torch = import_torch(f"{path} needs it to be read; a .safetensors file does not")
    try:
        # weights_only: unpickling may run any code, and this only loads tensors and containers.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # errors of other formats are mapped below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise WeightsError(
            f"{path}: holds more than tensors, and reading it could run code; save model.state_dict() "
            "instead of the model, or convert it to .safetensors where you trust it"
        ) from None
    except RuntimeError as error:
        if "TorchScript" in str(error):
            raise WeightsError(f"{path}: is a TorchScript archive; save model.state_dict() instead") from None
        raise WeightsError(f"{path}: is truncated, or not a PyTorch checkpoint: {_reason(error)}") from None
    except Exception as error:  # torch.load fails on a damaged file in many ways
        raise WeightsError(f"{path}: is truncated, or not a PyTorch checkpoint: {_reason(error)}") from error
    tensors = _tensors(torch, content, path)
    chosen = _under_prefix(list(tensors), prefix, module_names, where=str(path))
    return {name: _numpy(torch, tensors[key], f"{path}: {key}") for name, key in chosen.items()}


def _reason(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _refuse_bombs(path: Path) -> None:
    """Check the sizes that the zip declares, before anything is unpacked."""
    if not zipfile.is_zipfile(path):
        return  # torch's format before 1.6, which has no compression
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(item.file_size for item in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise WeightsError(f"{path}: is truncated, or not a PyTorch checkpoint: {error}") from None
    size = path.stat().st_size
    if unpacked > _SMALL and unpacked > size * _MAX_EXPANSION:
        raise WeightsError(
            f"{path}: {size} bytes would unpack to {unpacked}, which no genuine checkpoint does; it was not read"
        )


def _tensors(torch: Any, content: object, path: Path) -> dict[str, Any]:
    """The innermost state dict of a checkpoint, which may contain itself."""
    seen: set[int] = set()
    while isinstance(content, Mapping) and id(content) not in seen:
        seen.add(id(content))
        if content and all(isinstance(value, torch.Tensor) for value in content.values()):
            break
        nest = next((key for key in _NESTS if isinstance(content.get(key), Mapping)), None) or next(
            (key for key, value in content.items() if isinstance(value, Mapping) and _holds_lstm(value)), None
        )
        if nest is None:
            break
        content = content[nest]
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, not a state dict")
    found = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
    if not found:
        keys = ", ".join(str(key) for key in list(content)[:8])
        raise WeightsError(f"{path}: holds no tensors where a state dict was expected (its keys: {keys or 'none'})")
    return found


def _holds_lstm(content: Mapping[Any, object]) -> bool:
    return any(isinstance(key, str) and key.endswith(_MARKS) for key in content)


def _numpy(torch: Any, tensor: Any, where: str) -> Array:
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    try:
        array: Array = tensor.detach().numpy()
    except (TypeError, RuntimeError):
        raise WeightsError(
            f"{where} has dtype {tensor.dtype} and layout {tensor.layout}, which numpy has no array for"
        ) from None
    return array


def _under_prefix(keys: list[str], prefix: str, module_names: Collection[str] | None, *, where: str) -> dict[str, str]:
    """Each name under `prefix`, without wrappers, and its key in the file."""
    names = {key: key for key in keys}
    while wrapper := next((w for w in _WRAPPERS if names and all(name.startswith(w) for name in names)), None):
        if prefix.startswith(wrapper):
            break
        names = {name.removeprefix(wrapper): key for name, key in names.items()}
    chosen = {name.removeprefix(prefix): key for name, key in names.items() if name.startswith(prefix)}
    if module_names is None:
        if not chosen or (not prefix and not any(mark in chosen for mark in _MARKS)):
            raise WeightsError(f'{where}: has no LSTM under the prefix "{prefix}"; {_lstm_prefixes(names)}')
    else:
        counts = _prefix_counts(names, module_names)
        if sum(name in chosen for name in module_names) < max(counts.values(), default=1):
            raise WeightsError(
                f'{where}: does not have all of the module\'s tensors under the prefix "{prefix}"; '
                f"{_module_prefixes(names, module_names, counts)}"
            )
    return chosen


def _lstm_prefixes(names: Iterable[str]) -> str:
    found = sorted({name.removesuffix(mark) for name in names for mark in _MARKS if name.endswith(mark)})
    if not found:
        some = ", ".join(sorted(names)[:6])
        return f"it has no nn.LSTM weights at all (it holds {some or 'nothing'})"
    return "its LSTMs are under " + ", ".join(f'prefix = "{prefix}"' for prefix in found)


def _prefix_counts(names: Collection[str], module_names: Collection[str]) -> Counter[str]:
    """How many of a module's names each prefix has in the file."""
    return Counter(
        name.removesuffix(own) for own in module_names for name in names if name == own or name.endswith(f".{own}")
    )


def _module_prefixes(names: Iterable[str], module_names: Collection[str], counts: Counter[str]) -> str:
    if not counts:
        tops = list(dict.fromkeys(name.partition(".")[0] for name in names))
        expected = shortened(sorted(module_names), ", ", 6)
        return f"it holds {shortened(tops, ', ') or 'nothing'}, and the module {expected}"
    most = max(counts.values())
    best = [f'prefix = "{prefix}"' for prefix, count in counts.items() if count == most]
    found = "they are" if most == len(module_names) else f"{most} of {len(module_names)} are"
    return f"{found} under {shortened(best, ' or under ')}"
