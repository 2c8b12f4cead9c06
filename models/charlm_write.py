"""Let charlm write, without torch: one character at a time through ONNX Runtime, the states carried on.

lstm-onnx export models/charlm.toml -o charlm.onnx
python models/charlm_write.py charlm.onnx --prompt "ROMEO:" --characters 400 --temperature 0.8 --seed 1
"""

import argparse
from collections.abc import Iterator

import numpy as np
from charlm_text import VOCABULARY, decode, encode

import lstm_onnx


def write_on(
    stream: lstm_onnx.Stream, prompt: np.ndarray, characters: int, temperature: float, seed: int
) -> Iterator[int]:
    """The tokens that follow `prompt`, (characters,) int64, each drawn from what the stream predicts."""
    random = np.random.default_rng(seed)
    tokens = prompt[np.newaxis]  # (1, time): first the prompt at once, then what was drawn, one by one
    for _ in range(characters):
        logits = stream.run({"tokens": tokens})["logits"][0, -1].astype(np.float64) / temperature
        chances = np.exp(logits - logits.max())
        token = int(random.choice(len(VOCABULARY), p=chances / chances.sum()))
        yield token
        tokens = np.array([[token]], dtype=np.int64)


def main() -> None:
    parser = argparse.ArgumentParser(description="Let the character-level language model write.")
    parser.add_argument("model", help="charlm.onnx, as `lstm-onnx export models/charlm.toml` writes it")
    parser.add_argument("--prompt", default="ROMEO:", help="what it goes on from (default: %(default)s)")
    parser.add_argument("--characters", type=int, default=400, help="how many to write (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.8, help="above 0; lower is tamer (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(default: %(default)s)")
    args = parser.parse_args()
    if not args.prompt:
        parser.error("--prompt must have at least one character")
    if not args.temperature > 0:
        parser.error(f"--temperature must be above 0; it is {args.temperature}")
    try:
        prompt = encode(args.prompt)
        stream = lstm_onnx.load(args.model).stream(batch=1)
    except (ValueError, lstm_onnx.LSTMOnnxError) as error:
        parser.error(str(error))
    print(args.prompt, end="")
    for token in write_on(stream, prompt, args.characters, args.temperature, args.seed):
        print(decode([token]), end="", flush=True)
    print()


if __name__ == "__main__":
    main()
