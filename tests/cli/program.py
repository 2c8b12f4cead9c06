"""``lstm-onnx`` as a program of this checkout."""

from __future__ import annotations

import signal

from lstm_onnx.cli import main

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell has ignored for what it runs beside
    main()
