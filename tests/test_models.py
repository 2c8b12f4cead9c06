"""Every configured model in models/ is in parity, and the trained one is what its page says."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import lstm_onnx
from lstm_onnx.check import check
from lstm_onnx.exporter.sources.source import LSTMSource, ModuleSource, load_source

MODELS = Path(__file__).parent.parent / "models"


@pytest.mark.sweep(3)
@pytest.mark.usefixtures("forked_children")
@pytest.mark.lstm_onnx_parity("models/*.toml", provider="cpu", threads=1)
def test_model_is_in_parity_and_passes_check(lstm_onnx_parity, tmp_path):
    path = tmp_path / "m.onnx"
    load_source(lstm_onnx_parity.source).export(path)
    lstm_onnx_parity(file=path)
    checked = check(path, provider="cpu")
    assert checked, str(checked)


def test_there_is_a_model_of_each_kind():
    sources = [load_source(str(path)) for path in MODELS.glob("*.toml")]
    assert any(isinstance(source, ModuleSource) for source in sources)
    specs = [source for source in sources if isinstance(source, LSTMSource)]
    assert any(source.spec.num_layers > 1 for source in specs)
    assert any(source.spec.bidirectional for source in specs)
    assert any(source.spec.batch_first for source in specs)
    assert any(not source.spec.bias for source in specs)
    assert {source.options.projection for source in specs if source.spec.proj_size} == {"scan", "fold"}
    assert any(source.options.lengths for source in specs)
    assert {source.spec.dtype for source in specs} == {"float32", "float16", "float64"}


def series():
    table = np.loadtxt(MODELS / "sunspots.csv", delimiter=",", skiprows=1)
    return table[:, 0].astype(int), table[:, 1]


def test_sunspots_held_out_errors_are_those_on_its_page(tmp_path):
    years, values = series()
    source = load_source(str(MODELS / "sunspots.toml"))
    path = tmp_path / "s.onnx"
    source.export(path)
    output, _ = lstm_onnx.load(path, provider="cpu")(values.astype(np.float32)[:, np.newaxis])
    lstm_onnx.quantize(path, tmp_path / "int8.onnx")
    in_int8, _ = lstm_onnx.load(tmp_path / "int8.onnx", provider="cpu")(values.astype(np.float32)[:, np.newaxis])
    page = (MODELS / "sunspots.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|\s*(\d+)\s*\|\s*\**([\d.]+)\**\s*\|\s*\**([\d.]+)\**\s*\|", page, flags=re.MULTILINE)
    assert len(rows) == 11
    held_out = np.arange(len(years))[years >= 1961]
    errors_in_int8 = []
    for horizon, own, persistence in rows:
        ahead = int(horizon)
        error = output[held_out - ahead, ahead - 1] - values[held_out]
        assert np.sqrt(np.mean(error**2)) == pytest.approx(float(own), abs=0.06)
        error = in_int8[held_out - ahead, ahead - 1] - values[held_out]
        errors_in_int8.append(error)
        naive = values[held_out - ahead] - values[held_out]
        assert np.sqrt(np.mean(naive**2)) == pytest.approx(float(persistence), abs=0.06)

    said = float(re.search(r"In int8 .* is ([\d.]+),", page).group(1))
    assert np.sqrt(np.mean(np.square(errors_in_int8))) == pytest.approx(said, abs=0.1)


def test_sunspots_training_script_runs(tmp_path, forking_environment):
    out = tmp_path / "short.safetensors"
    subprocess.run(
        ["python", MODELS / "sunspots_train.py", "--epochs", "2", "--out", out],
        env=forking_environment,
        check=True,
        capture_output=True,
        timeout=120,
    )
    from safetensors.numpy import load_file

    assert {name: array.shape for name, array in load_file(out).items()} == load_source(
        str(MODELS / "sunspots.toml")
    ).spec.parameter_shapes()


@pytest.fixture(scope="module")
def charlm(tmp_path_factory):
    path = tmp_path_factory.mktemp("charlm") / "charlm.onnx"
    load_source(str(MODELS / "charlm.toml")).export(path)
    return path


def charlm_text():
    spec = importlib.util.spec_from_file_location("charlm_text", MODELS / "charlm_text.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bits_per_character(path):
    text = (MODELS / "shakespeare.txt").read_text(encoding="ascii")
    tokens = charlm_text().encode(text[-40_001:])
    stream = lstm_onnx.load(path, provider="cpu", threads=1).stream()
    surprise = []
    for start in range(0, len(tokens) - 1, 500):
        given, asked = tokens[start : start + 500], tokens[start + 1 : start + 501]
        logits = stream.run({"tokens": given[np.newaxis, : len(asked)]})["logits"][0].astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        chances = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        surprise.append(-chances[np.arange(len(asked)), asked])
    return np.mean(np.concatenate(surprise)) / np.log(2)


def test_charlm_bits_per_character_are_those_on_its_page(charlm, tmp_path):
    page = (MODELS / "charlm.md").read_text(encoding="utf-8")
    said, in_int8 = re.findall(r"\| \**LSTM\**[^|]*\| \**([\d.]+)\**", page)[:2]
    exact = bits_per_character(charlm)
    assert exact == pytest.approx(float(said), abs=0.01)
    lstm_onnx.quantize(charlm, tmp_path / "int8.onnx")
    found = bits_per_character(tmp_path / "int8.onnx")
    assert found == pytest.approx(float(in_int8), abs=0.002)
    assert exact < found < 1.005 * exact


def test_charlm_writes_text_and_the_same_with_the_same_seed(charlm, forking_environment):
    command = ["python", MODELS / "charlm_write.py", charlm, "--prompt", "ROMEO:", "--characters", "60"]
    runs = [subprocess.check_output(command, env=forking_environment, text=True, timeout=120) for _ in range(2)]
    assert runs[0] == runs[1]
    assert runs[0].startswith("ROMEO:")
    assert len(runs[0]) >= 60


def test_charlm_writes_a_thousand_characters_in_one_call_as_pytorch_does(charlm, tmp_path):
    lstm_onnx.make_generating(charlm, tmp_path / "writer.onnx", input="tokens", output="logits")
    prompt = charlm_text().encode("ROMEO:")[np.newaxis]
    found = lstm_onnx.load(tmp_path / "writer.onnx", "cpu").run({"tokens": prompt, "max_steps": np.array(1000)})
    model, x, states, wanted = (
        load_source(str(MODELS / "charlm.toml")).module().eval(),
        torch.from_numpy(prompt),
        None,
        [],
    )
    with torch.no_grad():
        for _ in range(1000):
            output, states = model.lstm(model.embedding(x), states)
            x = model.head(output[:, -1:]).argmax(-1)
            wanted.append(int(x))
    assert found["generated"][0].tolist() == wanted


def test_sunspots_forecast_48_years_from_their_own_forecasts(tmp_path):
    """The first of the eleven numbers is the next year's."""

    class NextYear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = load_source(str(MODELS / "sunspots.toml")).module()

        def forward(self, x):
            return self.lstm(x)[0][..., :1]

    module, x = NextYear().eval(), torch.rand(2, 60, 1) - 0.5
    shapes = {"x": {0: "batch", 1: "time"}}
    generate = {"input": "x", "output": "output"}
    path = tmp_path / "horizon.onnx"
    lstm_onnx.export(module, path, example_inputs=x, dynamic_shapes=shapes, generate=generate)
    found = lstm_onnx.load(path, "cpu").run({"x": x.numpy(), "max_steps": np.array(48)})["generated"]
    module, series = module.double(), x.double()
    with torch.no_grad():
        for _ in range(48):
            series = torch.cat([series, module(series)[:, -1:]], 1)
    assert found.shape == (2, 48, 1)
    np.testing.assert_allclose(found, series[:, 60:], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_charlm_training_script_runs(tmp_path):
    out = tmp_path / "short.safetensors"
    subprocess.run(
        [sys.executable, MODELS / "charlm_train.py", "--steps", "2", "--out", out],
        check=True,
        capture_output=True,
        timeout=240,
    )
    from safetensors.numpy import load_file

    new, shipped = load_file(out), load_file(MODELS / "charlm.safetensors")
    assert {name: array.shape for name, array in new.items()} == {name: array.shape for name, array in shipped.items()}


@pytest.fixture(scope="module")
def vad(tmp_path_factory):
    path = tmp_path_factory.mktemp("vad") / "vad.onnx"
    load_source(str(MODELS / "vad.toml")).export(path)
    return path


@pytest.fixture(scope="module")
def vad_sounds():
    spec = importlib.util.spec_from_file_location("vad_sounds", MODELS / "vad_sounds.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["vad_sounds"] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


def test_vad_finds_speech_as_well_as_its_page_says(vad, vad_sounds):
    """The first 12 of the 60 recordings at 5 dB, as vad_train.judged draws them, in chunks of odd lengths."""
    random, beside = np.random.default_rng(1_000_003), np.random.default_rng(3_000_017)
    page = (MODELS / "vad.md").read_text(encoding="utf-8")
    said, loudness = map(float, re.search(r"heard in training \| 5 \| ([\d.]+) \| [\d.]+ \| ([\d.]+)", page).groups())
    found, truth = [], []
    stream = lstm_onnx.load(vad, provider="cpu", threads=1).stream()
    for number in range(12):
        clean, spoken = vad_sounds.speech(random, 8.0)
        background = vad_sounds.noise(beside, len(clean) / 16000, vad_sounds.NOISES[number % 4])
        audio = vad_sounds.mixed(clean, spoken, background, 5, beside.uniform(-45, -12))
        stream.reset()
        found += [stream(part[np.newaxis])[0] for part in np.split(audio, range(1111, len(audio), 1111))]
        truth.append(spoken)
    positive, truth = np.concatenate(found) >= 0.5, np.concatenate(truth)
    f1 = 2 * np.sum(positive & truth) / (np.sum(positive) + np.sum(truth))
    assert f1 == pytest.approx(said, abs=0.03)
    assert f1 > loudness + 0.03


def test_vad_in_chunks_of_ten_milliseconds_has_half_of_the_nodes(vad, tmp_path):
    source = load_source(str(MODELS / "vad.toml")).with_options(chunk=160)
    result = source.export(tmp_path / "steady.onnx", check=False)
    general, steady = (lstm_onnx.load(path, provider="cpu", threads=1) for path in (vad, tmp_path / "steady.onnx"))
    assert (steady.stream().delay, steady.stream().hop) == (0, 160)
    assert result.nodes < 0.5 * 62
    x = np.random.default_rng(0).standard_normal((1, 3200)).astype(np.float32) * 0.1
    one, other = general.stream(), steady.stream()
    for start in range(0, 3200, 160):
        chunk = x[:, start : start + 160]
        np.testing.assert_allclose(one(chunk), other(chunk), rtol=0, atol=1e-6)


def test_vad_listens_to_a_recording(vad, tmp_path, forking_environment):
    recording = tmp_path / "made-up.wav"

    def run(*arguments):
        command = ["python", *arguments]
        return subprocess.run(
            command, env=forking_environment, capture_output=True, text=True, timeout=120, check=False
        )

    assert run(MODELS / "vad_sounds.py", recording, "--seed", "1").returncode == 0
    done = run(MODELS / "vad_listen.py", vad, recording)
    assert done.returncode == 0, done.stderr
    stretches = [tuple(map(float, re.findall(r"[\d.]+", line))) for line in done.stdout.splitlines()]
    assert 1 <= len(stretches) <= 8
    assert all(0 <= begins < ends <= 8 for begins, ends in stretches)
    (tmp_path / "text.wav").write_text("no sound")
    done = run(MODELS / "vad_listen.py", vad, tmp_path / "text.wav")
    assert done.returncode == 2
    assert "text.wav is no WAV file of integers" in done.stderr


@pytest.mark.slow
def test_vad_training_script_runs(tmp_path):
    out = tmp_path / "short.safetensors"
    command = [sys.executable, MODELS / "vad_train.py", "--steps", "2", "--out", out]
    subprocess.run(command, check=True, capture_output=True, timeout=240)
    from safetensors.numpy import load_file

    new, shipped = load_file(out), load_file(MODELS / "vad.safetensors")
    assert {name: array.shape for name, array in new.items()} == {name: array.shape for name, array in shipped.items()}
