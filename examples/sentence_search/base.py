"""What training begins with: a local BERT-class folder, or a small one made from nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from tokenizers.trainers import WordPieceTrainer
from transformers import AutoConfig, AutoModel, BertConfig, PreTrainedTokenizerFast

from edgebm.errors import EdgebmError, ModelError

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
LONGEST = 64  # tokens: what training cuts at, and the device's longest bucket
_MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_TINY: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def check(folder: Path) -> None:
    """Look for what an encoder's folder needs.

    Raises:
        ModelError: it has no weights, no configuration or no tokenizer, or pools otherwise than
            by the mean.
    """
    missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in WEIGHTS):
        missing.append(" or ".join(WEIGHTS))
    if missing:
        raise ModelError(
            f"{folder} has no {', no '.join(missing)}",
            hint="give the whole folder of a BERT-class model; where only tokenizer.json is "
            "missing, AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes it",
        )
    pooling = folder / "1_Pooling" / "config.json"
    if pooling.is_file() and not json.loads(pooling.read_text()).get("pooling_mode_mean_tokens"):
        raise ModelError(
            f"{pooling} asks for something else than the mean over the tokens",
            hint="train.py knows the mean only; begin with an encoder that was trained with it",
        )


def tokenizer_of(texts: Sequence[str], vocabulary: int = 2000) -> Tokenizer:
    """A WordPiece tokenizer as BERT's, trained on `texts`."""
    made = Tokenizer(WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = WordPieceTrainer(
        vocab_size=vocabulary, special_tokens=_MARKS, show_progress=False, min_frequency=2
    )
    made.train_from_iterator(texts, trainer)
    marks = [(mark, made.token_to_id(mark)) for mark in ("[SEP]", "[CLS]")]
    made.post_processor = processors.BertProcessing(*marks)
    return made


def begin(
    folder: Path | None, texts: Sequence[str], kind: Any = AutoModel, **settings: Any
) -> tuple[Tokenizer, Any]:
    """Tokenizer, and a model of the class `kind` with the weights of `folder`.

    Without a folder both are made from nothing: two layers of 64, words of `texts`. What `kind`
    has and the folder has not, such as a head, begins with random numbers.

    Raises:
        ModelError: see `check`; or the weights cannot be read.
    """
    if folder is None:
        tokenizer = tokenizer_of(texts)
        config = BertConfig(
            vocab_size=tokenizer.get_vocab_size(),
            intermediate_size=128,
            max_position_embeddings=2 * LONGEST,
            **_TINY,
            **settings,
        )
        return tokenizer, kind.from_config(config)
    check(folder)
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        config = AutoConfig.from_pretrained(folder, local_files_only=True, **settings)
        model = kind.from_pretrained(folder, config=config, local_files_only=True)
    except EdgebmError:
        raise
    except Exception as cause:  # what a damaged file raises depends on the file
        raise ModelError(f"{folder} cannot be read: {cause}", hint="copy it again") from cause
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer, model


def save(tokenizer: Tokenizer, model: Any, folder: Path) -> None:
    """Weights, configuration and tokenizer, as transformers reads them and edgebm compresses."""
    model.eval().save_pretrained(folder)
    names = {f"{mark.strip('[]').lower()}_token": mark for mark in _MARKS}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=LONGEST, **names
    ).save_pretrained(folder)
