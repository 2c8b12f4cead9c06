"""One model and one exporter, in a process of its own: ``python -m tests.public_models.trial NAME TOOL FOLDER OUT``."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import lstm_onnx

from .judge import Judgement, called, difference, first_line, judge, onnxruntime_runner, own_runner
from .model import Model
from .models import MODELS
from .packages import use

CHUNKS = (3, 1, 4, 4)
"""Steps in each chunk of a stream: uneven, and one twice."""


class Trial:
    """The stages of one trial, each kept in a JSON file as soon as it is through: what a time limit leaves is read."""

    def __init__(self, model: Model, out: Path) -> None:
        self.model = model
        self.out = out
        self.module: nn.Module
        self.result: dict[str, Any] = {}
        self.work = out.parent / f"{out.stem}-files"
        self.work.mkdir(exist_ok=True)

    def stage(self, name: str, act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Run `act`; what it raises becomes the stage's verdict."""
        self.result[name] = {"verdict": "time limit"}
        self.keep()
        start = time.perf_counter()
        try:
            done = act()
        except lstm_onnx.LSTMOnnxError as error:
            done = {"verdict": "refused", "reason": str(error)}
        except Exception as error:  # noqa: BLE001 - whatever an exporter or a stranger's module raises
            done = {"verdict": "error", "reason": first_line(error)}
        self.result[name] = {**done, "seconds": round(time.perf_counter() - start, 1)}
        self.keep()
        return self.result[name]

    def keep(self) -> None:
        """Write what is known so far."""
        self.out.write_text(json.dumps(self.result, indent=1))

    def build(self) -> dict[str, Any]:
        """Make the module, run it, and count its parameters."""
        self.module = self.model.made()
        for parameter in self.module.parameters():
            parameter.requires_grad_(False)
        outputs = called(self.module, self.model.drawn(*self.model.example))
        self.result["parameters"] = sum(parameter.numel() for parameter in self.module.parameters())
        return {"verdict": "built", "outputs": [list(value.shape) for value in outputs]}

    # The project's exporter.

    def ours(self) -> None:
        """Without dynamic_shapes, where that gives a file for all sizes, else with; then verify and stream."""
        path = self.work / "ours.onnx"
        done = self.stage("without dynamic_shapes", lambda: self.export_ours(path, {}))
        options: dict[str, Any] = {}
        if done["verdict"] not in ("right", "wrong"):
            options = {"dynamic_shapes": self.model.dynamic_shapes()}
            done = self.stage("with dynamic_shapes", lambda: self.export_ours(path, options))
        self.result["verdict"] = done["verdict"]
        self.result["reason"] = done.get("reason", "")
        self.keep()
        if done["verdict"] == "right":
            if self.stage("verify alone", lambda: self.verify(path))["verdict"] != "yes":
                arguments = self.model.drawn(*self.model.example)
                self.stage("verify", lambda: self.verify(path, example_inputs=arguments))
            self.stage("stream", lambda: self.stream(options))

    def export_ours(self, path: Path, options: dict[str, Any]) -> dict[str, Any]:
        path.unlink(missing_ok=True)
        arguments = self.model.drawn(*self.model.example)
        exported = lstm_onnx.export(self.module, path, example_inputs=arguments, **options)
        return {**judged(self.model, self.module, own_runner(path)), "notes": exported.notes}

    def verify(self, path: Path, **options: Any) -> dict[str, Any]:
        report = lstm_onnx.verify(self.module, path, provider="cpu", threads=1, **options)
        return {"verdict": "yes" if report else "no", "reason": "" if report else str(report)}

    def stream(self, options: dict[str, Any]) -> dict[str, Any]:
        """The chunks of a stream against the whole sequence."""
        axes = self.model.open_axes()
        time_axes = [next((axis for axis, name in open_.items() if name.startswith("time")), None) for open_ in axes]
        if not any(axis is not None for axis in time_axes):
            return {"verdict": "not tried", "reason": "it has no time axis"}
        path = self.work / "stream.onnx"
        arguments = self.model.drawn(*self.model.example)
        lstm_onnx.export(self.module, path, example_inputs=arguments, states="explicit", **options)
        file = lstm_onnx.load(path, "cpu", threads=1)
        batch, steps = self.model.example[0], sum(CHUNKS)
        stream = file.stream(batch=batch)
        whole = Model.tensors(self.model.drawn(batch, steps))
        for tensor, axis in zip(whole, time_axes, strict=True):
            if axis is not None and tensor.shape[axis] % steps:
                return {"verdict": "not tried", "reason": "a step is not a whole number of samples"}
            if axis is None and not tensor.is_floating_point() and tensor.ndim == 1:
                tensor.fill_(steps)  # lengths
        names = list(file.inputs)[: len(whole)]
        given = {name: tensor.numpy() for name, tensor in zip(names, whole, strict=True) if name in file.states}
        stream.state = {**stream.state, **given}
        longer = called(self.module, self.model.drawn(batch, steps + 1))
        expected = called(self.module, self.rebuilt(batch, steps, whole))
        pieces: list[dict[str, np.ndarray]] = []
        done = 0
        for count in CHUNKS:
            feeds = {}
            for name, tensor, axis in zip(names, whole, time_axes, strict=True):
                if name in given:
                    continue
                if axis is not None:
                    unit = tensor.shape[axis] // steps
                    tensor = tensor.narrow(axis, done * unit, count * unit)
                elif not tensor.is_floating_point() and tensor.ndim == 1:
                    tensor = torch.full_like(tensor, count)
                feeds[name] = np.ascontiguousarray(tensor.numpy())
            pieces.append(stream.run(feeds))
            done += count
        pieces.append(stream.flush())  # what a stride or a look-ahead holds back
        # The states that the module returns are the stream's own afterwards.
        after = {output: stream.state[name] for name, output in file.states.items()}
        joined = []
        for index, (name, value) in enumerate(zip(file.outputs, expected, strict=False)):
            if name in after:
                joined.append(after[name])
                continue
            moved = [axis for axis in range(value.ndim) if value.shape[axis] != longer[index].shape[axis]]
            parts = [piece[name] for piece in pieces if name in piece]
            joined.append(np.concatenate(parts, axis=moved[0]) if moved else parts[-1])
        ratio, what = difference(expected, joined)
        return {"verdict": "differs" if what else "equal", "reason": what, "error": ratio}

    def rebuilt(self, batch: int, steps: int, tensors: list[torch.Tensor]) -> tuple[Any, ...]:
        """The arguments of these sizes with `tensors` in place of their own."""
        from torch.utils._pytree import tree_map

        given = iter(tensors)
        return tree_map(
            lambda leaf: next(given) if isinstance(leaf, torch.Tensor) else leaf, self.model.drawn(batch, steps)
        )

    # PyTorch's exporters.

    def torchs(self, dynamo: bool) -> None:
        """torch.onnx.export, judged as ours is."""
        path = self.work / "torch.onnx"

        def act() -> dict[str, Any]:
            arguments = self.model.drawn(*self.model.example)
            names = [f"input_{index}" for index in range(len(Model.tensors(arguments)))]
            options: dict[str, Any] = {"input_names": names, "dynamo": dynamo}
            if dynamo:
                dim = torch.export.Dim.DYNAMIC
                options["dynamic_shapes"] = self.model.dynamic_shapes(lambda _: dim)
            else:
                options["dynamic_axes"] = dict(zip(names, self.model.open_axes(), strict=True))
                options["opset_version"] = 18
            try:
                torch.onnx.export(self.module, arguments, path, **options)
            except Exception as error:  # noqa: BLE001 - dynamo's and TorchScript's errors have no common base
                return {"verdict": "refused", "reason": first_line(error)}
            try:
                run = onnxruntime_runner(path)
            except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions have no common base
                return {"verdict": "fails", "reason": f"ONNX Runtime cannot open the file: {first_line(error)}"}
            return judged(self.model, self.module, run)

        done = self.stage("export", act)
        self.result["verdict"], self.result["reason"] = done["verdict"], done.get("reason", "")
        self.keep()


def judged(model: Model, module: nn.Module, run: Any) -> dict[str, Any]:
    """A judgement, ready for JSON."""
    found: Judgement = judge(model, module, run)
    return {
        "verdict": found.verdict,
        "reason": found.reason,
        "compared": found.compared,
        "skipped": found.skipped,
        "failed": found.failed,
        "differ": found.differ,
        "error": found.error,
    }


def main(name: str, tool: str, folder: str, out: str) -> None:
    """Run the trial `tool` of the model `name`, whose package lies in `folder`, and write what it showed to `out`."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    model = next(model for model in MODELS if model.name == name)
    use(model.package, Path(folder))
    trial = Trial(model, Path(out))
    if trial.stage("build", trial.build)["verdict"] != "built":
        return
    if tool == "ours":
        trial.ours()
    else:
        trial.torchs(dynamo=tool == "dynamo")


if __name__ == "__main__":
    main(*sys.argv[1:])
