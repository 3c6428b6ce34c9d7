"""Small models of transformers, folders of them, and a tokenizer of a few words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "a", "very", "not", "dull")
_ENCODER: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
    "intermediate_size": 64, "max_position_embeddings": 40,
}  # fmt: skip
_PAIR: dict[str, Any] = {
    "vocab_size": 60, "d_model": 32, "encoder_layers": 1, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64, "max_position_embeddings": 40, "pad_token_id": 1, "eos_token_id": 2,
    "bos_token_id": 0, "decoder_start_token_id": 2, "forced_eos_token_id": 2,
}  # fmt: skip


def text_model(name: str, seed: int = 0, **changed: Any) -> Any:
    """A model of the class `name`, with random weights, in eval mode."""
    import torch
    import transformers

    kind = getattr(transformers, name)
    settings = dict(_ENCODER)
    if "DistilBert" in name:
        settings = {"vocab_size": 60, "dim": 32, "n_layers": 1, "n_heads": 4, "hidden_dim": 64,
                    "max_position_embeddings": 40}  # fmt: skip
    elif "T5" in name:
        settings = {"vocab_size": 60, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2,
                    "num_heads": 4, "decoder_start_token_id": 0}  # fmt: skip
    elif name.startswith(("Marian", "Bart")):
        settings = dict(_PAIR)
    torch.manual_seed(seed)
    model = kind(kind.config_class(**(settings | changed))).eval()
    with torch.no_grad():  # weights as large as trained ones, so that every layer counts
        for parameter in model.parameters():
            if parameter.ndim == 2 and parameter.requires_grad:
                parameter.mul_(4)
    return model


def save_tokenizer(folder: Path) -> None:
    """A tokenizer.json of whole words, with the marks that BERT puts around a text."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    table = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(WordLevel(table, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def save_pooling(folder: Path, *, mode: str = "mean", kinds: str = "Pooling Normalize") -> None:
    """The files that make a sentence-transformers folder of one with a plain encoder."""
    names = ["Transformer", *kinds.split()]
    modules = [
        {"idx": k, "name": str(k), "path": f"{k}_{kind}" if k else "",
         "type": f"sentence_transformers.models.{kind}"}
        for k, kind in enumerate(names)
    ]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    keys = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens", "last": "lasttoken"}
    settings = {f"pooling_mode_{key}": each == mode for each, key in keys.items()}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
