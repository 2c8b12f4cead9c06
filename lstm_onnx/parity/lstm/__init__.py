"""The verification of a file against a bare nn.LSTM."""
