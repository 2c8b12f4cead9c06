"""Makes the files in keras/: Keras layers through tf2onnx, and what Keras itself computes with them.

Run it by hand in an environment of its own, as TensorFlow takes 1.6 GB:

    pip install tensorflow-cpu==2.21.0 tf2onnx==1.17.0 keras==3.15.1
    python tests/conformance/keras_files.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf2onnx
from keras import layers

FOLDER = Path(__file__).with_name("keras")
BATCH, TIME, SIZE, HIDDEN = 2, 5, 4, 3


def plain() -> keras.Model:
    x = keras.Input((None, SIZE))
    return keras.Model(x, layers.LSTM(HIDDEN, return_sequences=True, return_state=True)(x))


def stacked() -> keras.Model:
    x = keras.Input((None, SIZE))
    y = layers.LSTM(2)(layers.LSTM(HIDDEN, return_sequences=True)(x))
    return keras.Model(x, layers.Dense(2)(y))


def bidirectional() -> keras.Model:
    x = keras.Input((None, SIZE))
    return keras.Model(x, layers.Bidirectional(layers.LSTM(HIDDEN, return_sequences=True))(x))


def backwards() -> keras.Model:
    """Without biases; the output stays in the order in which it was computed."""
    x = keras.Input((None, SIZE))
    return keras.Model(x, layers.LSTM(HIDDEN, return_sequences=True, go_backwards=True, use_bias=False)(x))


def stateful() -> keras.Model:
    """Its states are inputs and outputs."""
    x, h, c = keras.Input((None, SIZE)), keras.Input((HIDDEN,)), keras.Input((HIDDEN,))
    lstm = layers.LSTM(HIDDEN, return_sequences=True, return_state=True)
    return keras.Model([x, h, c], lstm(x, initial_state=[h, c]))


def masked() -> keras.Model:
    """tf2onnx finds no LSTM in it and leaves a Loop."""
    x = keras.Input((None, SIZE))
    return keras.Model(x, layers.LSTM(HIDDEN, return_sequences=True)(layers.Masking()(x)))


MODELS: dict[str, tuple[Callable[[], keras.Model], int]] = {
    "plain": (plain, 15),
    "stacked": (stacked, 9),
    "bidirectional": (bidirectional, 13),
    "backwards": (backwards, 11),
    "stateful": (stateful, 18),
    "masked": (masked, 15),
}
"""Each with the opset that it is written for."""


def make(name: str, build: Callable[[], keras.Model], opset: int, seed: int) -> None:
    keras.utils.set_random_seed(seed)
    model = build()
    for weight in model.trainable_weights:  # biases too, which Keras starts from zeros and ones
        weight.assign(keras.random.normal(weight.shape, stddev=0.4))
    rng = np.random.default_rng(seed)
    shapes = [(BATCH, TIME, SIZE)] + [(BATCH, HIDDEN)] * (len(model.inputs) - 1)
    feeds = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    if name == "masked":
        feeds[0][1, 3:] = 0
    signature = [
        tf.TensorSpec([None, None, SIZE] if at == 0 else [None, HIDDEN], tf.float32, f"x{at}")
        for at in range(len(feeds))
    ]

    @tf.function(input_signature=signature)
    def call(*arguments: Any) -> Any:
        return model(list(arguments) if len(arguments) > 1 else arguments[0])

    results = call(*(tf.constant(feed) for feed in feeds))
    results = results if isinstance(results, (list, tuple)) else [results]
    path = FOLDER / f"{name}.onnx"
    made, _ = tf2onnx.convert.from_function(call, input_signature=signature, opset=opset, output_path=str(path))
    arrays = {f"in:{item.name}": feed for item, feed in zip(made.graph.input, feeds, strict=True)}
    arrays |= {f"out:{item.name}": result.numpy() for item, result in zip(made.graph.output, results, strict=True)}
    np.savez(path.with_suffix(".npz"), **arrays)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for seed, (name, (build, opset)) in enumerate(MODELS.items()):
        make(name, build, opset, seed)
