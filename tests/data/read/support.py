"""What the tests of this folder share."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lstm_onnx import data
from lstm_onnx.errors import FileError

RECORD = {
    "input": np.arange(12, dtype=np.float32).reshape(4, 3) / 7,
    "h0": np.full((2, 3), 0.5, np.float16),
    "lengths": np.array(4, np.int32),
    "on": np.array([True, False]),
}


def encoded(format: str) -> bytes:
    """A sound file of `format`."""
    out = io.BytesIO()
    data.write("-", [RECORD], many=False, format=format, stdout=out)
    return out.getvalue()


def parsed(content: bytes | str, format: str | None = None, **options: Any) -> list[data.Record]:
    content = content.encode() if isinstance(content, str) else content
    return list(data.read("-", stdin=io.BytesIO(content), format=format, **options).rows)


def refused(content: bytes | str, format: str | None = None, **options: Any) -> str:
    """The message with which `content` is refused, at once or while its records are read."""
    with pytest.raises(FileError) as caught:
        parsed(content, format, **options)
    message = str(caught.value)
    assert message.startswith("stdin: ")
    assert "\n" not in message
    return message


def parquet(columns: dict[str, Any], schema: Any = None) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), out)
    return out.getvalue()
