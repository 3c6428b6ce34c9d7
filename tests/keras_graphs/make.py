"""Writes the graphs beside this file, as Keras 3 exports them, and what Keras answers.

    pip install -c constraints.txt 'edgebm[keras]' torch
    KERAS_BACKEND=tensorflow python tests/keras_graphs/make.py
    KERAS_BACKEND=torch python tests/keras_graphs/make.py

Made with Keras 3.15.1, TensorFlow 2.21.0, tf2onnx 1.17.0 and torch 2.13.0; weights are seeded.
"""

from pathlib import Path

import keras
import numpy as np
import onnx

HERE = Path(__file__).parent
L = keras.layers


def cnn() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((12, 12, 3), name="image"),
            L.Conv2D(4, 3, activation="relu"),
            L.MaxPooling2D(),
            L.Conv2D(6, 3, activation="relu"),
            L.Flatten(),
            L.Dense(8, activation="relu"),
            L.Dense(3, name="scores"),
        ]
    )


def residual() -> keras.Model:
    image = keras.Input((8, 8, 3), name="image")
    x = L.Conv2D(4, 3, strides=2, padding="same", use_bias=False)(L.Rescaling(1 / 255)(image))
    x = L.ReLU(6.0)(L.BatchNormalization()(x))
    y = L.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    y = L.Conv2D(4, 1)(L.ReLU()(L.BatchNormalization()(y)))
    x = L.Concatenate()([L.Add()([x, y]), L.Conv2D(2, 1, activation="swish")(x)])
    scores = L.Dense(3, activation="softmax", name="scores")(L.GlobalAveragePooling2D()(x))
    return keras.Model(image, scores)


def lstm() -> keras.Model:
    return _sequence(L.LSTM(4, return_sequences=True))


def gru() -> keras.Model:
    return _sequence(L.GRU(4, return_sequences=True))


def gru_before() -> keras.Model:
    return _sequence(L.GRU(4, reset_after=False))


def simple_rnn() -> keras.Model:
    return _sequence(L.SimpleRNN(4))


def bidirectional() -> keras.Model:
    return _sequence(L.Bidirectional(L.GRU(4, return_sequences=True)))


def masked() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((6,), dtype="int32", name="ids"),
            L.Embedding(9, 4, mask_zero=True),
            L.LSTM(3),
        ]
    )


def _sequence(layer: keras.Layer) -> keras.Model:
    scores = L.Dense(3, activation="softmax", name="scores")
    return keras.Sequential([keras.Input((None, 5), name="x"), layer, scores])


OF_TENSORFLOW = (cnn, residual, lstm, gru, gru_before, simple_rnn, bidirectional, masked)
OF_TORCH = (cnn, residual)


def main() -> None:
    backend = keras.backend.backend()
    for build in OF_TENSORFLOW if backend == "tensorflow" else OF_TORCH:
        rng = np.random.default_rng(0)
        model = build()
        for weight in model.weights:
            if weight.dtype == "float32":
                low = 0.2 if "variance" in weight.name else -0.5
                weight.assign(rng.uniform(low, 0.5, weight.shape))
        path = HERE / f"{backend}_{build.__name__}.onnx"
        spec = [
            keras.InputSpec(shape=(None, *t.shape[1:]), dtype=t.dtype, name=t.name)
            for t in model.inputs
        ]
        opset = {"opset_version": 18} if backend == "tensorflow" else {}
        model.export(str(path), format="onnx", verbose=False, input_signature=spec, **opset)
        if build is masked:
            continue
        shape = [7 if dim is None else dim for dim in model.inputs[0].shape[1:]]
        x = rng.normal(size=(2, *shape)).astype(np.float32)
        _write(path, x, keras.ops.convert_to_numpy(model(x)))


def _write(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    """The example lies in the file itself, as metadata: one file, and nothing to go stale."""
    model = onnx.load(path)
    for key, array in (("x", x), ("y", y)):
        text = onnx.numpy_helper.from_array(array).SerializeToString().hex()
        model.metadata_props.add(key=key, value=text)
    onnx.save(model, path)


if __name__ == "__main__":
    main()
