"""Verifies a file against a bare nn.LSTM."""
