"""Preprocessing in the graph: every runtime gives the numbers of the formula in the docs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from camera_formula import formula
from graphs import Array, Listed, face, outputs, parse, quantized, sqnr_db
from tiny_models import cnn

from edgebm.backends.dialects import cpu_dialects
from edgebm.backends.tensorrt.dialect import tensorrt_dialects
from edgebm.data.preprocess import Preprocess
from edgebm.ir.model import Model
from edgebm.recipe import Audio, Recipe
from edgebm.search.build import build_float
from edgebm.search.candidates import Candidate
from edgebm.search.front import put_in_front
from edgebm.search.runner import Runner
from edgebm.spec import EngineConfig

RUNTIMES = ("onnxruntime", "openvino")
RNG = np.random.default_rng(0)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def recipe(how: Preprocess | None = None, audio: Audio | None = None) -> Recipe:
    return Recipe(version=1, steps=(), preprocess=how, audio=audio)


def image(**keys: Any) -> Preprocess:
    return Preprocess(**{"size": (12, 16), "mean": MEAN, "std": STD, "in_graph": True, **keys})


def answers(model: Model, feeds: dict[str, Array], runtime: str) -> dict[str, Array]:
    candidate = Candidate(build_float(model, runtime), EngineConfig())
    with Runner(candidate, face(model)) as runner:
        return runner.run(feeds)


CASES = {
    "as large": image(),
    "stretched": image(source=(7, 9)),
    "shrunk": image(source=(25, 31)),
    "shrunk much": image(source=(120, 160)),
    "one axis only": image(source=(12, 48)),
    "cut out": image(source=(40, 50), crop=True),
    "cut out, not resized": image(source=(14, 30), crop=True),
    "cut out of what is small": image(source=(6, 40), crop=True),
    "from BGR, as large": image(source_color="bgr"),
    "from BGR, shrunk much": image(source=(120, 160), source_color="bgr"),
    "from BGR": image(source=(25, 31), source_color="bgr"),
    "to BGR": image(color="bgr", source_color="rgb"),
    "BGR all along": image(color="bgr", source_color="bgr"),
    "gray": image(color="gray", mean=(0.5,), std=(0.25,), source=(25, 31)),
    "channels last": image(layout="NHWC", source=(25, 31), source_color="bgr"),
    "divided only": image(mean=(0.0,), std=(1.0,)),
}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("batch", ["1", "n"])
@pytest.mark.parametrize("case", CASES)
def test_every_runtime_gives_the_numbers_of_the_formula(
    case: str, batch: str, runtime: str
) -> None:
    how = CASES[case]
    shape = ",".join(map(str, (batch, *how.shape)))
    model = parse(f"g (float[{shape}] x) => (float[{shape}] y) {{ y = Neg(x) }}")
    made = put_in_front(model, recipe(how)).model
    count = 1 if batch == "1" else 3
    frames = np.random.default_rng(1).integers(
        0, 256, (count, *how.frames, how.channels), np.uint8
    )
    got = answers(made, {"x": frames}, runtime)["y"]
    wanted = -formula(frames, how)
    assert got.shape == wanted.shape
    # Positions in a frame are float32 too: a neighbour may count for 2e-6 more or less.
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_int16_samples_become_floats_from_minus_one_to_one(runtime: str) -> None:
    model = parse("g (float[1,n] x) => (float[1,n] y) { y = Neg(x) }")
    made = put_in_front(model, recipe(audio=Audio())).model
    x = np.array([[-32768, -1, 0, 1, 32767, *range(-9000, 9000, 171)]], np.int16)
    np.testing.assert_array_equal(answers(made, {"x": x}, runtime)["y"], x / np.float32(-32768))


HOW = Preprocess(size=(16, 16), mean=MEAN, std=STD, in_graph=True, source=(24, 40))
FRAMES = RNG.integers(0, 256, (12, 1, 24, 40, 3), np.uint8)


@pytest.mark.parametrize("how", [HOW, replace(HOW, source=None, mean=(0.0,), std=(1.0,))])
def test_both_runtimes_agree_on_a_model_behind_it(how: Preprocess) -> None:
    made = put_in_front(cnn(), recipe(how)).model
    frames = FRAMES[0] if how.source else FRAMES[0, :, :16, :16]
    one, other = (answers(made, {"image": frames}, runtime)["logits"] for runtime in RUNTIMES)
    assert sqnr_db(one, other) > 100
    behind = outputs(cnn(), {"image": formula(frames, how).astype(np.float32)})["logits"]
    assert sqnr_db(behind, one) > 100


@pytest.mark.parametrize(
    "dialect",
    [*(d for runtime in RUNTIMES for d in cpu_dialects(runtime)), *tensorrt_dialects()],
    ids=lambda d: d.name,
)
def test_the_first_layer_is_still_quantized_and_what_is_in_front_stays_float(dialect: Any) -> None:
    made = put_in_front(cnn(), recipe(HOW)).model
    calibration = Listed([{"image": frame} for frame in FRAMES])
    lowered, plan = quantized(made, dialect, calibration=calibration)
    bare = quantized(cnn(), dialect)[1]
    assert plan.integer_nodes == bare.integer_nodes
    # Integers begin where the floats of the front end: nothing before is rounded, or rounded back.
    front = {v.name for label, v in plan.points.items() if label.startswith("image.")}
    assert front == {"image.image" if dialect.runtime == "tensorrt" else "image.shifted"}
    want = outputs(made, {"image": FRAMES[0]})["logits"]
    assert sqnr_db(want, outputs(lowered, {"image": FRAMES[0]})["logits"]) > 15
