from __future__ import annotations

from typing import Any

import numpy as np

from edgebm.data.batch import Feeds
from edgebm.data.evaluation import resolve_evaluation
from edgebm.data.samples import open_samples
from edgebm.search.judge import EvaluationJudge
from edgebm.spec import TensorSpec


def test_a_program_tells_how_many_calls_it_made() -> None:
    samples = open_samples(np.ones((3, 2), np.float32), (TensorSpec("x", "float32", (1, 2)),))

    def run(feeds: Feeds) -> Feeds:
        return {"y": feeds["x"]}

    def program(run: Any) -> float:
        return float(sum(run(feeds)["y"].sum() for feeds in samples.feeds()))

    seen: list[tuple[int, int]] = []
    judge = EvaluationJudge(resolve_evaluation(program), run, samples, None)
    score = judge.score(run, lambda done, total: seen.append((done, total)))
    assert score.value == 6.0
    assert seen == [(1, 0), (2, 0), (3, 0), (1, 1)]
