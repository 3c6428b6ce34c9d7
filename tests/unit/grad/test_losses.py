from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from edgebm.grad.losses import (  # noqa: E402
    attention_divergence,
    classification,
    cosine_distance,
    kl_divergence,
    logs,
    relations,
    relative_mse,
    sample_mean,
)


def test_relative_error_by_its_formula() -> None:
    want, got = torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 3.0]])
    assert float(relative_mse(got, want)) == pytest.approx(1 / 25)
    assert float(relative_mse(torch.ones(2), torch.zeros(2))) == 2.0
    assert float(relative_mse(got, want, power=0.25)) == pytest.approx(0.5 / 0.25)


def test_kl_by_its_formula() -> None:
    want, got = torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 3.0]])
    assert float(kl_divergence(want, want)) == 0.0
    p, q = np.exp([3.0, 4.0]) / np.exp([3.0, 4.0]).sum(), np.array([0.5, 0.5])
    assert float(kl_divergence(got, want)) == pytest.approx(float((p * np.log(p / q)).sum()))
    p = np.exp([1.5, 2.0]) / np.exp([1.5, 2.0]).sum()
    expected = 4 * float((p * np.log(p / q)).sum())
    assert float(kl_divergence(got, want, 2.0)) == pytest.approx(expected, rel=1e-5)
    turned = kl_divergence(got.reshape(1, 2, 1), want.reshape(1, 2, 1), axis=1)
    assert float(turned) == pytest.approx(float(kl_divergence(got, want)))
    back = logs(torch.softmax(want, -1))
    assert torch.allclose(torch.softmax(back, -1), torch.softmax(want, -1))


def test_cosine_knows_no_length() -> None:
    a, b = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[5.0, 0.0], [3.0, 0.0]])
    assert float(cosine_distance(a, b)) == pytest.approx(0.5)


def test_labels_of_every_rank() -> None:
    logits = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[0, 2, 1, 1, 0]] * 4)
    first = float(classification(logits, labels))
    assert float(classification(logits.movedim(1, -1), labels)) == pytest.approx(first)
    flat = classification(logits[:, :, 0], labels[:, 0])
    assert float(flat) == pytest.approx(
        float(-torch.log_softmax(logits[:, :, 0], 1)[torch.arange(4), labels[:, 0]].mean())
    )
    none = torch.full_like(labels, -1)
    assert float(classification(logits, none)) == 0.0


def test_positions_that_do_not_count() -> None:
    each = torch.tensor([[[1.0], [3.0], [100.0]], [[7.0], [50.0], [50.0]]])
    inside = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert float(sample_mean(each, inside)) == pytest.approx((2 + 7) / 2)


def test_relations_of_fewer_heads() -> None:
    values = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    same = relations(values, 4)
    assert same.shape == (2, 4, 5, 5)
    wanted = torch.softmax(values @ values.transpose(-1, -2) / 6**0.5, -1)
    assert torch.allclose(same, wanted)
    fewer = relations(values, 2)
    assert fewer.shape == (2, 2, 5, 5)
    assert torch.allclose(fewer.sum(-1), torch.ones(2, 2, 5))
    assert float(attention_divergence(same, same)) == 0.0
    # Maps of other numbers of heads are compared by their means.
    assert float(attention_divergence(same.mean(1, keepdim=True), same)) == pytest.approx(0.0)


@pytest.mark.parametrize("loss", [kl_divergence, cosine_distance])
def test_the_mean_of_equal_parts_is_the_whole(loss) -> None:
    got, want = torch.randn(2, 8, 3, generator=torch.Generator().manual_seed(0)).unbind(0)
    whole = float(loss(got, want))
    parts = [float(loss(g, w)) for g, w in zip(got.split(2), want.split(2), strict=True)]
    assert np.mean(parts) == pytest.approx(whole, rel=1e-5)
