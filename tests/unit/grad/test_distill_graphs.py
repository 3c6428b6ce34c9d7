from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import students
from graphs import Listed, random_model

torch = pytest.importorskip("torch", reason="torch is not installed")

from edgebm.errors import DataError, TrainingDiverged, UsageError  # noqa: E402
from edgebm.exec.collect import float_run  # noqa: E402
from edgebm.grad.distill import Conditions, distill  # noqa: E402
from edgebm.grad.lesson import output_kind  # noqa: E402
from edgebm.grad.schedule import Schedule  # noqa: E402
from edgebm.grad.teaching import Teaching, Weights  # noqa: E402
from edgebm.ir.edit import const  # noqa: E402

torch.set_num_threads(1)
FAST = Teaching(Schedule(120, 0.01, check_every="auto"), batch=32)
FAMILIES = {
    "cnn": (students.cnn(8, 1), students.cnn(24, 0), students.digits),
    "gru": (students.gru(6, 1), students.gru(16, 0), students.signals),
    "ragged gru": (students.gru(6, 1), students.gru(16, 0), lambda n: students.signals(n, (9, 6))),
    "bert": (students.bert(8, 1), students.bert(32, 0), students.sentences),
}


class Labelled(Listed):
    def __init__(self, feeds, labels) -> None:
        super().__init__(feeds)
        self.labels = labels


def error(student, teacher, samples: Listed) -> float:
    """Noise over signal of the outputs, on ONNX Runtime."""
    mine, theirs = float_run(student), float_run(teacher)
    noise = power = 0.0
    for feeds in samples.feeds():
        got, want = mine(feeds)["y"], theirs(feeds)["y"]
        noise += float(np.square(got - want).sum())
        power += float(np.square(want).sum())
    return noise / power


@pytest.mark.parametrize("family", FAMILIES)
def test_a_smaller_student_comes_near_its_teacher(family: str) -> None:
    student, teacher, samples = FAMILIES[family]
    student, fresh = student.clone(), list(samples(400).feeds())[200:230]
    before = error(student, teacher, Listed(fresh))
    kept = teacher.to_bytes()
    found = distill(student, teacher, samples(200), FAST)
    assert found.fitted.ended == "complete"
    assert found.fitted.best < 0.5 * found.fitted.before
    assert error(student, teacher, Listed(fresh)) < 0.5 * before
    assert teacher.to_bytes() == kept
    assert found.left_out == ()
    if family == "cnn":
        assert {"w1", "s1", "m1", "v1", "b4"} <= set(found.changed)
    if family == "bert":
        assert "table" not in found.changed
        assert "of the positions are padding, as input 'mask' says" in found.notes[1]


def test_attention_and_relations_are_learned_too() -> None:
    student, teacher, samples = FAMILIES["bert"]
    student = student.clone()
    teaching = replace(FAST, weights=Weights(0, 0, attention=1, relations=1))
    found = distill(student, teacher, samples(200), teaching)
    assert found.fitted.best < 0.5 * found.fitted.before
    assert {"wq", "wk", "wv"} <= set(found.changed)
    assert "wd" not in found.changed  # behind the attention


def test_labels_are_learned_where_the_recipe_asks_for_it() -> None:
    x = np.random.default_rng(0).normal(size=(300, 1, 1, 8, 8)).astype("f4")
    labels = (x.mean((1, 2, 3, 4)) > 0).astype(np.int64)
    samples = Labelled([{"x": each} for each in x], labels)
    student = students.cnn(8, 1)
    teaching = replace(FAST, weights=Weights(0, 0, labels=1))
    distill(student, students.cnn(24, 0), samples, teaching)
    run = float_run(student)
    right = [int(run(feeds)["y"].argmax()) == label for feeds, label in
             zip(samples.feeds(), labels, strict=True)]  # fmt: skip
    assert np.mean(right) > 0.9
    with pytest.raises(DataError, match="the samples have no labels"):
        distill(student, students.cnn(24, 0), students.digits(30), teaching)
    wrong = Labelled([{"x": each} for each in x], np.zeros((300, 7)))
    with pytest.raises(DataError, match=r"labels \[64, 7\] fit no output: y \[64, 10\]"):
        distill(student, students.cnn(24, 0), wrong, teaching)


def test_a_graph_for_one_sample_is_trained_one_at_a_time() -> None:
    text = """g (float[1,6] x) => (float[1,3] y) <int64[2] flat = {1,6}> {
        r = Reshape(x, flat)
        h = MatMul(r, w)
        t = Tanh(h)
        y = MatMul(t, u) }"""
    shapes = {"w": (6, 8), "u": (8, 3)}
    x = np.random.default_rng(0).normal(size=(60, 1, 6)).astype("f4")
    samples = Listed([{"x": each} for each in x])
    one, many = (
        random_model(text, 1, **shapes),
        random_model(text.replace("{1,6}", "{-1,6}"), 1, **shapes),
    )
    teacher = random_model(text, 0, **shapes)
    teaching = Teaching(Schedule(20, 0.01), batch=8)
    notes = distill(one, teacher, samples, teaching).notes
    assert "samples were computed one at a time" in notes[1]
    other = distill(
        many, random_model(text.replace("{1,6}", "{-1,6}"), 0, **shapes), samples, teaching
    )
    assert not any("one at a time" in note for note in other.notes)
    for label in shapes:  # gradients of one at a time add up to those of a batch
        mine, theirs = (const(m.graph.graph.initializers[label]) for m in (one, many))
        np.testing.assert_allclose(mine, theirs, atol=2e-5)


def test_features_by_name_and_by_pairs() -> None:
    student, teacher, samples = FAMILIES["cnn"]
    for names in (("r1", "c2=n2"), ("r2=r2",)):
        found = distill(student.clone(), teacher, samples(40), replace(FAST, features=names))
        assert found.left_out == ()
    with pytest.raises(UsageError) as caught:
        distill(student.clone(), teacher, samples(40), replace(FAST, features=("r9", "r1=q")))
    text = str(caught.value)
    for fault in ("'r9' is no float value of the teacher", "'q' is no float value of the student"):
        assert fault in text
    assert "r2, r3" in caught.value.hint


def test_places_that_do_not_fit_are_left_out_with_a_reason() -> None:
    student, teacher, samples = FAMILIES["cnn"]
    found = distill(student.clone(), teacher, samples(40), replace(FAST, features=("r1=f",)))
    ((place, reason),) = found.left_out
    assert place == "r1"
    assert reason == "it is [32, 8, 8, 8] in the teacher and [32, 8] in the student"


def test_outputs_of_other_sizes_are_refused() -> None:
    text = "g (float[N,4] x) => (float[N,K] y) { y = MatMul(x, w) }"
    x = Listed([{"x": np.ones((1, 4), "f4")}] * 8)
    with pytest.raises(UsageError, match=r"y is \[7, 3\] in the teacher and \[7, 2\] in the stu"):
        distill(random_model(text, w=(4, 2)), random_model(text, w=(4, 3)), x, FAST)


def test_a_loss_that_is_no_number() -> None:
    student, teacher, samples = FAMILIES["gru"]
    before = student.to_bytes()
    wild = replace(
        FAST, schedule=Schedule(50, 1e30, max_norm=math.inf, warmup=0.0, optimizer="sgd")
    )
    with pytest.raises(TrainingDiverged, match="the loss is no number after") as caught:
        distill(student, teacher, samples(60), wild)
    assert "a lower learning rate, such as 2.5e+29" in caught.value.hint
    assert caught.value.exit_code == 2
    assert student.to_bytes() == before


def test_time_is_planned_once_and_the_result_says_so() -> None:
    student, teacher, samples = FAMILIES["gru"]
    budget = Schedule(1_000_000, 0.01, check_every="auto", budget_s=0.5)
    found = distill(student.clone(), teacher, samples(60), replace(FAST, schedule=budget))
    assert found.fitted.ended == "complete"
    assert 1 <= found.fitted.steps == found.fitted.planned < 1_000_000
    assert "steps were planned, by the time that this machine takes" in found.notes[-1]


def test_epochs_are_steps() -> None:
    student, teacher, samples = FAMILIES["gru"]
    found = distill(student.clone(), teacher, samples(50), replace(FAST, epochs=2.5, batch=8))
    assert found.fitted.steps == round(2.5 * 40 / 8)


def test_bf16_comes_as_near() -> None:
    student, teacher, samples = FAMILIES["cnn"]
    found = [
        distill(
            student.clone(), teacher, samples(200), FAST, conditions=Conditions(precision=each)
        ).fitted.best
        for each in ("f32", "bf16")
    ]
    assert found[1] == pytest.approx(found[0], rel=0.2)


def test_one_sample_is_too_few() -> None:
    student, teacher, samples = FAMILIES["gru"]
    with pytest.raises(DataError, match="needs at least 2 samples, not 1"):
        distill(student, teacher, samples(1), FAST)


ROWS = torch.randn(16, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("values", "op_type", "want"),
    [
        (ROWS, "Gemm", ("both", -1)),
        (ROWS, "Tanh", ("values", -1)),
        (ROWS[:, :1], "Gemm", ("values", -1)),
        (ROWS[:, 0], "Gemm", ("values", -1)),
        (ROWS.softmax(-1), "Softmax", ("probabilities", -1)),
        (ROWS.reshape(2, 5, 8).softmax(1), "Softmax", ("probabilities", 1)),
        (ROWS / ROWS.norm(dim=-1, keepdim=True), "Div", ("embedding", -1)),
        (ROWS.reshape(2, 5, 2, 4), "Conv", ("values", 1)),
        (ROWS.reshape(2, 8, 5), "MatMul", ("both", -1)),
    ],
)
def test_what_an_output_is(values, op_type: str, want) -> None:
    assert output_kind(values, op_type) == want
    if want[0] == "both":
        assert output_kind(values, op_type, "embedding") == ("embedding", -1)
