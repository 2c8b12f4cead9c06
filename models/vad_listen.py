"""Let vad find the speech in a recording or at a microphone, without torch: ten milliseconds at a time.

lstm-onnx export models/vad.toml -o vad.onnx
python models/vad_listen.py vad.onnx recording.wav
python models/vad_listen.py vad.onnx                # the microphone; needs `pip install sounddevice`
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from vad_sounds import HOP, RATE, read_wav

import lstm_onnx

OPENS, CLOSES, PATIENCE = 0.5, 0.3, 25  # probabilities; so many outputs in a row below CLOSES end what OPENS began


def pieces(samples: np.ndarray) -> Iterator[np.ndarray]:
    """(samples,) float32 in pieces of HOP."""
    for start in range(0, len(samples), HOP):
        yield samples[start : start + HOP]


def microphone() -> Iterator[np.ndarray]:
    """What the default microphone hears, until Control-C."""
    import sounddevice

    with sounddevice.InputStream(samplerate=RATE, channels=1, dtype="float32", blocksize=HOP) as device:
        while True:
            yield device.read(HOP)[0][:, 0]


def speech_in(stream: lstm_onnx.Stream, sound: Iterable[np.ndarray]) -> Iterator[tuple[float, float]]:
    """Where each stretch of speech begins and ends, in seconds, as soon as it has ended.

    Args:
        stream: of vad.onnx, one sequence.
        sound: float32 samples, in pieces of any length.
    """
    outputs, quiet, began = 0, 0, None
    for piece in sound:
        for probability in stream(piece[np.newaxis])[0]:
            outputs += 1
            if probability >= OPENS:
                began, quiet = outputs - 1 if began is None else began, 0
            elif began is not None:
                quiet = quiet + 1 if probability < CLOSES else 0
                if quiet == PATIENCE:
                    yield began * HOP / RATE, (outputs - quiet) * HOP / RATE
                    began, quiet = None, 0
    if began is not None:
        yield began * HOP / RATE, (outputs - quiet) * HOP / RATE


def main() -> None:
    parser = argparse.ArgumentParser(description="Print where there is speech.")
    parser.add_argument("model", help="vad.onnx, as `lstm-onnx export models/vad.toml` writes it")
    parser.add_argument("recording", type=Path, nargs="?", help="a WAV file of 16 bits; the microphone if left out")
    args = parser.parse_args()
    try:
        sound = microphone() if args.recording is None else pieces(read_wav(args.recording))
        stream = lstm_onnx.load(args.model).stream()
        for begins, ends in speech_in(stream, sound):
            print(f"{begins:.2f} s to {ends:.2f} s", flush=True)
    except ModuleNotFoundError as error:
        parser.error(f"the microphone needs a package: pip install {error.name}")
    except (OSError, ValueError, lstm_onnx.LSTMOnnxError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
