"""A byte-pair tokenizer for tasks whose rows are text, trained on all that they are made of.

Bytes are the alphabet, so every text can be written and comes back exactly. A space belongs to the word behind it, as
in GPT-2's tokenizer, and no token reaches from one word into the next: values of a biography begin and end with tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from .errors import UsageError

#: As many tokens as the paper has left of GPT-2's for its biographies (Part 4.1, section on Capo).
SIZE = 3_275
#: Their ids are 0, 1 and 2.
SPECIALS = ("<bos>", "<eos>", "<pad>")


def train(texts: Iterable[str], size: int = SIZE) -> dict[str, Any]:
    """The ``tokenizer.json`` of byte pairs trained on `texts`, each as often as it is given.

    The result depends on the texts and the version of `tokenizers` alone.

    Args:
        size: of the vocabulary, specials and the 256 bytes included; less where the texts have no more pairs.

    Raises:
        UsageError: tokenizers is not installed.
    """
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    except ImportError:
        raise UsageError(
            "a tokenizer of texts needs tokenizers; install it with: pip install 'synthshards[tokenizers]'"
        ) from None
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)  # a token's offsets leave out its space
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    document: dict[str, Any] = json.loads(tokenizer.to_str())
    return document
