from __future__ import annotations

import numpy as np
import pytest
from graphs import face, outputs, parse, random_model

from edgebm.data.samples import Samples, open_samples
from edgebm.errors import DataError, UsageError
from edgebm.ir.model import Model
from edgebm.search.made_up import made_up_samples
from edgebm.spec import Shapes


def encoder() -> Model:
    return random_model(
        """g (int64[batch,tokens] ids, int64[batch,tokens] attention_mask, int64[batch] kind)
            => (float[batch,tokens,8] y, int64[batch,tokens] m, int64[batch] k) {
          y = Gather(table, ids)
          m = Identity(attention_mask)
          k = Identity(kind)
        }""",
        table=(50, 8),
    )


def made(model: Model, seed: int = 0, like: Shapes | None = None, **shapes: object) -> Samples:
    return made_up_samples(model, face(model), shapes, like, seed)  # type: ignore[arg-type]


def test_each_input_gets_what_the_model_takes() -> None:
    model = encoder()
    samples = made(model, ids=[(1, 6)])
    assert len(samples) == 8
    rows = list(samples.feeds())
    ids = np.concatenate([feeds["ids"] for feeds in rows])
    assert ids.dtype == np.int64
    assert ids.min() >= 0
    assert ids.max() < 50
    assert len(np.unique(ids)) > 10, "row numbers of the whole table"
    for feeds in rows:
        assert feeds["ids"].shape == feeds["attention_mask"].shape == (1, 6)
        assert (feeds["attention_mask"] == 1).all()
        assert (feeds["kind"] == 0).all()
        assert outputs(model, feeds)["y"].shape == (1, 6, 8)


def test_they_depend_on_the_seed_alone() -> None:
    model = random_model("g (float[1,6] x) => (float[1,4] y) { y = MatMul(x, w) }", w=(6, 4))
    assert made(model).digest() == made(model).digest() != made(model, seed=1).digest()


def test_numbers_are_normal_whatever_the_float_type() -> None:
    model = parse("g (float16[1,4000] x) => (float16[1,4000] y) { y = Identity(x) }")
    (first, *_) = made(model).feeds()
    assert first["x"].dtype == np.float16
    assert abs(first["x"].astype(np.float64).std() - 1) < 0.1


def test_a_free_first_axis_is_the_batch() -> None:
    model = random_model("g (float[batch,3,8,8] x) => (float[batch,3,8,8] y) { y = Relu(x) }")
    assert next(iter(made(model).feeds()))["x"].shape == (1, 3, 8, 8)


def test_other_free_axes_have_to_be_told_and_the_hint_says_how() -> None:
    with pytest.raises(
        DataError, match=r"sizes of free axes .* ids: int64\[batch, tokens\]"
    ) as caught:
        made(encoder())
    assert "--shapes ids:1x64" in caught.value.hint
    assert "kind" not in str(caught.value)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="does not fit"):
        made(encoder(), ids=[(1, 6, 2)])


def test_samples_to_evaluate_on_settle_the_shapes() -> None:
    model = encoder()
    given = {
        "ids": np.ones((4, 9), np.int64),
        "attention_mask": np.ones((4, 9), np.int64),
        "kind": np.ones(4, np.int64),
    }
    first = next(iter(open_samples(given, face(model).inputs).feeds()))
    like = {key: array.shape for key, array in first.items()}
    assert next(iter(made(model, like=like).feeds()))["ids"].shape == (1, 9)
