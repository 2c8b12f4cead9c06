"""Programs that stream a file in other languages: run in Python and JavaScript, compiled in Java, C++ and Rust.

Those of C++ and Rust run where these variables name what no registry of ours has; the library itself is in the wheel:
ONNXRUNTIME_INCLUDE, a folder with onnxruntime_cxx_api.h, and ORT_RLIBS, one with libort.rlib and what it is built of.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from lstm_onnx.deploy.web import deploy_web
from lstm_onnx.errors import InputError, ModelError
from lstm_onnx.inspect.code import LANGUAGES, program
from lstm_onnx.spec import ExportOptions
from tests.streaming.test_convert import conv_lstm, saved

from ..docs.blocks import ROOT
from ..runtime.models import accumulator, exported

pytestmark = pytest.mark.sweep(9)

NODE_MODULES = ROOT / ".ci/node_modules"
DECLARATIONS = Path(__file__).parent / "declarations"


def starting_from(path: Path, initial: dict[str, np.ndarray]) -> None:
    """Give a file initial states."""
    from lstm_onnx.metadata import Metadata

    model = onnx.load(path)
    props = {item.key: item.value for item in model.metadata_props if item.key != "lstm_onnx.checksum"}
    helper.set_model_props(model, props | Metadata(initial=initial).to_metadata_entry("initial"))
    onnx.save(model, path)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of several kinds: states, lengths, initial states, strides, delay, double."""
    import lstm_onnx

    folder = tmp_path_factory.mktemp("code")
    exported(folder / "net.onnx", num_layers=2)
    exported(folder / "learned.onnx")
    starting_from(folder / "learned.onnx", {"h0": np.array([[[0.5, -0.25, 0, 1, -1]]], np.float32)})
    exported(folder / "whole.onnx", bidirectional=True, options=ExportOptions(lengths=True))
    exported(folder / "double.onnx", proj_size=2, dtype="float64", options=ExportOptions(projection="scan"))
    source = saved(conv_lstm((1, 1), stride=3), folder / "source.onnx")
    lstm_onnx.make_streaming(source, folder / "late.onnx", time={"x": 2}, max_delay=1)
    return [folder / f"{name}.onnx" for name in ("net", "learned", "whole", "double", "late")]


def done(command: list[Any], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def run(language: str, text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    if language == "python":
        (folder / "stream.py").write_text(text, encoding="utf-8")
        return done([sys.executable, "-W", "error", "stream.py"], folder)
    (folder / "stream.cjs").write_text(text, encoding="utf-8")
    return done(["node", "stream.cjs"], folder, NODE_PATH=str(NODE_MODULES))


in_each_language = pytest.mark.parametrize(
    "language",
    [
        "python",
        pytest.param(
            "javascript",
            marks=pytest.mark.skipif(
                shutil.which("node") is None or not (NODE_MODULES / "onnxruntime-node").exists(),
                reason="Node and onnxruntime-node are not installed; .ci/run does the latter",
            ),
        ),
    ],
)


@in_each_language
def test_programs_run_and_notice_wrong_numbers(files: list[Path], language: str) -> None:
    for file in files:
        text = program(file, language)
        found = run(language, text, file.parent)
        assert found.returncode == 0, found.stderr
        assert found.stdout.endswith("pass\n")
        assert any(abs(float(number)) > 1e-3 for number in found.stdout.splitlines()[0].split())
    pattern = r"expected = (np\.array\()?\[-?"
    wrong = re.sub(pattern, lambda match: match[0] + "1", text)
    assert wrong != text
    found = run(language, wrong, file.parent)
    assert found.returncode != 0
    assert "FAIL" in found.stderr


@in_each_language
def test_an_input_may_be_one_number(tmp_path: Path, language: str) -> None:
    count = helper.make_tensor_value_info("count", TensorProto.INT64, [])
    gain = helper.make_tensor_value_info("gain", TensorProto.FLOAT, [])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [])
    nodes = [
        helper.make_node("Cast", ["count"], ["n"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["n", "gain"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "product", [count, gain], [y])
    path = tmp_path / "product.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    found = run(language, program(path, language), tmp_path)
    assert found.stdout.endswith("pass\n"), found.stderr


@pytest.mark.parametrize("batch", [0, 1, 2])
def test_a_state_whose_batch_has_no_name_starts_from_zeros(tmp_path: Path, batch: int) -> None:
    """As in a file of another tool; with no --data, or with the state in it or not."""
    path = accumulator(tmp_path / "other.onnx", axis=None)
    inputs = {"scale": np.array(2), "x": np.ones((max(batch, 1), 3), np.float32)}
    if batch:
        inputs["state"] = np.zeros((batch, 3), np.float32)
    text = program(path, "python", inputs, {"state": "stateN"})
    assert run("python", text, tmp_path).stdout.endswith("pass\n")


def library(folder: Path) -> Path:
    """ONNX Runtime's library, from the wheel, under the names that linkers and programs look for."""
    (found,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(found)
    return folder


@pytest.mark.parametrize(
    ("language", "compiler", "variable"), [("cpp", "g++", "ONNXRUNTIME_INCLUDE"), ("rust", "rustc", "ORT_RLIBS")]
)
def test_programs_run_with_the_real_library(
    files: list[Path], tmp_path: Path, language: str, compiler: str, variable: str
) -> None:
    needed = os.environ.get(variable)
    if shutil.which(compiler) is None or needed is None or sys.platform != "linux":
        pytest.skip(f"{compiler} is not installed, or {variable} is not set")
    place = tmp_path / "stream"
    link = [place, "-L", library(tmp_path), "-lonnxruntime"]
    rpath = f"-Wl,-rpath,{tmp_path}"
    for file in files:
        for wrong in (False, True):
            text = program(file, language)
            if wrong:
                text = re.sub(r"(expected[^\n]*?[\[{] ?-?)(\d)", r"\g<1>1\2", text, count=1)
            source = tmp_path / {"cpp": "stream.cpp", "rust": "stream.rs"}[language]
            source.write_text(text, encoding="utf-8")
            command = {
                "cpp": ["g++", "-std=c++17", "-I", needed, source, "-o", *link, rpath],
                "rust": [
                    *("rustc", "--edition", "2021", source, "--extern", f"ort={needed}/libort.rlib", "-L", needed),
                    *("-o", *link, "-C", f"link-arg={rpath}"),
                ],
            }[language]
            compiled = done(command, tmp_path)
            assert compiled.returncode == 0, compiled.stderr
            found = done([place], file.parent)
            assert (found.returncode == 0) is not wrong, found.stdout + found.stderr
            assert found.stdout.splitlines()[-1] == ("FAIL" if wrong else "pass")


@pytest.mark.parametrize(("language", "compiler"), [("cpp", "g++"), ("java", "javac"), ("rust", "rustc")])
def test_programs_compile_against_declarations(files: list[Path], tmp_path: Path, language: str, compiler: str) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    if language == "rust":
        library = ["rustc", "--edition", "2021", "--crate-type", "lib", DECLARATIONS / "ort.rs", "--out-dir", "."]
        assert done(library, tmp_path).returncode == 0
    for file in files[-1:] if language == "java" else files:
        text = program(file, language)
        place = tmp_path / {"cpp": "stream.cpp", "java": "Stream.java", "rust": "stream.rs"}[language]
        place.write_text(text, encoding="utf-8")
        command = {
            "cpp": ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", DECLARATIONS, place],
            "java": ["javac", "-Xlint:all,-cast", "-Werror", "-d", ".", "-sourcepath", DECLARATIONS, place],
            "rust": ["rustc", "--edition", "2021", "--emit", "metadata", "--extern", "ort=libort.rlib", place],
        }[language]
        compiled = done(command, tmp_path)
        assert compiled.returncode == 0, compiled.stderr
        assert f'"{file.name}"' in text


def test_every_language_has_the_names_and_numbers(files: list[Path]) -> None:
    texts = {language: program(files[1], language) for language in LANGUAGES}
    for language, text in texts.items():
        assert "learned.onnx" in text
        assert "0.5" in text, language
        assert "hn" in text
        assert "cn" in text
        assert "{{" not in text
        assert "{%" not in text
    numbers = {re.search(r"expected[^\n]*?[\[{] ?(-?\d[^\]}]*?) ?[\]}]", text)[1] for text in texts.values()}
    assert len(numbers) == 1


def test_what_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported(tmp_path / "half.onnx", dtype="float16")
    with pytest.raises(ModelError, match="is of a dtype that programs are not written for; they are for float32"):
        program(tmp_path / "half.onnx", "python")
    exported(tmp_path / "large.onnx")
    ones = np.ones((1, 1, 5), np.float32)
    starting_from(tmp_path / "large.onnx", {"c0": ones})
    monkeypatch.setattr("lstm_onnx.inspect.code._MOST_INITIAL", 4)
    with pytest.raises(ModelError, match="the initial state of c0 is 5 numbers"):
        program(tmp_path / "large.onnx", "java")
    starting_from(tmp_path / "large.onnx", {"h0": ones, "c0": ones})
    monkeypatch.setattr("lstm_onnx.inspect.code._MOST_INITIAL", 9)
    with pytest.raises(ModelError, match="the initial state of c0 and h0 is 10 numbers"):
        program(tmp_path / "large.onnx", "java")
    name = 'x");import os;("'
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Neg", [name], ["y"])],
        "hostile",
        [info(name, TensorProto.FLOAT, [1])],
        [info("y", TensorProto.FLOAT, [1])],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "hostile.onnx"
    )
    with pytest.raises(ModelError, match="cannot be written into a program"):
        program(tmp_path / "hostile.onnx", "python")
    with pytest.raises(InputError, match="choose one of python, javascript, csharp, java, cpp, rust"):
        program(tmp_path / "hostile.onnx", "cobol")


def test_a_file_that_does_not_say_which_sizes_it_takes_is_refused_with_a_hint(tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (None, None)) for name in "xy")
    s, t = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 1)) for name in "st")
    rate = helper.make_tensor_value_info("rate", TensorProto.INT64, ())
    shape = numpy_helper.from_array(np.array([1, 8], np.int64), "shape")
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["eight"]),
        helper.make_node("Cast", ["rate"], ["scale"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["eight", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "s"], ["y"]),
        helper.make_node("ReduceMax", ["y"], ["t"], axes=[1]),
    ]
    graph = helper.make_graph(nodes, "eight", [x, s, rate], [y, t], [shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = saved(model, tmp_path / "m.onnx")
    for write in (lambda: program(path, "python"), lambda: deploy_web(path, tmp_path / "web")):
        with pytest.raises(ModelError) as raised:
            write()
        assert "cannot be run on random inputs, x (1, 1), s (1, 1), rate () (" in raised.value.message
        assert "pass inputs: --data, or inputs= in Python" in str(raised.value.hint)
    assert not (tmp_path / "web").exists()
    given = {"x": np.ones((1, 8), np.float32), "s": np.zeros((1, 1), np.float32), "rate": np.array(16000)}
    text = program(path, "python", given)
    assert run("python", text, tmp_path).stdout.endswith("pass\n")
    assert "(1, 8)" in text
    assert "16000" in text
    paired = program(path, "python", given, {"s": "t"})
    assert run("python", paired, tmp_path).stdout.endswith("pass\n")
    assert ['"s": "t"' in each for each in (text, paired)] == [False, True]
    for states, cases in ((None, 1), ({"s": "t"}, 2)):
        found = deploy_web(path, tmp_path / "web", states=states, inputs=given)
        assert (found.cases, found.streams) == (cases, states is not None)
    for write in (program, lambda *_: deploy_web(path, tmp_path / "web", inputs={"z": given["x"]})):
        with pytest.raises(InputError, match="z is not an input"):
            write(path, "python", {"z": given["x"]})
    with pytest.raises(InputError, match="golden and inputs were both given"):
        deploy_web(path, tmp_path / "web", inputs=given, golden="none.npz")


def applied(operator: str, path: Path, axis: str) -> Path:
    """One operator, of an input whose first axis has a name."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [axis, 3]) for name in "xy")
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"])], "one", [x], [y])
    return saved(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.mark.parametrize("axis", ["rows\n    }\nimport os\n", "rows\\u000a int evil", "r\u2028ws", "größe"])
def test_the_name_of_an_axis_stays_in_its_comment(tmp_path: Path, axis: str) -> None:
    path = applied("Neg", tmp_path / "m.onnx", axis)
    for language in LANGUAGES:
        text = program(path, language)
        assert axis not in text
        assert "(?, 3)" in text
    assert "(rows % 2, 3)" in program(applied("Neg", path, "rows % 2"), "python")


def test_outputs_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = applied("Log", tmp_path / "log.onnx", "batch")
    with pytest.raises(ModelError, match="gives NaN or infinity in y for the inputs that a program makes up"):
        program(path, "python")


def test_a_token_beside_the_right_one_fails(tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.INT64, [1]) for name in "xy")
    large = helper.make_tensor("large", TensorProto.INT64, [], [90001])
    graph = helper.make_graph([helper.make_node("Add", ["x", "large"], ["y"])], "token", [x], [y], [large])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = saved(model, tmp_path / "m.onnx")
    text = program(path, "python")
    assert run("python", text, tmp_path).stdout == "90001\npass\n"
    wrong = text.replace("[90001.0]", "[90002.0]")
    assert wrong != text
    assert "FAIL" in run("python", wrong, tmp_path).stderr
