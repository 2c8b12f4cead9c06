"""Where a model comes from: .toml files, Python callables, checkpoints, and torch.nn.LSTM itself."""
