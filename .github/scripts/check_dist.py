"""Whether the built sdist and wheel hold what they should, and whether a tagged release is complete.

Usage: ``python .github/scripts/check_dist.py FOLDER [--tag v0.1.0]``.  Standard library only.
"""

from __future__ import annotations

import argparse
import email
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
_UNKNOWN_OWNER = "github.com/OWNER/"
_WITH_OWNER = ("pyproject.toml", "CHANGELOG.md", ".github/ISSUE_TEMPLATE/config.yml", "lstm_onnx/docs/verify-in-ci.md")


def wheel_problems(wheel: Path, root: Path = ROOT) -> Iterator[str]:
    """What is wrong with a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = next(name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(info))
        entry_points = archive.read(info.replace("METADATA", "entry_points.txt")).decode()
    package = root / "lstm_onnx"
    wanted = {path.relative_to(root).as_posix() for path in package.rglob("*") if path.is_file() and _ships(path)}
    yield from (f"{name} is missing" for name in sorted(wanted - names))
    extra = {name for name in names if ".dist-info/" not in name} - wanted
    yield from (f"{name} does not belong there" for name in sorted(extra))
    if metadata["Description-Content-Type"] != "text/markdown":
        yield "the description is not Markdown"
    description = metadata.get_payload(decode=True).decode("utf-8")
    if description.strip() != (root / "README.md").read_text(encoding="utf-8").strip():
        yield "the description is not README.md"
    if "lstm-onnx = lstm_onnx.cli:main" not in entry_points or "pytest11" not in entry_points:
        yield "the command or the pytest plugin is missing"


def sdist_problems(sdist: Path) -> Iterator[str]:
    """What is wrong with an sdist: its tests must be able to run from it."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "constraints.txt", "tests/conftest.py")
    yield from (f"{name} is missing" for name in (*needed, "models/sunspots.toml") if name not in names)


def release_problems(tag: str, version: str, root: Path = ROOT) -> Iterator[str]:
    """What keeps `tag` from being released as `version`."""
    if tag != f"v{version}":
        yield f"the tag is {tag}, and the version is {version}"
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d{{2}}-\d{{2}}$", changelog, flags=re.MULTILINE):
        yield f"CHANGELOG.md has no dated section [{version}]"
    for name in _WITH_OWNER:
        if _UNKNOWN_OWNER in (root / name).read_text(encoding="utf-8"):
            yield f"{name} says OWNER where the repository's owner belongs"


def _ships(path: Path) -> bool:
    return "__pycache__" not in path.parts


def main() -> int:
    """Print every problem; 1 if there is one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tag")
    arguments = parser.parse_args()
    (wheel,) = arguments.folder.glob("*.whl")
    (sdist,) = arguments.folder.glob("*.tar.gz")
    problems = [f"{wheel.name}: {problem}" for problem in wheel_problems(wheel)]
    problems += [f"{sdist.name}: {problem}" for problem in sdist_problems(sdist)]
    if arguments.tag:
        problems += release_problems(arguments.tag, wheel.name.split("-")[1])
    for problem in problems:
        print(problem, file=sys.stderr)
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
