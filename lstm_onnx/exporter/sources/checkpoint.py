"""State dicts from the files that people have: .safetensors, .pt and .pth.

A checkpoint may nest its state dict (``{"state_dict": ...}``, ``{"model": ...}``) and its names may
carry the ``module.`` of DataParallel or the ``_orig_mod.`` of torch.compile; both are undone.
"""

from __future__ import annotations

import os
import pickle
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...atomic_io import readable_file
from ...errors import MissingDependencyError, WeightsError
from ..weights import Array

_NESTS = ("state_dict", "model_state_dict", "model", "net", "module")
_WRAPPERS = ("module.", "_orig_mod.")
_MAX_EXPANSION = 100
"""A .pt is a zip of stored tensors: one that grows by more than this when unpacked was made to do harm."""
_SMALL = 2**26
"""Bytes below which an expansion does no harm."""
_MARKS = ("weight_ih_l0", "weight_hh_l0")


def load_state_dict(path: str | os.PathLike[str], prefix: str = "", *, any_module: bool = False) -> dict[str, Array]:
    """The tensors of `path` whose names start with `prefix`, under their names without it.

    With `any_module` they need not be those of an nn.LSTM.  bfloat16 tensors come as float32, which
    holds every one of their values.

    Raises:
        FileError: the file is missing, empty or a folder.
        WeightsError: the file is damaged, holds code instead of tensors, expands beyond reason, or
            has nothing under `prefix`; the message lists the prefixes that lead to an LSTM.
        MissingDependencyError: a .pt or .pth needs torch, which is not installed.
    """
    found = readable_file(path, "a .safetensors, .pt or .pth file with weights")
    if found.suffix.lower() == ".safetensors":
        return _read_safetensors(found, prefix, any_module)
    return _read_torch(found, prefix, any_module)


def _read_safetensors(path: Path, prefix: str, any_module: bool) -> dict[str, Array]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            chosen = _under_prefix(list(file.keys()), prefix, any_module, where=str(path))
            kinds = {name: file.get_slice(key).get_dtype() for name, key in chosen.items()}
            if "BF16" in kinds.values():
                # numpy has no bfloat16 of its own; registering one teaches it to safetensors.
                import ml_dtypes  # noqa: F401
            tensors = {name: file.get_tensor(key) for name, key in chosen.items()}
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise WeightsError(f"{path}: is not a whole .safetensors file: {error}") from error
    return {name: array.astype(np.float32) if kinds[name] == "BF16" else array for name, array in tensors.items()}


def _read_torch(path: Path, prefix: str, any_module: bool) -> dict[str, Array]:
    _refuse_bombs(path)
    torch = import_torch(f"{path} needs it to be read; a .safetensors file does not")
    try:
        # weights_only: a pickle may run any code when it is read, and this reads none but tensors.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch has to say of other formats is said below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: holds more than tensors, and reading it could run code; save model.state_dict() "
            "instead of the model, or convert it to .safetensors where you trust it"
        ) from error
    except RuntimeError as error:
        if "TorchScript" in str(error):
            raise WeightsError(f"{path}: is a TorchScript archive; save model.state_dict() instead") from error
        raise WeightsError(f"{path}: is not a whole PyTorch checkpoint: {_reason(error)}") from error
    except Exception as error:  # torch.load meets a damaged file in many places
        raise WeightsError(f"{path}: is not a whole PyTorch checkpoint: {_reason(error)}") from error
    tensors = _tensors(torch, content, path)
    chosen = _under_prefix(list(tensors), prefix, any_module, where=str(path))
    return {name: _numpy(torch, tensors[key], f"{path}: {key}") for name, key in chosen.items()}


def _reason(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _refuse_bombs(path: Path) -> None:
    """Look at the sizes that the zip declares before anything is unpacked."""
    if not zipfile.is_zipfile(path):
        return  # torch's format before 1.6, which has no compression
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(item.file_size for item in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise WeightsError(f"{path}: is not a whole PyTorch checkpoint: {error}") from error
    size = path.stat().st_size
    if unpacked > _SMALL and unpacked > size * _MAX_EXPANSION:
        raise WeightsError(
            f"{path}: {size} bytes would unpack to {unpacked}, which no real checkpoint does; it was not read"
        )


def import_torch(why: str) -> Any:
    """The torch module.

    Raises:
        MissingDependencyError: it is not installed; `why` says what needs it.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError(
            f"PyTorch is not installed, and {why}; pip install 'lstm-onnx[torch]' brings it"
        ) from error
    return torch


def _tensors(torch: Any, content: object, path: Path) -> dict[str, Any]:
    """The innermost state dict of a checkpoint, which may hold itself."""
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
    except (TypeError, RuntimeError) as error:
        raise WeightsError(f"{where} has dtype {tensor.dtype} and layout {tensor.layout}, and no array form") from error
    return array


def _under_prefix(keys: list[str], prefix: str, any_module: bool, *, where: str) -> dict[str, str]:
    """Each name under `prefix`, wrappers undone, and its key in the file."""
    names = {key: key for key in keys}
    while wrapper := next((w for w in _WRAPPERS if names and all(name.startswith(w) for name in names)), None):
        if prefix.startswith(wrapper):
            break
        names = {name.removeprefix(wrapper): key for name, key in names.items()}
    chosen = {name.removeprefix(prefix): key for name, key in names.items() if name.startswith(prefix)}
    bare = not any_module and not prefix
    if not chosen or (bare and not any(mark in chosen for mark in _MARKS)):
        raise WeightsError(f'{where}: has no LSTM under the prefix "{prefix}"; {_prefixes(names)}')
    return chosen


def _prefixes(names: Iterable[str]) -> str:
    found = sorted({name.removesuffix(mark) for name in names for mark in _MARKS if name.endswith(mark)})
    if not found:
        some = ", ".join(sorted(names)[:6])
        return f"it has no nn.LSTM weights at all (it holds {some or 'nothing'})"
    return "its LSTMs are under " + ", ".join(f'prefix = "{prefix}"' for prefix in found)
