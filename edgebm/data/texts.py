"""Lines of text to token ids, with the tokenizer that lies in the model's folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from edgebm.data.batch import Batch
from edgebm.data.columns import ArrayColumn
from edgebm.data.files import refuse_stand_in
from edgebm.data.model_folder import CONFIG, TOKENIZER, split_part
from edgebm.errors import DataError
from edgebm.spec import TensorSpec

TEXT_SUFFIXES = frozenset({".txt", ".jsonl"})
_FIELDS = {
    "input_ids": "ids",
    "attention_mask": "attention_mask",
    "token_type_ids": "type_ids",
}
_PADDINGS = ("[PAD]", "<pad>")
# Their first token has the position behind that of padding: so many fewer places are left.
_BEHIND_PADDING = frozenset(
    {
        "camembert", "data2vec-text", "ibert", "mpnet", "roberta", "roberta-prelayernorm",
        "xlm-roberta", "xlm-roberta-xl", "xmod",
    }
)  # fmt: skip
_FORM = (
    'a line is {"text": "..."}, with "text_pair" for pairs and "label", a number, for all or none'
)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class Texts:
    """Every text becomes `length` tokens: cut off there, or filled up with padding.

    `tokenizer` is a folder with a tokenizer.json, or that file; "" is the model's own folder.
    """

    length: Annotated[int, Field(gt=0)] = 128
    tokenizer: str = ""

    def beside(self, model: str) -> Texts:
        """The same with the tokenizer beside `model`, where none is named."""
        return self if self.tokenizer else replace(self, tokenizer=str(split_part(model)[0]))

    def batch(self, path: Path, inputs: Sequence[TensorSpec], where: str) -> Batch:
        """The texts of a `.txt` file, one a line, or of a `.jsonl` file, with labels.

        Raises:
            DataError: there is no tokenizer, a line is of another form, or the model takes
                something else than token ids, or fewer of them.
        """
        others = [str(spec) for spec in inputs if spec.name not in _FIELDS]
        if others:
            raise DataError(
                f"{path} holds texts, and the model takes {', '.join(others)}",
                hint=f"texts are read for inputs called {', '.join(_FIELDS)}; give .npz samples",
            )
        refuse_stand_in(path)
        tokenizer = self._tokenizer(path)
        texts, labels = _lines(path) if path.suffix == ".txt" else _records(path)
        encoded = tokenizer.encode_batch(texts)
        columns = {
            spec.name: ArrayColumn(
                np.array([getattr(each, _FIELDS[spec.name]) for each in encoded], np.int32)
            )
            for spec in inputs
        }
        return Batch(columns, None if labels is None else ArrayColumn(labels), where)

    def _tokenizer(self, path: Path) -> Any:
        place = Path(self.tokenizer)
        file = place / TOKENIZER if place.is_dir() else place
        if file.name != TOKENIZER or not file.is_file():
            raise DataError(
                f"{path} holds texts, and there is no {TOKENIZER} in {place}",
                hint="AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes it "
                "beside the model; or name its folder in the recipe: text: {tokenizer: FOLDER}",
            )
        try:
            from tokenizers import Tokenizer
        except ImportError as cause:
            raise DataError(
                f"reading {path} needs tokenizers, which is not installed",
                hint="pip install tokenizers",
            ) from cause
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as cause:
            raise DataError(
                f"{file} is no readable tokenizer: {cause}", hint="copy it again"
            ) from cause
        config = _config(file)
        self._check_places(path, file, config)
        tokenizer.enable_truncation(self.length)
        known = tokenizer.padding or {}
        kept = {key: known[key] for key in ("direction", "pad_type_id") if key in known}
        number, token = _padding(tokenizer, file, known, config)
        tokenizer.enable_padding(length=self.length, pad_id=number, pad_token=token, **kept)
        return tokenizer

    def _check_places(self, path: Path, file: Path, config: Mapping[str, Any]) -> None:
        """Refuse longer texts than the model has positions for: runtimes do not, and may crash."""
        places = config.get("max_position_embeddings")
        if not isinstance(places, int):
            return
        if config.get("model_type") in _BEHIND_PADDING:
            places -= int(config.get("pad_token_id") or 0) + 1
        if self.length > places:
            raise DataError(
                f"{path}: texts become {self.length} tokens, and the model has positions for "
                f"{places} ({file.parent / CONFIG}, max_position_embeddings)",
                hint=f"name a length in a recipe of your own: text: {{length: {places}}}",
            )


def _config(file: Path) -> dict[str, Any]:
    """The model's configuration beside its tokenizer; empty where there is none."""
    place = file.parent / CONFIG
    if not place.is_file():
        return {}
    found: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    return found


def _padding(
    tokenizer: Any, file: Path, known: dict[str, Any], config: Mapping[str, Any]
) -> tuple[int, str]:
    """Number and text of the token that fills up; the model's configuration knows it best."""
    number = config.get("pad_token_id")
    if number is None:
        names = [known.get("pad_token"), *_PADDINGS]
        found = (tokenizer.token_to_id(name) for name in names if name)
        number = next((each for each in found if each is not None), None)
    token = None if number is None else tokenizer.id_to_token(number)
    if number is None or token is None:
        raise DataError(
            f"{file} names no token for padding",
            hint=f'add "pad_token_id" to the {CONFIG} beside it',
        )
    return int(number), str(token)


def _lines(path: Path) -> tuple[list[Any], None]:
    texts = [line for line in _read(path).splitlines() if line.strip()]
    if not texts:
        raise DataError(f"{path} has blank lines only", hint="write one text a line")
    return texts, None


def _records(path: Path) -> tuple[list[Any], Any]:
    texts, labels = [], []
    for where, record in _parsed(path):
        text, pair, label = (record.get(key) for key in ("text", "text_pair", "label"))
        if not isinstance(text, str) or not isinstance(pair, str | None):
            raise DataError(f"{where} has no text", hint=_FORM)
        if label is not None and not isinstance(label, int | float):
            raise DataError(f"{where}: the label {label!r} is no number", hint=_FORM)
        texts.append(text if pair is None else (text, pair))
        labels.append(label)
    counts = {sum(each is None for each in labels), sum(isinstance(t, str) for t in texts)}
    if not texts or counts - {0, len(texts)}:
        what = "some lines have a label or a pair and others none" if texts else "no line"
        raise DataError(f"{path}: {what}", hint=_FORM)
    return texts, None if labels[0] is None else np.array(labels)


def _parsed(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(_read(path).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as cause:
            raise DataError(f"{where} is no JSON: {cause}", hint=_FORM) from cause
        if not isinstance(record, dict):
            raise DataError(f"{where} is no JSON object", hint=_FORM)
        yield where, record


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as cause:
        raise DataError(f"{path} is no UTF-8 text: {cause}", hint="write it as UTF-8") from cause
