from __future__ import annotations

import pytest

from lstm_onnx import WeightsError
from lstm_onnx.exporter.sources.checkpoint_names import lstm_prefixes, plain_name, under_prefix

LSTM = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
MODULE = (*(f"encoder.lstm.{name}" for name in LSTM), "head.weight", "head.bias")


def _named(prefix: str, names: tuple[str, ...] = LSTM) -> list[str]:
    return [prefix + name for name in names]


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("a.weight_hh_l0", "a.weight_hh_l0"),
        ("a.weight_hh_l0_g", "a.weight_hh_l0"),
        ("weight_hh_l0_raw", "weight_hh_l0"),
        ("a.parametrizations.weight_hh_l0.original0", "a.weight_hh_l0"),
        ("parametrizations.weight_hh_l0.0._u", "weight_hh_l0"),
        ("myparametrizations.weight.x", "myparametrizations.weight.x"),
    ],
)
def test_the_parameter_that_a_tensor_is_of(name: str, plain: str) -> None:
    assert plain_name(name) == plain


@pytest.mark.parametrize(
    "wrapper", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module."]
)
def test_wrappers_around_everything(wrapper: str) -> None:
    assert under_prefix(_named(f"{wrapper}lstm."), "lstm.", None, where="f") == {
        name: f"{wrapper}lstm.{name}" for name in LSTM
    }


def test_a_compiled_submodule() -> None:
    found = under_prefix(_named("encoder._orig_mod.lstm."), "encoder.lstm.", None, where="f")
    assert found == {name: f"encoder._orig_mod.lstm.{name}" for name in LSTM}
    kept = under_prefix(_named("encoder._orig_mod.lstm."), "encoder._orig_mod.lstm.", None, where="f")
    assert kept == found


def test_a_submodule_in_data_parallel() -> None:
    names = [name.replace("encoder.", "encoder.module.") for name in MODULE]
    assert set(under_prefix(names, "", MODULE, where="f")) == set(MODULE)
    with pytest.raises(WeightsError, match=r'under prefix = "encoder\.module\.lstm\."$'):
        under_prefix(names, "encoder.lstm.", None, where="f")


def test_a_module_that_is_called_module_keeps_its_name() -> None:
    names = [name.replace("encoder.", "encoder.module.") for name in MODULE]
    assert set(under_prefix(names, "", names, where="f")) == set(names)
    alone = _named("module.")
    assert set(under_prefix(alone, "", alone, where="f")) == set(alone)
    assert set(under_prefix(_named("module.module."), "", alone, where="f")) == set(alone)


def test_an_averaged_model() -> None:
    names = ["n_averaged", *(f"module.{name}" for name in MODULE)]
    with pytest.raises(WeightsError, match=r'they are under prefix = "module\."$'):
        under_prefix(names, "", MODULE, where="f")
    assert set(under_prefix(names, "module.", MODULE, where="f")) == set(MODULE)


def test_weights_dropped_in_training_come_from_what_they_were_drawn_from() -> None:
    names = ["0.weight_hh_l0_raw", *_named("0.module.")]
    found = under_prefix(names, "0.module.", None, where="f")
    assert found["weight_hh_l0"] == "0.weight_hh_l0_raw"
    assert found["weight_ih_l0"] == "0.module.weight_ih_l0"
    assert lstm_prefixes(names) == 'its LSTMs are under prefix = "0.module."'


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a.lstm.weight_hh_l0_g", "a.lstm.weight_hh_l0_v"], 'its LSTMs are under prefix = "a.lstm."'),
        (["lstm/kernel:0", "lstm/recurrent_kernel:0"], "its names are Keras's, which keeps weights transposed"),
        (["d.cell.weight_ih", "d.cell.weight_hh"], "cells (nn.LSTMCell) under d.cell.; describe it as a [module]"),
        (["conv.weight"], "it has no nn.LSTM weights at all (it holds conv.weight)"),
        (
            [f"{part}.{index}.weight" for part in "ab" for index in range(9)],
            "it has no nn.LSTM weights at all (it holds a.* (9), b.* (9))",
        ),
    ],
)
def test_what_a_file_holds(names: list[str], words: str) -> None:
    assert words in lstm_prefixes(names)
