from __future__ import annotations

import argparse
import io
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lstm_onnx import FileError, MissingDependencyError, WeightsError
from lstm_onnx.exporter.sources.checkpoint import load_state_dict

NAMES = {"weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"}


def _lstm() -> nn.LSTM:
    torch.manual_seed(0)
    return nn.LSTM(4, 3)


def _state(prefix: str = "") -> dict[str, torch.Tensor]:
    return {prefix + name: value.detach() for name, value in _lstm().state_dict().items()}


def _same(found: dict[str, np.ndarray]) -> None:
    expected = _state()
    assert set(found) == NAMES
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name].numpy())


@pytest.mark.parametrize("suffix", [".safetensors", ".SAFETENSORS", ".pt", ".pth", ".ckpt", ".bin", ".pth.tar", ".th"])
def test_a_bare_state_dict(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"net{suffix}"
    if suffix.lower() == ".safetensors":
        save_file(_state(), path)
    else:
        torch.save(_state(), path)
    _same(load_state_dict(path))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtypes(dtype: torch.dtype, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"net{suffix}"
    state = {name: value.to(dtype) for name, value in _state().items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    found = load_state_dict(path)
    assert set(found) == NAMES
    for name, array in found.items():
        assert array.dtype == ("float32" if dtype == torch.bfloat16 else str(dtype).removeprefix("torch."))
        np.testing.assert_array_equal(array.astype(np.float64), state[name].double().numpy())


@pytest.mark.parametrize("nest", ["state_dict", "model_state_dict", "model", "net", "module"])
def test_a_nested_state_dict(nest: str, tmp_path: Path) -> None:
    torch.save({"epoch": 3, nest: _state(), "optimizer": {"lr": 0.1}}, tmp_path / "net.pt")
    _same(load_state_dict(tmp_path / "net.pt"))


def test_nested_twice(tmp_path: Path) -> None:
    torch.save({"model": {"state_dict": _state("encoder.")}, "epoch": 1}, tmp_path / "net.pt")
    _same(load_state_dict(tmp_path / "net.pt", "encoder."))


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_wrappers_are_undone(wrapper: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"net{suffix}"
    state = _state(f"{wrapper}encoder.")
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    _same(load_state_dict(path, "encoder."))
    _same(load_state_dict(path, f"{wrapper}encoder."))  # as the file has it


def test_a_prefix_leaves_the_rest(tmp_path: Path) -> None:
    torch.save({**_state("a.lstm."), **{k: v + 1 for k, v in _state("b.lstm.").items()}}, tmp_path / "net.pt")
    _same(load_state_dict(tmp_path / "net.pt", "a.lstm."))


@pytest.mark.parametrize("prefix", ["", "encoder", "encoder.lstm", "decoder."])
def test_a_missing_prefix_lists_those_that_are_there(prefix: str, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file({**_state("encoder.lstm."), **_state("head.rnn."), "head.bias": torch.zeros(2)}, path)
    if prefix in ("encoder", "encoder.lstm"):
        # A prefix cut short leads to names that fit no LSTM; `validate_state_dict` reports them.
        assert not NAMES & set(load_state_dict(path, prefix))
        return
    with pytest.raises(WeightsError) as caught:
        load_state_dict(path, prefix)
    message = str(caught.value)
    assert f'no LSTM under the prefix "{prefix}"' in message
    assert 'prefix = "encoder.lstm.", prefix = "head.rnn."' in message
    assert str(path) in message


def test_a_file_without_any_lstm_says_what_it_holds(tmp_path: Path) -> None:
    save_file({"conv.weight": torch.zeros(2)}, tmp_path / "net.safetensors")
    with pytest.raises(WeightsError, match=r"no nn\.LSTM weights at all \(it holds conv\.weight\)"):
        load_state_dict(tmp_path / "net.safetensors")


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(_lstm(), tmp_path / "net.pt")
    with pytest.raises(
        WeightsError, match=r"an object of torch\.nn\.modules\.rnn\.LSTM\), and .* code; save only model"
    ):
        load_state_dict(tmp_path / "net.pt")


class _Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_not_run(zipped: bool, tmp_path: Path) -> None:
    torch.save({"a": _Bomb(tmp_path / "ran")}, tmp_path / "net.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="could run code"):
        load_state_dict(tmp_path / "net.pt")
    assert not (tmp_path / "ran").exists()


def _whole(suffix: str, tmp_path: Path) -> bytes:
    path = tmp_path / f"whole{suffix}"
    save_file(_state(), path) if suffix == ".safetensors" else torch.save(_state(), path)
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999])
def test_a_file_cut_short(suffix: str, share: float, tmp_path: Path) -> None:
    content = _whole(suffix, tmp_path)
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content[: max(1, int(len(content) * share))])
    with pytest.raises(WeightsError) as caught:
        load_state_dict(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("content", [b"\0" * 64, b"\xff" * 64, b"{}" * 40, b"hello world, no weights here"])
def test_a_file_of_something_else(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        load_state_dict(path)
    assert "\n" not in str(caught.value)


def test_a_lying_header(tmp_path: Path) -> None:
    header = b'{"weight_ih_l0":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,4]}}'
    (tmp_path / "net.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    with pytest.raises(WeightsError, match=r"is truncated, or not a \.safetensors file"):
        load_state_dict(tmp_path / "net.safetensors")


def test_a_zip_bomb_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object, **__: object) -> None:
        pytest.fail("it was read")

    monkeypatch.setattr(torch, "load", read)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 1000)
        archive.writestr("archive/data/0", b"\0")
    content = buffer.getvalue()
    # The directory's declared size of the second entry, to 2 GiB.
    entry = content.rindex(b"PK\x01\x02")
    content = content[: entry + 24] + struct.pack("<I", 2**31) + content[entry + 28 :]
    path = tmp_path / "net.pt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=f"{len(content)} bytes would unpack to {2**31 + 1000}"):
        load_state_dict(path)


def test_a_real_bomb_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * (2**26 + 1))
    with pytest.raises(WeightsError, match="was not read"):
        load_state_dict(path)


def test_a_damaged_weight_is_found(tmp_path: Path) -> None:
    path, state = tmp_path / "net.pt", _state()
    torch.save(state, path)
    content = bytearray(path.read_bytes())
    content[content.index(state["weight_ih_l0"].numpy().tobytes()) + 2] ^= 0xFF
    path.write_bytes(content)
    torch.load(path, weights_only=True)  # which finds nothing
    with pytest.raises(WeightsError, match=r"is damaged: Bad CRC-32 for file 'net/data/\d'; copy or download it again"):
        load_state_dict(path)


def test_a_checkpoint_saved_without_checksums(tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(_state(), tmp_path / "net.pt")
    finally:
        torch.serialization.set_crc32_options(before)
    assert load_state_dict(tmp_path / "net.pt").keys() == _state().keys()


def test_bytes_that_are_no_pickle(tmp_path: Path) -> None:
    (tmp_path / "net.pt").write_bytes(bytes(range(255, 0, -1)))
    with pytest.raises(WeightsError, match="is damaged, or holds more than tensors, and reading it could run code"):
        load_state_dict(tmp_path / "net.pt")


def test_a_zip_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(WeightsError, match="is truncated, or not a PyTorch checkpoint"):
        load_state_dict(path)


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {}, {"epoch": 1}, {"model": {"a": 1}}, None])
def test_a_checkpoint_without_a_state_dict(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "net.pt")
    with pytest.raises(WeightsError, match="state dict"):
        load_state_dict(tmp_path / "net.pt")


def test_a_tensor_without_an_array_form(tmp_path: Path) -> None:
    torch.save({**_state(), "weight_ih_l0": torch.zeros(12, 4).to_sparse()}, tmp_path / "net.pt")
    with pytest.raises(WeightsError, match=r"weight_ih_l0 has .*sparse"):
        load_state_dict(tmp_path / "net.pt")


def test_a_tensor_without_values(tmp_path: Path) -> None:
    torch.save({name: value.to("meta") for name, value in _state().items()}, tmp_path / "net.pt")
    with pytest.raises(WeightsError, match=r"weight_ih_l0 is on the meta device"):
        load_state_dict(tmp_path / "net.pt")


def test_a_sparse_tensor_elsewhere_does_no_harm(tmp_path: Path) -> None:
    state = {f"lstm.{name}": value for name, value in _state().items()}
    torch.save({**state, "table": torch.zeros(12, 4).to_sparse()}, tmp_path / "net.pt")
    assert set(load_state_dict(tmp_path / "net.pt", "lstm.")) == set(_state())


def test_wrappers_within_wrappers(tmp_path: Path) -> None:
    torch.save({f"_orig_mod.module.{name}": value for name, value in _state().items()}, tmp_path / "net.pt")
    assert set(load_state_dict(tmp_path / "net.pt")) == set(_state())


def test_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "empty.pt").touch()
    for name, words in (("none.pt", "No such file"), ("empty.pt", "is empty"), (".", "is a directory")):
        with pytest.raises(FileError, match=words):
            load_state_dict(tmp_path / name)


def test_a_pt_without_torch_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(_state(), tmp_path / "net.pt")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match=r"lstm-onnx\[torch\]"):
        load_state_dict(tmp_path / "net.pt")


def test_safetensors_need_no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({name: value.bfloat16() for name, value in _state().items()}, tmp_path / "net.safetensors")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert set(load_state_dict(tmp_path / "net.safetensors")) == NAMES


def test_a_state_dict_under_a_name_of_its_own_is_found(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "optimizer": {"state": {}}, "my_weights": _state()}, tmp_path / "net.pt")
    assert set(load_state_dict(tmp_path / "net.pt")) == set(_state())


def test_a_checkpoint_that_holds_itself(tmp_path: Path) -> None:
    weights = torch.nn.LSTM(4, 3).state_dict()
    endless: dict[str, Any] = {}
    endless["state_dict"] = endless
    first: dict[str, Any] = {}
    second: dict[str, Any] = {"net": first}
    first["model"] = second
    for content in (endless, first):
        torch.save(content, tmp_path / "m.pt")
        with pytest.raises(WeightsError, match="holds no tensors where a state dict was expected"):
            load_state_dict(tmp_path / "m.pt")
    torch.save({"self": endless, "state_dict": {"model": weights, "rest": endless}}, tmp_path / "m.pt")
    assert set(load_state_dict(tmp_path / "m.pt")) == set(weights)


def _module() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"lstm": nn.LSTM(4, 3), "head": nn.Linear(3, 2)})


def test_a_lightning_checkpoint(tmp_path: Path) -> None:
    state = {f"model.{name}": value for name, value in _module().state_dict().items()}
    content = {"epoch": 3, "pytorch-lightning_version": "2.5.0", "state_dict": state, "hyper_parameters": {"lr": 0.1}}
    torch.save(content, tmp_path / "best.ckpt")
    _same(load_state_dict(tmp_path / "best.ckpt", "model.lstm."))
    found = load_state_dict(tmp_path / "best.ckpt", "model.", module_names=_module().state_dict())
    assert set(found) == set(_module().state_dict())


@pytest.mark.parametrize("prefix", ["", "model.lstm.", "net."])
def test_the_prefix_of_a_module_is_that_of_all_its_tensors(prefix: str, tmp_path: Path) -> None:
    state = {f"model.{name}": value for name, value in _module().state_dict().items()}
    save_file({**state, "loss.weight": torch.ones(3), "teacher.head.bias": torch.ones(2)}, tmp_path / "net.safetensors")
    with pytest.raises(WeightsError) as caught:
        load_state_dict(tmp_path / "net.safetensors", prefix, module_names=_module().state_dict())
    assert str(caught.value).endswith('; they are under prefix = "model."')


def test_a_file_with_nothing_of_a_module_says_what_both_hold(tmp_path: Path) -> None:
    save_file({"conv.kernel": torch.zeros(2)}, tmp_path / "net.safetensors")
    with pytest.raises(WeightsError, match=r"it holds conv\.kernel, and the module head\.bias, head\.weight, lstm"):
        load_state_dict(tmp_path / "net.safetensors", module_names=_module().state_dict())


def test_two_state_dicts_side_by_side_are_told_apart(tmp_path: Path) -> None:
    other = {name: value + 1 for name, value in _state("lstm.").items()}
    torch.save({"encoder": _state("lstm."), "decoder": other, "epoch": 3}, tmp_path / "net.pt")
    with pytest.raises(WeightsError, match=r'under prefix = "decoder.lstm.", prefix = "encoder.lstm."$'):
        load_state_dict(tmp_path / "net.pt")
    _same(load_state_dict(tmp_path / "net.pt", "encoder.lstm."))


@pytest.mark.parametrize("inner", ["", "module."])
def test_the_prefix_chooses_among_state_dicts(inner: str, tmp_path: Path) -> None:
    """As of averaged weights, which are those to deploy; without a prefix it is "model"."""
    trained, averaged = _state(inner), {name: tensor * 2 for name, tensor in _state(inner).items()}
    torch.save({"model": trained, "ema": averaged, "optimizer": {"state": {}}}, tmp_path / "net.pt")
    _same(load_state_dict(tmp_path / "net.pt"))
    found = load_state_dict(tmp_path / "net.pt", f"ema.{inner}")
    _same({name: array / 2 for name, array in found.items()})


@pytest.mark.parametrize("key", ["ema", "model"])
def test_a_dict_beside_the_tensors_is_another_one(key: str, tmp_path: Path) -> None:
    averaged = {name: tensor * 2 for name, tensor in _state().items()}
    torch.save({**_state(), "epoch": 3, key: averaged}, tmp_path / "net.pt")
    _same(load_state_dict(tmp_path / "net.pt"))
    _same({name: array / 2 for name, array in load_state_dict(tmp_path / "net.pt", f"{key}.").items()})


def test_a_prefix_within_the_state_dict_goes_before_its_key(tmp_path: Path) -> None:
    torch.save({"model": _state("model."), "state": _state()}, tmp_path / "net.pt")
    _same(load_state_dict(tmp_path / "net.pt", "model."))


def test_a_configuration_under_a_common_name_is_no_state_dict(tmp_path: Path) -> None:
    torch.save({"model": {"name": "tagger", "layers": {"n": 2}}, "weights": _state()}, tmp_path / "net.pt")
    _same(load_state_dict(tmp_path / "net.pt"))


def test_an_optimizer_is_named(tmp_path: Path) -> None:
    torch.save(torch.optim.Adam(_lstm().parameters()).state_dict(), tmp_path / "net.pt")
    with pytest.raises(WeightsError, match="holds an optimizer's state dict; save that of the module"):
        load_state_dict(tmp_path / "net.pt")


def test_the_object_that_is_no_tensor_is_named(tmp_path: Path) -> None:
    content = {"state_dict": _state("model."), "hyper_parameters": argparse.Namespace(lr=0.1)}
    torch.save(content, tmp_path / "best.ckpt")
    with pytest.raises(WeightsError, match=r"an object of argparse\.Namespace\), and reading it could run code"):
        load_state_dict(tmp_path / "best.ckpt", "model.")
