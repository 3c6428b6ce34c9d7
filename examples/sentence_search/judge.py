"""Scores a candidate on the pairs of dev.jsonl: `edgebm compress --eval judge.py:spearman_dev`.

SEARCH_FOLDER is the folder that train.py wrote; compress.sh sets it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # edgebm reads this file by its path
from pairs import load_pairs, spearman
from texts import TextModel

from edgebm.errors import DataError
from edgebm.spec import TensorSpec


def spearman_dev(run: Callable[[Any], Any]) -> float:
    """Spearman's rank correlation times 100, each sentence in its bucket as on the device.

    Raises:
        DataError: SEARCH_FOLDER names no folder that train.py wrote.
    """
    folder = Path(os.environ.get("SEARCH_FOLDER", ""))
    pairs = load_pairs(folder / "dev.jsonl")
    try:
        types = json.loads((folder / "model" / "config.json").read_text())["type_vocab_size"]
    except (OSError, ValueError, KeyError) as cause:
        raise DataError(
            f"{folder}/model/config.json cannot be read: {cause!r}",
            hint="set SEARCH_FOLDER to the folder that train.py wrote",
        ) from cause
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if types > 1 else [])]
    candidate = SimpleNamespace(
        inputs=[TensorSpec(name, "int64", (1, "tokens")) for name in names],
        outputs=[TensorSpec("sentence_embedding", "float32", (1, "width"))],
        run=run,
    )
    model = TextModel(candidate, folder / "model" / "tokenizer.json")
    (first, _), (second, _) = model.run(pairs.first), model.run(pairs.second)
    return spearman(first, second, pairs.scores)


spearman_dev.unit = "points"  # type: ignore[attr-defined]
