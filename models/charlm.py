"""The character-level language model that charlm.toml names: an embedding, two LSTM layers, a linear layer."""

import torch

CHARACTERS, EMBEDDING, HIDDEN, LAYERS = 65, 24, 88, 2  # as many characters as charlm_text.VOCABULARY has


class CharLM(torch.nn.Module):
    """Scores every character as the next one; it says nothing of states, which the exporter adds by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(CHARACTERS, EMBEDDING)
        self.lstm = torch.nn.LSTM(EMBEDDING, HIDDEN, num_layers=LAYERS, batch_first=True)
        self.head = torch.nn.Linear(HIDDEN, CHARACTERS)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(batch, time) int64 -> (batch, time, CHARACTERS): at each step the logits of the next character."""
        output, _ = self.lstm(self.embedding(tokens))
        return self.head(output)
