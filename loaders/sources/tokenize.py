"""Text rows through a tokenizer: token rows with every token in the loss, and value spans in tokens."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from synthshards.errors import UsageError
from synthshards.ragged import Column, RaggedBatch, offsets_of
from synthshards.tasks.capo.biography import token_spans

_EOS = ("<eos>", "</s>", "<|endoftext|>")


class TextTokens:
    """Turns batches of text rows into token rows.

    Args:
        tokenizer: a fast tokenizer of transformers, a `tokenizers.Tokenizer`, the path of a ``tokenizer.json``, or what
            `AutoTokenizer.from_pretrained` takes.
        join: end each row with the tokenizer's end-of-text token, which joins it to the next in a packed window.
        spans: give the column `spans` in tokens (in characters without).

    Raises:
        UsageError: no such tokenizer, a slow one, or `join` and no end-of-text token.
    """

    def __init__(self, tokenizer: Any, *, join: bool = False, spans: bool = False) -> None:
        if isinstance(tokenizer, str | Path):
            tokenizer = _load(tokenizer)
        self.backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
        if not hasattr(self.backend, "encode_batch"):
            raise UsageError(f"tokenizer is a {type(tokenizer).__name__}; legal: a fast tokenizer, or a path of one")
        self.spans = spans
        self.eos: int | None = None
        if join:
            self.eos = getattr(tokenizer, "eos_token_id", None)
            for name in _EOS if self.eos is None else ():
                self.eos = self.backend.token_to_id(name) if self.eos is None else self.eos
            if self.eos is None:
                raise UsageError(
                    f"packing joins texts by an end-of-text token, and the tokenizer has none; legal: one with an "
                    f"eos_token, or with a token {' or '.join(_EOS)}"
                )

    def __call__(self, batch: RaggedBatch) -> RaggedBatch:
        """`input_ids` list<uint32> and `loss_mask` (all true) before the columns of `batch`."""
        texts = batch.columns["text"].tolist()
        encodings = self.backend.encode_batch(texts, add_special_tokens=False)
        end = [] if self.eos is None else [self.eos]
        ids = [encoding.ids + end for encoding in encodings]
        offsets = offsets_of(np.array([len(row) for row in ids], np.int64))
        flat = np.fromiter((token for row in ids for token in row), np.uint32, int(offsets[-1]))
        columns = {
            "input_ids": Column("list<uint32>", flat, offsets),
            "loss_mask": Column("list<bool>", np.ones(len(flat), np.bool_), offsets),
            **batch.columns,
        }
        if self.spans and "spans" in columns:
            spans = batch.columns["spans"].tolist()
            values = [token_spans(row, encoding.offsets) for row, encoding in zip(spans, encodings, strict=True)]
            lengths = np.array([len(row) for row in values], np.int64)
            joined = np.array([place for row in values for place in row], np.int32)
            columns["spans"] = Column("list<int32>", joined, offsets_of(lengths))
        return RaggedBatch(columns)

    @property
    def digest(self) -> str:
        """sha256 of the tokenizer and of whether it joins."""
        text = self.backend.to_str() + f"\n{self.eos}"
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    def __getstate__(self) -> dict[str, Any]:
        return {"backend": self.backend.to_str(), "spans": self.spans, "eos": self.eos}

    def __setstate__(self, state: dict[str, Any]) -> None:
        from tokenizers import Tokenizer

        self.__dict__.update(state, backend=Tokenizer.from_str(state["backend"]))


def _load(where: str | Path) -> Any:
    try:
        if Path(where).is_file():
            from tokenizers import Tokenizer

            return Tokenizer.from_file(str(where))
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(where), use_fast=True)
    except ImportError as error:
        raise UsageError(
            f"a tokenizer needs {error.name}; install it with: pip install 'synthshards[tokenizers]'"
        ) from None
    except Exception as error:  # each of the two libraries raises what it likes
        line = str(error).strip().splitlines()
        raise UsageError(
            f"tokenizer {str(where)!r} cannot be loaded: {line[0] if line else type(error).__name__}"
        ) from None
