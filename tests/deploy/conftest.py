"""The files for JavaScript and the process of Node are made once for all test files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .node_process import Folders, Node


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("web"))


@pytest.fixture(scope="session")
def perform() -> Iterator[Node]:
    node = Node()
    yield node
    node.process.communicate(timeout=30)
    assert node.process.returncode == 0
