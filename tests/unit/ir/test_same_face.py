from __future__ import annotations

import numpy as np
import pytest
from graphs import outputs, random_model

from edgebm.errors import UsageError
from edgebm.ir.check import verify
from edgebm.ir.face import face
from edgebm.ir.same_face import take_face

TEACHER = """g (float[N,4] x, int64[N,3] ids) => (float[N,2] y, float[N,3] z) {
    y = MatMul(x, w)
    e = Gather(table, ids)
    z = ReduceSum<keepdims=0>(e, last) }"""


def made(text: str):
    text = text.replace(") {", ") <int64[1] last = {2}> {", 1)
    return random_model(text, w=(4, 2), table=(9, 5))


def renamed(**names: str) -> str:
    text = TEACHER
    for old, new in names.items():
        for before, after in (("]", ","), ("]", ")"), ("(", ","), (", ", ")"), ("    ", " =")):
            text = text.replace(f"{before} {old}{after}", f"{before} {new}{after}")
            text = text.replace(f"{before}{old}{after}", f"{before}{new}{after}")
    return text


def test_an_equal_face_is_left_as_it_is() -> None:
    student = made(TEACHER)
    before = student.to_bytes()
    assert take_face(student, made(TEACHER)) == []
    assert student.to_bytes() == before


def test_other_names_are_matched_by_order() -> None:
    student = made(renamed(x="image", y="logits", e="y"))
    x, ids = np.ones((1, 4), "f4"), np.ones((1, 3), "i8")
    want = outputs(student, {"image": x, "ids": ids})
    notes = take_face(student, made(TEACHER))
    verify(student)
    assert face(student) == face(made(TEACHER))
    assert notes == [
        "the student's input image stands for the teacher's x",
        "the student's output logits stands for the teacher's y",
    ]
    got = outputs(student, {"x": x, "ids": ids})
    np.testing.assert_array_equal(got["y"], want["logits"])
    np.testing.assert_array_equal(got["z"], want["z"])


def test_names_may_change_places_with_weights() -> None:
    student = random_model("g (float[N,4] q) => (float[N,2] y) { y = MatMul(q, x) }", x=(4, 2))
    teacher = random_model("g (float[N,4] x) => (float[N,2] y) { y = MatMul(x, w) }", w=(4, 2))
    take_face(student, teacher)
    verify(student)
    assert outputs(student, {"x": np.ones((1, 4), "f4")})["y"].shape == (1, 2)


def test_all_differences_at_once() -> None:
    other = TEACHER.replace("float[N,4] x", "float16[N,4] x").replace("int64[N,3]", "int64[1,3]")
    other = other.replace("float[N,2] y", "float[N,5] y")
    other = other.replace("MatMul(x, w)", "Cast<to=1>(x)").replace("Cast<to=1>(x)", "MatMul(c, u)")
    other = other.replace("    y =", "    c = Cast<to=1>(x)\n    y =")
    student = random_model(
        other.replace(") {", ") <int64[1] last = {2}> {", 1), u=(4, 5), table=(9, 5)
    )
    with pytest.raises(UsageError) as caught:
        take_face(student, made(TEACHER))
    assert len(caught.value.details["faults"]) == 3
    for fault in (
        "input x: float16[N, 4] where the teacher has x: float32[N, 4]",
        "input ids: int64[1, 3] where the teacher has ids: int64[N, 3]",
        "output y: float32[N, 5] where the teacher has y: float32[N, 2]",
    ):
        assert fault in str(caught.value)


def test_numbers_and_order_of_outputs() -> None:
    fewer = TEACHER.replace(", float[N,3] z", "")
    with pytest.raises(UsageError, match=r"1 outputs \(y\), where the teacher has 2 \(y, z\)"):
        take_face(made(fewer), made(TEACHER))
    turned = TEACHER.replace("float[N,2] y, float[N,3] z", "float[N,3] z, float[N,2] y")
    with pytest.raises(UsageError, match="outputs in the order z, y, not y, z"):
        take_face(made(turned), made(TEACHER))


def test_a_free_axis_of_the_student_fits_a_fixed_one() -> None:
    teacher = made(TEACHER.replace("N", "1"))
    assert take_face(made(TEACHER), teacher) == []
