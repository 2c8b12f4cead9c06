"""Every model and every exporter: ``python -m tests.public_models.table [--only NAME] [--tools ours,dynamo]``.

Each trial runs in a child process with a time limit.  What it showed is kept as one JSON file a trial, so that a run
with ``--only`` renews a few rows; ``--write`` makes the page of all that is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .model import Model
from .models import MODELS
from .packages import default_folder, install

TOOLS = ("ours", "dynamo", "torchscript")
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "lstm_onnx" / "docs" / "real-models.md"
HEAD = ("model", "package", "ours", "verified", "streamed", "dynamo", "TorchScript")
NOT_RUN = "not run"
Results = Mapping[str, Mapping[str, Any]]
"""Of one model: what each tool's trial left, see `trial.Trial`."""


def try_one(model: Model, tool: str, folder: Path, limit: float) -> dict[str, Any]:
    """Run one trial in a child process; what it showed."""
    out = folder / "results" / f"{slug(model.name)}-{tool}.json"
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.public_models.trial", model.name, tool, str(folder / "packages"), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    end = ""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, check=False, cwd=ROOT, env=environment
        )
        if done.returncode:
            end = f"the process ended with {done.returncode}: {(done.stderr.strip().splitlines() or [''])[-1][:200]}"
    except subprocess.TimeoutExpired:
        end = f"took longer than {limit:g} s"
    result = json.loads(out.read_text()) if out.exists() else {}
    if end:
        result["end"] = end
    if "verdict" not in result:
        result["verdict"] = "error"
        result["reason"] = end or result.get("build", {}).get("reason", "")
    out.write_text(json.dumps(result, indent=1))
    return result


def slug(name: str) -> str:
    """A name for files."""
    return "".join(character if character.isalnum() else "-" for character in name)


def load_results(folder: Path, models: Iterable[Model]) -> dict[str, dict[str, Any]]:
    """What earlier runs left, by model and tool."""
    found: dict[str, dict[str, Any]] = {}
    for model in models:
        for tool in TOOLS:
            path = folder / "results" / f"{slug(model.name)}-{tool}.json"
            result = json.loads(path.read_text()) if path.exists() else {}
            if "verdict" in result:  # not one of a trial that is still running
                found.setdefault(model.name, {})[tool] = result
    return found


def short(text: str, limit: int = 160) -> str:
    """A message fit for a cell: one line, without folders and what every such message begins with."""
    line = re.sub(r"(?<!\S)/\S*/(\S+)", r"\1", " ".join(text.split()))
    line = re.sub(r"^(ours|stream)\.onnx: (cannot be streamed: )?", "", line)
    line = re.sub(r"\w+: \[ONNXRuntimeError\] : \d+ : \w+ : ", "", line).replace("|", "\\|").replace("](", "]\\(")
    return line if len(line) <= limit else line[: limit - 1].rsplit(" ", 1)[0] + " …"


def doubt(report: str) -> str:
    """What a report of `verify` that is not a yes has against the file."""
    for before, line in (
        ("NOT PROVEN, a mutant survived: ", "survived"),
        ("NOT in parity: ", "first differs"),
        ("NOT in parity: ", "failed to run"),
    ):
        found = re.search(rf"^{line}:? (.*)", report, re.MULTILINE)
        if found:
            return before + found[1]
    return report


def outcome(result: Mapping[str, Any]) -> str:
    """A cell: right, or the verdict with its reason."""
    verdict = result["verdict"]
    if verdict == "right":
        return verdict
    return f"{verdict}: {short(result.get('reason') or result.get('end', ''))}"


def verified(ours: Mapping[str, Any]) -> str:
    """A cell: what `verify` said without example_inputs and, where that is not yes, with."""
    stages = [(words, ours.get(stage)) for words, stage in (("", "verify alone"), ("with example_inputs ", "verify"))]
    for words, stage in stages:
        if stage is not None and stage["verdict"] == "yes":
            return f"yes {words}".strip() if not words else "with example_inputs"
    told = [stage for _, stage in reversed(stages) if stage is not None]
    if told and told[0]["verdict"] == "time limit":
        return "not finished in time"
    return f"no: {short(doubt(told[0].get('reason') or told[0]['verdict']), 140)}" if told else "-"


def streamed(ours: Mapping[str, Any]) -> str:
    """A cell: whether the chunks of a stream equal the whole, or why there is none."""
    stage = ours.get("stream")
    if stage is None:
        return "-"
    if stage["verdict"] == "equal":
        return "yes"
    return f"{stage['verdict']}: {short(stage.get('reason', ''), 120)}"


def row(model: Model, results: Results) -> tuple[str, ...]:
    """The cells of one model."""
    if set(results) < set(TOOLS):
        return (model.name, f"{model.package.name} {model.package.version}", *[NOT_RUN] * 5)
    ours = results["ours"]
    note = " (with `dynamic_shapes`)" if "with dynamic_shapes" in ours and ours["verdict"] == "right" else ""
    return (
        model.name,
        f"{model.package.name} {model.package.version}",
        outcome(ours) + note,
        verified(ours),
        streamed(ours),
        outcome(results["dynamo"]),
        outcome(results["torchscript"]),
    )


def totals(rows: Sequence[Sequence[str]]) -> str:
    """What the columns add up to."""
    rows = [cells for cells in rows if cells[HEAD.index("ours")] != NOT_RUN]

    def count(column: str, word: str) -> int:
        return sum(cells[HEAD.index(column)].startswith(word) for cells in rows)

    said = []
    for column in ("ours", "dynamo", "TorchScript"):
        right, wrong, fails = (count(column, word) for word in ("right", "wrong", "fails"))
        refused = len(rows) - right - wrong - fails
        said.append(f"{column}: {right} right, {wrong} wrong, {fails} failing at other sizes, {refused} refused")
    packages = len({cells[1] for cells in rows})
    return (
        f"{len(rows)} models of {packages} packages. {'; '.join(said)}. Verified without example inputs: "
        f"{count('verified', 'yes')}, with them: {count('verified', 'with')}. Streamed: {count('streamed', 'yes')}."
    )


def page(rows: Sequence[Sequence[str]], versions: str) -> str:
    """The page of the documentation."""
    lines = [
        "# Real models",
        "",
        "What three exporters make of public models, each built by its own package's code.",
        "",
        "The weights are random. The exporters are `lstm_onnx.export`, `torch.onnx.export(dynamo=True)` and",
        "`torch.onnx.export(dynamo=False)` (TorchScript). Models marked **not run** were not tried yet.",
        "",
        "- **right**: the file runs in ONNX Runtime and agrees with the module at six sizes of batch and time, not",
        "  those of the example, or at as many of them as the module itself takes.",
        "- **wrong**: it runs and gives other numbers. **fails**: it does not run at all of these sizes.",
        "- **refused**: no file, for the reason that the exporter gives. **error**: another failure of the trial.",
        "- **verified**: `lstm_onnx.verify(module, path)`, which draws the inputs itself, says yes.",
        "- **streamed**: chunks of a stream give what the whole sequence gives; refused where no stream can.",
        "",
        totals(rows),
        "",
        f"Made by `python -m tests.public_models.table` with {versions}.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "| " + " | ".join("---" for _ in HEAD) + " |",
        *("| " + " | ".join(cells) + " |" for cells in rows),
    ]
    return "\n".join(lines) + "\n"


def versions() -> str:
    """What the exporters' files were made and run with."""
    from importlib.metadata import version

    runtime = next(name for name in ("onnxruntime", "onnxruntime-gpu") if _installed(name))
    return f"torch {version('torch').split('+')[0]} and onnxruntime {version(runtime)}"


def _installed(name: str) -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def run(models: Sequence[Model], tools: Sequence[str], folder: Path, limit: float, jobs: int) -> None:
    """Install what `models` need and run every trial; one line each on stderr."""
    for part in ("packages", "results"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    missing = {package: install(package, folder / "packages") for package in {model.package for model in models}}

    def one(task: tuple[Model, str]) -> None:
        model, tool = task
        why = missing[model.package]
        result = {"verdict": "error", "reason": why} if why else try_one(model, tool, folder, limit)
        print(f"{model.name} {tool}: {outcome(result)}", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, [(model, tool) for model in models for tool in tools]))


def named(part: str) -> list[Model]:
    """The model of that name or, where there is none, those with `part` in their name or their package's."""
    exact = [model for model in MODELS if model.name == part]
    return exact or [model for model in MODELS if part in f"{model.name} {model.package.name}"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.public_models.table", description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", default=[], help="part of a model's or a package's name; repeatable")
    parser.add_argument("--tools", default=",".join(TOOLS), help="which exporters, separated by commas")
    parser.add_argument("--folder", type=Path, default=default_folder(), help="for packages and results")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for one trial")
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time")
    parser.add_argument("--write", action="store_true", help="write the page of the documentation")
    options = parser.parse_args(arguments)
    tools = [tool for tool in options.tools.split(",") if tool]
    unknown = sorted(set(tools) - set(TOOLS))
    if unknown:
        parser.error(f"unknown exporter: {', '.join(unknown)}; there are {', '.join(TOOLS)}")
    chosen = [model for part in options.only for model in named(part)] if options.only else list(MODELS)
    run(chosen, tools, options.folder, options.limit, options.jobs)
    results = load_results(options.folder, MODELS)
    rows = [row(model, results.get(model.name, {})) for model in MODELS]
    (options.folder / "details.json").write_text(json.dumps(results, indent=1))
    print(totals(rows))
    print(f"details: {options.folder / 'details.json'}")
    if options.write:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page(rows, versions()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
