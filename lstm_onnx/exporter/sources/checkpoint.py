"""State dicts from checkpoint files: .safetensors, PyTorch's .pt, .pth, .ckpt, .bin and others, and sharded ones.

A checkpoint may nest its state dict (``{"state_dict": ...}``, ``{"model": ...}``).  A file ``*.index.json`` names
the files that a large one is split into, which lie beside it.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...atomic_io import readable_file
from ...data.text import unique_keys
from ...errors import WeightsError
from ..dependencies import import_torch
from ..weights import Array
from .checkpoint_names import has_mark, under_prefix
from .parametrized import with_computed

_NESTS = ("state_dict", "model_state_dict", "model", "net", "module")
_MAX_EXPANSION = 100
"""A .pt is a zip of uncompressed tensors: one that expands by more than this is malicious."""
_Choose = Callable[[Collection[str]], dict[str, str]]
"""Chooses the names to read from a file's, each with its key there."""
_AT_ONCE = 2**20
_SMALL = 2**26
"""Below so many bytes, an expansion is harmless."""
INDEX_SUFFIX = ".index.json"
_MOST_INDEX = 2**26
"""Bytes of an index; one of 100 000 tensors has 10 MB."""
_SHARD = re.compile(r"(.*)-\d+-of-\d+(\.\w+)")
_GLOBAL = re.compile(r"(?:GLOBAL|global|type) ([\w.]+)")


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
    found = readable_file(path, "a file with weights, such as .safetensors, .pt or .ckpt")
    try:
        arrays = with_computed(_read(found, prefix, module_names), module_names, where=str(found))
    except WeightsError as error:
        raise WeightsError(f"{error}{_shard_hint(found)}") from None
    missing = [name for name in module_names or () if name not in arrays]
    if missing and (hint := _shard_hint(found)):
        raise WeightsError(f"{found}: lacks {missing[0]}{hint}")
    return arrays


def _shard_hint(path: Path) -> str:
    """What to name instead of one of the files that a checkpoint is split into."""
    match = _SHARD.fullmatch(path.name)
    index = path.parent / f"{match.group(1)}{match.group(2)}{INDEX_SUFFIX}" if match else None
    return f"; it is one of several files of a checkpoint: name {index}" if index and index.is_file() else ""


def tensor_names(path: str | os.PathLike[str]) -> list[str]:
    """The names of a file's tensors.

    Raises:
        FileError, WeightsError, MissingDependencyError: see `load_state_dict`.
    """
    found = readable_file(path, "a file with weights")
    if _is_index(found):
        return list(_shards(found))
    if found.suffix.lower() == ".safetensors":
        return _read_safetensors(found, lambda _: {})[1]
    return list(_torch_tensors(found))


def _read(path: Path, prefix: str, module_names: Collection[str] | None) -> dict[str, Array]:
    def choose(names: Collection[str]) -> dict[str, str]:
        return under_prefix(names, prefix, module_names, where=str(path))

    return _read_shards(path, choose) if _is_index(path) else _read_file(path, choose, prefix)


def _is_index(path: Path) -> bool:
    return path.name.lower().endswith(INDEX_SUFFIX)


def _read_file(path: Path, choose: _Choose, prefix: str = "") -> dict[str, Array]:
    """The chosen tensors of a file that holds tensors itself."""
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path, choose)[0]
    tensors = _torch_tensors(path, prefix)
    return {name: _numpy(tensors[key], f"{path}: {key}") for name, key in choose(list(tensors)).items()}


def _read_shards(path: Path, choose: _Choose) -> dict[str, Array]:
    shards = _shards(path)
    chosen = choose(shards)
    arrays: dict[str, Array] = {}
    for file in dict.fromkeys(shards[key] for key in chosen.values()):
        own = {name: key for name, key in chosen.items() if shards[key] == file}
        shard = readable_file(path.parent / file, f"a file with weights, which {path} names")

        def there(names: Collection[str], own: dict[str, str] = own, shard: Path = shard) -> dict[str, str]:
            missing = [key for key in own.values() if key not in names]
            if missing:
                raise WeightsError(f"{shard}: does not hold {missing[0]}, which {path} says it does")
            return own

        arrays |= _read_file(shard, there)
    return {name: arrays[name] for name in chosen}


def _shards(path: Path) -> dict[str, str]:
    """The file of each tensor, from an index."""
    try:
        content = path.read_bytes() if path.stat().st_size <= _MOST_INDEX else b""
        index = json.loads(content, object_pairs_hook=unique_keys)
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: is not the index of a sharded checkpoint: {_reason(error)}") from None
    files = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(files, dict) or not files or not all(isinstance(file, str) for file in files.values()):
        raise WeightsError(
            f'{path}: is not the index of a sharded checkpoint: "weight_map" has no file for each tensor'
        )
    for file in files.values():
        if Path(file).name != file or file in ("", ".", "..") or "\\" in file or "\0" in file or ":" in file:
            raise WeightsError(f"{path}: names the file {file!r}; only files in its own folder are read")
        if Path(file).suffix.lower() == ".json":
            raise WeightsError(f"{path}: names the file {file!r}, which can hold no tensors")
    return dict(files)


def _read_safetensors(path: Path, choose: _Choose) -> tuple[dict[str, Array], list[str]]:
    """The chosen tensors, and the names of all."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            names = list(file.keys())
            chosen = choose(names)
            kinds = {name: file.get_slice(key).get_dtype() for name, key in chosen.items()}
            if "BF16" in kinds.values():
                # numpy has no bfloat16; importing this package registers one, which safetensors then uses.
                import ml_dtypes  # noqa: F401
            tensors = {name: file.get_tensor(key) for name, key in chosen.items()}
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise WeightsError(f"{path}: is truncated, or not a .safetensors file: {error}") from None
    found = {name: array.astype(np.float32) if kinds[name] == "BF16" else array for name, array in tensors.items()}
    return found, names


def _torch_tensors(path: Path, prefix: str = "") -> dict[str, Any]:
    """The tensors of a file that torch.save wrote, by name.

    Of several state dicts in it, `prefix` may name another one than would be read without it, such as "ema.".
    """
    _refuse_bombs(path)
    torch = import_torch(f"{path} needs it to be read; a .safetensors file does not")
    try:
        # weights_only: unpickling may run any code, and this only loads tensors and containers.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # errors of other formats are mapped below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load fails on a damaged file in many ways
        if (other := _other_format(path)) is not None:
            raise WeightsError(f"{path}: is {other}") from None
        if isinstance(error, pickle.UnpicklingError):
            held = _held(error)
            raise WeightsError(
                f"{path}: {'' if held else 'is damaged, or '}holds more than tensors{held}, and reading it could run "
                f"code; save only model.state_dict(), or convert it to .safetensors where you trust it"
            ) from None
        raise WeightsError(f"{path}: is truncated, or not a PyTorch checkpoint: {_reason(error)}") from error
    _compare_checksums(path)
    found = _tensors(torch, content, path)
    if not prefix or not isinstance(content, Mapping) or any(name.startswith(prefix) for name in found):
        return found
    named = [key for key in content if isinstance(key, str) and prefix.startswith(f"{key}.")]
    key = next((key for key in named if _has_tensors(torch, content[key])), None)
    if key is None:
        return found
    return {f"{key}.{name}": tensor for name, tensor in _tensors(torch, content[key], path).items()}


def _held(error: pickle.UnpicklingError) -> str:
    """The class that torch.load did not take, from its message."""
    found = _GLOBAL.search(str(error))
    return f" (an object of {found.group(1).removesuffix('.')})" if found and "." in found.group(1) else ""


def _other_format(path: Path) -> str | None:
    """What a file is that torch.save did not write, and what to do instead."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
        if start.startswith(b"\x89HDF"):
            return "an HDF5 file, such as Keras's, and not PyTorch's; save the weights again under PyTorch's names"
        if tarfile.is_tarfile(path):  # first, as the last file in one may be a zip
            return "a tar archive; unpack it, and name the checkpoint in it"
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return _other_archive(archive.namelist())
    except (OSError, zipfile.BadZipFile, tarfile.TarError, ValueError):
        return None
    return None


def _other_archive(names: Collection[str]) -> str | None:
    """What a zip file is that torch.load cannot read."""
    last = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in last:
        return "a TorchScript archive; save model.state_dict() instead"
    if any(name.startswith(("archive_format", "serialized_exported_program")) for name in last) or any(
        "/models/" in f"/{name}" and name.endswith(".json") for name in names
    ):
        return "an ExportedProgram (torch.export.save), which has no module; save model.state_dict() instead"
    inner = next((name for name in names if name.endswith((".pt", ".pth", ".bin", ".safetensors", ".ckpt"))), None)
    return f"a zip archive; unpack it, and name the checkpoint in it, such as {inner}" if inner else None


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


def _compare_checksums(path: Path) -> None:
    """Read all of a zip again, since torch.load compares no checksum: it loads damaged weights without an error."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for item in archive.infolist():
                if item.CRC:  # 0 where torch.serialization.set_crc32_options(False) left them out
                    with archive.open(item) as member:
                        while member.read(_AT_ONCE):
                            pass
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path}: is damaged: {error}; copy or download it again") from None


def _tensors(torch: Any, content: object, path: Path) -> dict[str, Any]:
    """The innermost state dict of a checkpoint, which may contain itself."""
    seen: set[int] = set()
    while isinstance(content, Mapping) and id(content) not in seen:
        seen.add(id(content))
        own = [key for key, value in content.items() if isinstance(value, torch.Tensor)]
        if content and (len(own) == len(content) or any(map(has_mark, own))):
            break  # dicts beside a model's own tensors are others, such as their averages
        nest = next((key for key in _NESTS if _has_tensors(torch, content.get(key))), None)
        if nest is None:
            inner = {key: value for key, value in content.items() if isinstance(value, Mapping)}
            held = {key: value for key, value in inner.items() if any(map(has_mark, value))}
            if len(held) > 1:  # such as {"encoder": ..., "decoder": ...}
                content = {f"{key}.{name}": value for key, own in held.items() for name, value in own.items()}
                break
            nest = next(iter(held), None)
        if nest is None:
            break
        content = content[nest]
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, not a state dict")
    found = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
    if not found and {"state", "param_groups"} <= set(content):
        raise WeightsError(f"{path}: holds an optimizer's state dict; save that of the module")
    if not found:
        keys = ", ".join(str(key) for key in list(content)[:8])
        raise WeightsError(f"{path}: holds no tensors where a state dict was expected (its keys: {keys or 'none'})")
    return found


def _has_tensors(torch: Any, content: object) -> bool:
    """Whether a value is a dict with a tensor in it, or in a dict within."""
    todo, seen = [content], set()
    while todo:
        value = todo.pop()
        if isinstance(value, torch.Tensor):
            return True
        if isinstance(value, Mapping) and id(value) not in seen:
            seen.add(id(value))
            todo += value.values()
    return False


def _numpy(tensor: Any, where: str) -> Array:
    import torch

    if tensor.is_meta:
        raise WeightsError(f"{where} is on the meta device, where weights have no values; save the module with values")
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    try:
        array: Array = tensor.detach().numpy()
    except (TypeError, RuntimeError):
        raise WeightsError(
            f"{where} has dtype {tensor.dtype} and layout {tensor.layout}, which numpy has no array for"
        ) from None
    return array
