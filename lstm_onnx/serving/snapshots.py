"""Snapshots of a stream: its client keeps them, and any server of the same model continues the stream from them.

A snapshot is opaque to clients: the number of frames, the digest of the model's file and the states, signed with a key
that the servers share.  So one of another model, or a changed one, is refused, and no stream continues from it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..atomic_io import require_readable
from ..errors import InputError
from .errors import RequestError
from .tensors import DATATYPES, datatype_of, from_bytes, to_bytes

REFUSED_CODE = 4409
"""Close code of a websocket whose client gave a snapshot that this server does not continue."""
UNCERTAIN_CODE = 4504
"""Close code of a websocket after a frame of which is not known whether it was run; the last snapshot is right."""
_MARK = b"lstm-onnx snapshot 1\n"
_MAC_BYTES = hashlib.sha256().digest_size
_LEAST_KEY_BYTES = 32


@dataclass(frozen=True)
class Snapshot:
    """A stream after some frames.

    Attributes:
        digest: of the model's file, see `file_digest`.
        frame: how many frames were run.
        states: by their input's names.
    """

    digest: str
    frame: int
    states: Mapping[str, np.ndarray]

    def signed(self, key: bytes) -> str:
        """As text that `opened` reads."""
        header = {
            "digest": self.digest,
            "frame": self.frame,
            "states": [[name, datatype_of(array.dtype), array.shape] for name, array in self.states.items()],
        }
        text = json.dumps(header).encode()
        parts = [_MARK, struct.pack("<I", len(text)), text, *[to_bytes(array) for array in self.states.values()]]
        content = b"".join(parts)
        return base64.b64encode(content + _mac(key, content)).decode()


def opened(text: object, key: bytes, digest: str) -> Snapshot:
    """The snapshot of a stream of the model with this digest.

    Raises:
        RequestError: it was not signed with the key, or is of another model.
    """
    try:
        signed = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        signed = b""
    content, mac = signed[:-_MAC_BYTES], signed[-_MAC_BYTES:]
    if not content.startswith(_MARK) or not hmac.compare_digest(mac, _mac(key, content)):
        raise RequestError("the snapshot was not signed with this server's key, or was changed")
    # From here on it is what a server wrote.
    at = len(_MARK) + 4
    (length,) = struct.unpack_from("<I", content, at - 4)
    header = json.loads(content[at : at + length])
    if header["digest"] != digest:
        raise RequestError("the snapshot is of another model, or of another version of its file")
    at += length
    states = {}
    for name, datatype, shape in header["states"]:
        size = int(np.prod(shape, dtype=np.int64)) * DATATYPES[datatype].itemsize
        states[name] = from_bytes(name, datatype, shape, memoryview(content)[at : at + size])
        at += size
    return Snapshot(digest, header["frame"], states)


def new_key() -> bytes:
    """A key that no other server has."""
    return secrets.token_bytes(_LEAST_KEY_BYTES)


def read_key(file: str) -> bytes:
    """The key in a file, without white space at its ends.

    Raises:
        FileError: it cannot be read.
        InputError: it is too short to be a secret.
    """
    require_readable(file, "a secret key")
    key = Path(file).read_bytes().strip()
    if len(key) < _LEAST_KEY_BYTES:
        raise InputError(
            f"{file}: has a key of {len(key)} bytes; it must have {_LEAST_KEY_BYTES} or more",
            hint=f"write one with: python -c 'import secrets; print(secrets.token_hex())' > {file}",
        )
    return key


def _mac(key: bytes, content: bytes) -> bytes:
    return hmac.digest(key, content, "sha256")
