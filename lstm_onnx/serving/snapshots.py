"""Writes and reads snapshots of a stream, from which any server of the same model can continue it.

The client keeps a snapshot, which is opaque to it: the number of frames, the digest of the model's file and the states,
signed with a key that the servers share.  So a snapshot of another model, or one that was changed, is refused.
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
"""The close code of a websocket whose client sent a snapshot that this server cannot continue."""
UNCERTAIN_CODE = 4504
"""The close code of a websocket after a frame that may or may not have been run; the last snapshot is still valid."""
_MARK = b"lstm-onnx snapshot 1\n"
_MAC_BYTES = hashlib.sha256().digest_size
_LEAST_KEY_BYTES = 32


@dataclass(frozen=True)
class Snapshot:
    """A stream after some frames.

    Attributes:
        digest: the digest of the model's file, see `file_digest`.
        frame: how many frames were run.
        states: the states by the names of their inputs.
    """

    digest: str
    frame: int
    states: Mapping[str, np.ndarray]

    def signed(self, key: bytes) -> str:
        """The snapshot as signed text, which `opened` reads."""
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
    """Read a snapshot, of a stream of the model with this digest, from its signed text.

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
    # The signature is right, so a server wrote the rest, and it need not be validated.
    at = len(_MARK) + 4
    (length,) = struct.unpack_from("<I", content, at - 4)
    header = json.loads(content[at : at + length])
    if header["digest"] != digest:
        raise RequestError("the snapshot is of a different model, or of a different version of its file")
    at += length
    states = {}
    for name, datatype, shape in header["states"]:
        size = int(np.prod(shape, dtype=np.int64)) * DATATYPES[datatype].itemsize
        states[name] = from_bytes(name, datatype, shape, memoryview(content)[at : at + size])
        at += size
    return Snapshot(digest, header["frame"], states)


def new_key() -> bytes:
    """A random key, which no other server has."""
    return secrets.token_bytes(_LEAST_KEY_BYTES)


def read_key(file: str) -> bytes:
    """The key in a file, without white space at either end.

    Raises:
        FileError: it cannot be read.
        InputError: the key is too short to be secure.
    """
    require_readable(file, "a secret key")
    key = Path(file).read_bytes().strip()
    if len(key) < _LEAST_KEY_BYTES:
        raise InputError(
            f"{file}: has a key of {len(key)} bytes; a key must have {_LEAST_KEY_BYTES} or more",
            hint=f"write one with: python -c 'import secrets; print(secrets.token_hex())' > {file}",
        )
    return key


def _mac(key: bytes, content: bytes) -> bytes:
    return hmac.digest(key, content, "sha256")
