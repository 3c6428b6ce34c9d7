"""Models that Keras and TensorFlow make here and now; skipped where they are not installed.

CI does not install them: TensorFlow takes more than 600 MB. CONTRIBUTING.md says how to run this.
What can be tested without them is in `test_keras_graphs.py` and `test_keras_file.py`.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections import Counter

import numpy as np
import pytest

if any(importlib.util.find_spec(name) is None for name in ("keras", "tensorflow", "tf2onnx")):
    pytest.skip("needs keras, tensorflow and tf2onnx", allow_module_level=True)

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import keras
    import tensorflow as tf

from edgebm.errors import ModelError, UnsupportedModel
from edgebm.importers import import_model

pytestmark = pytest.mark.filterwarnings("ignore")
L = keras.layers


def small() -> keras.Model:
    return keras.Sequential([keras.Input((None, 5), name="x"), L.GRU(4), L.Dense(3, name="y")])


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.flat, self.dense = L.Conv2D(4, 3), L.Flatten(), L.Dense(2)

    def call(self, x: object) -> object:
        return self.dense(self.flat(self.conv(x)))


def ops(source: object) -> Counter[str]:
    return Counter(node.op_type for node in import_model(source).nodes())


def test_live_file_and_saved_model_are_one_graph(tmp_path):
    model = small()
    model.save(tmp_path / "m.keras")
    model.export(tmp_path / "saved", verbose=False)
    live, file, folder = (ops(s) for s in (model, tmp_path / "m.keras", tmp_path / "saved"))
    assert live["GRU"] == 1
    assert live == file == folder


def test_the_face_has_the_users_names():
    graph = import_model(small()).graph.graph
    assert [value.name for value in (*graph.inputs, *graph.outputs)] == ["x", "y"]
    a, b = (keras.Input((4,), name=label) for label in "ab")
    heads = {"s": L.Dense(2)(L.Concatenate()([b, a])), "t": L.Dense(1)(a)}
    graph = import_model(keras.Model({"a": a, "b": b}, heads)).graph.graph
    assert [value.name for value in graph.inputs] == ["a", "b"]
    assert len(graph.outputs) == 2


def test_a_subclassed_model_comes_called_or_with_examples():
    x = np.zeros((1, 8, 8, 3), np.float32)
    with pytest.raises(ModelError, match="was never called"):
        import_model(Subclassed())
    model = Subclassed()
    model(x)
    assert ops(model)["Conv"] == ops((Subclassed(), (x,)))["Conv"] == 1


def test_layers_that_keep_their_state_are_refused():
    layer = L.LSTM(3, stateful=True)
    with pytest.raises(UnsupportedModel, match=f"state between calls: {layer.name}"):
        import_model(keras.Sequential([keras.Input((5, 4), batch_size=1), layer]))


def test_signatures_of_a_saved_model(tmp_path):
    class Two(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 3])])
        def double(self, x):
            return 2 * x

        @tf.function(input_signature=[tf.TensorSpec([None, 3])])
        def triple(self, x):
            return 3 * x

    two = Two()
    both = {"double": two.double, "triple": two.triple}
    tf.saved_model.save(two, tmp_path / "both", signatures=both)
    with pytest.raises(UnsupportedModel, match="several signatures.*: double, triple"):
        import_model(tmp_path / "both")
    tf.saved_model.save(two, tmp_path / "one", signatures={"triple": two.triple})
    assert ops(tmp_path / "one") == {"Mul": 1}
    tf.saved_model.save(tf.Module(), tmp_path / "none")
    with pytest.raises(UnsupportedModel, match="no serving signature"):
        import_model(tmp_path / "none")
    (tmp_path / "one" / "variables" / "variables.index").unlink()
    with pytest.raises(ModelError, match="cannot load the SavedModel"):
        import_model(tmp_path / "one")
