"""A task's token ids without gaps, and its tokenizer.

The published ids have wide gaps (Depo1 uses 110 ids, the largest of them 9,700). `Vocabulary` maps them to 0..n-1 and
back, for models without an embedding of 10,000 rows; `write_tokenizer` writes a
``tokenizer.json`` whose tokens are the names that `Task.decode` prints, or for rows of text byte pairs.

Byte pairs are trained on everything that the rows are made of. Their alphabet is the 256 bytes, so decoding returns
every text exactly. A space belongs to the word after it, as in GPT-2's tokenizer, and no token spans two words, so that
the values of a biography consist of whole tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import UsageError
from .storage.local import replacing
from .tasks.task import Task

#: As many tokens as the paper has left of GPT-2's for its biographies (Part 4.1, section on Capo).
SIZE = 3_275
#: Their ids are 0, 1 and 2.
SPECIALS = ("<bos>", "<eos>", "<pad>")


def with_special_ids(task: Task, bos: int | None, sep: int | None) -> Task:
    """The task with a tokenizer's ids in place of its own, as a model that comes with that tokenizer is trained on it.

    Args:
        task: the same is returned where it has no such parameters, or the same ids.
        bos, sep: what begins a row, and what separates; None where the tokenizer has none.

    Raises:
        UsageError: an id that the task's other tokens have.
    """
    own = task.params.canonical()
    ids = {"bos_token_id": bos, "separator_token_id": sep}
    changed = {name: value for name, value in ids.items() if value is not None and own.get(name, value) != value}
    return type(task)({**own, **changed}) if changed else task


class Vocabulary:
    """A bijection between the ids that a task's rows can contain and 0..n-1, in ascending order of the ids.

    Args:
        task: a token task.

    Attributes:
        ids: int64 [n], ascending: dense number → id.
        names: the n printed names, in the same order.

    Raises:
        UsageError: rows of this task are text.

    Examples:
        >>> from synthshards import make_task
        >>> vocabulary = Vocabulary(make_task("depo1-225"))
        >>> len(vocabulary), vocabulary.to_dense([0, 9001, 9500]).tolist()
        (110, [0, 101, 109])
    """

    def __init__(self, task: Task) -> None:
        self.ids = np.array(sorted(task.token_ids()), np.int64)
        self.names = task.decode(self.ids)
        assert len(set(self.names)) == len(self.names), "two ids have one name"
        self.task = task.name

    def __len__(self) -> int:
        return len(self.ids)

    def to_dense(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Dense numbers of ids, int64 of the same shape; −100 (an ignored label) stays.

        Raises:
            UsageError: an id that no row of the task holds.
        """
        published = np.asarray(ids, np.int64)
        at = np.minimum(np.searchsorted(self.ids, published), len(self.ids) - 1)
        strange = (self.ids[at] != published) & (published != -100)
        if strange.any():
            raise UsageError(f"{self.task}: no row holds the id {int(published[strange].flat[0])}")
        return np.where(published == -100, -100, at)

    def from_dense(self, dense: Sequence[int] | np.ndarray) -> np.ndarray:
        """Ids of dense numbers, int64 of the same shape; −100 stays.

        Raises:
            UsageError: a number outside 0..n-1.
        """
        numbers = np.asarray(dense, np.int64)
        strange = ((numbers < 0) | (numbers >= len(self.ids))) & (numbers != -100)
        if strange.any():
            raise UsageError(f"{self.task}: dense id {int(numbers[strange].flat[0])}; legal: 0..{len(self.ids) - 1}")
        return np.where(numbers == -100, -100, self.ids[np.where(numbers == -100, 0, numbers)])


def tokenizer_json(task: Task, *, dense: bool = False) -> dict[str, Any]:
    """The ``tokenizer.json`` of a task: names separated by spaces ↔ ids (or dense ids).

    The specials (names in angle brackets) are marked as such. Loadable by `tokenizers.Tokenizer.from_file` and
    `transformers.PreTrainedTokenizerFast(tokenizer_file=…)`. Where rows are text its tokens are byte pairs, and its ids
    have no gaps in any case.

    Raises:
        UsageError: rows of this task are text, and tokenizers is not installed.
    """
    texts = task.tokenizer_texts()
    return byte_pairs(texts) if texts is not None else _word_level(task, dense)


def _word_level(task: Task, dense: bool) -> dict[str, Any]:
    vocabulary = Vocabulary(task)
    ids = range(len(vocabulary)) if dense else vocabulary.ids.tolist()
    vocab = dict(zip(vocabulary.names, ids, strict=True))
    specials = [
        {
            "id": number,
            "content": name,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for name, number in vocab.items()
        if name.startswith("<")
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": specials,
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    }


def byte_pairs(texts: Iterable[str], size: int = SIZE) -> dict[str, Any]:
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


def write_tokenizer(task: Task, path: Path, *, dense: bool = False) -> None:
    """Write `tokenizer_json` to a file.

    Raises:
        UsageError: as `tokenizer_json`.
        OSError: the file cannot be written.
    """
    text = json.dumps(tokenizer_json(task, dense=dense), ensure_ascii=False, indent=1) + "\n"
    if path.exists() and not path.is_file():  # a pipe or a device, such as /dev/stdout, takes text but no other's place
        path.write_text(text, encoding="utf-8")
        return
    with replacing(path) as file:
        file.write(text.encode())
