"""An nn.LSTM that takes padded sequences with their lengths: what a bare LSTM's file with ``lengths=True`` computes."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class LSTMWithLengths(nn.Module):
    """Packs its input, calls an nn.LSTM, and pads the output; `export` writes it as ``lengths=True`` does.

    Args:
        lstm: the nn.LSTM, which is `lstm` of the module.
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.lstm = lstm

    def forward(
        self, input: Tensor, lengths: Tensor | None = None, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The output, zeros after each sequence's end, and the states at these ends.

        Args:
            input: ``(time, batch, input_size)``, or ``(batch, time, input_size)`` with ``batch_first``.
            lengths: integers from 1 to time, ``(batch,)``; None where all sequences are of full length.
            hx: ``(h0, c0)`` as nn.LSTM takes them; None for zeros.
        """
        if lengths is None:
            result: tuple[Tensor, tuple[Tensor, Tensor]] = self.lstm(input, hx)
            return result
        first = self.lstm.batch_first
        packed = pack_padded_sequence(input, lengths.cpu(), batch_first=first, enforce_sorted=False)
        output, states = self.lstm(packed, hx)
        padded, _ = pad_packed_sequence(output, batch_first=first, total_length=input.shape[1 if first else 0])
        return padded, states
