"""Capo: knowledge capacity. Biographies of people who exist, each met in `exposures` wordings.

Sources: "Physics of Language Models: Part 4.1" (arXiv 2512.17351), section on Capo; Part 3.1 (arXiv 2309.14316), the
bioS data, their augmentations and QA; Part 3.3 (arXiv 2404.05405), capacity and bioD (see `tasks.capo.capacity`).

Rows 7 and 67,833 of `capo-50k` (seed 0, split "train") are the first two exposures of person 34,554:

    Patrick Arden Tilton pursued her higher education at Graystone Institute of Technology. She was recruited by
    Westmark Electric straight out of college. She was originally from a quiet street in Athens, GA. She attended
    advanced seminars in Botany. Her birth was celebrated by the whole family on September 25, 1981. She rented an
    apartment in Charlotte, NC to be near her office.

    Patrick Arden Tilton went to Graystone Institute of Technology after high school. Her place of work throughout
    these years was Charlotte, NC. Her studies centered on the discipline of Botany. Her birth took place at her
    parents' house in Athens, GA. She counted her birthdays from September 25, 1981 onward. She had a demanding job at
    Westmark Electric.

The facts follow from (seed, pools, `num_people`, `they`, person) alone: see `tasks.capo.people`. Row i belongs to pass
i // people over all people; a pass is one exposure. Each pass has an order of its own, and at least half of the people
stand between two rows of one person, so that training in the order of the rows meets no person twice in a batch.

`form=qa` asks about the same people: ``When was Patrick Arden Tilton born? Answer: September 25, 1981``. `form=biod`
gives them numbered values: see `synthshards.tasks.capo.biod`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from typing import Any, ClassVar

import numpy as np

from ...errors import UsageError
from ...kernels.arrays import U64
from ...kernels.buffers import Buffers
from ...kernels.permutation import sides
from ...ragged import Column, RaggedBatch
from ..task import Preset, Task
from .biod import biod_of, string_key, write_biod
from .biography import SPANS, templates
from .checker import check_answer, check_row
from .kernels import (
    People,
    TextRows,
    ask,
    facts_of,
    locate,
    to_characters,
    write_biographies,
    write_columns,
    write_questions,
)
from .params import CapoParams
from .people import FIRST_YEAR, half_of, load_pools, people_key
from .tables import WIDTH, TextTables, make_text_tables, sentence_orders
from .tokenizer_texts import texts

#: Columns of strings, and which piece of a person (see `facts_of`) each holds.
_STRINGS = {
    "first_name": 0, "middle_name": 1, "last_name": 2, "pronoun": 3,
    "birth_city": 6, "university": 7, "major": 8, "employer": 9, "work_city": 10, "question": 11,
}  # fmt: skip


@cache
def text_tables(reverse_md: bool) -> TextTables:
    """The tables of the shipped pools and templates."""
    return make_text_tables(load_pools(), templates(), reverse_md)


class CapoTask(Task):
    """The Capo task. A row is a text about one person, with the person's facts and their positions in the text."""

    name = "capo"
    version = 1
    Params = CapoParams
    size_fact = "exposure_idx"
    presets: ClassVar[Mapping[str, Preset]] = {
        f"capo-{name}": Preset({"num_people": people}, f"bioS: {people:,} people, 100 biographies of each", 338.9)
        for name, people in (
            ("50k", 50_000), ("100k", 100_000), ("200k", 200_000),
            ("500k", 500_000), ("1m", 1_000_000), ("2m", 2_000_000),
        )
    }  # fmt: skip

    @property
    def columns(self) -> dict[str, str]:
        return dict(self._columns)

    @cached_property
    def _columns(self) -> dict[str, str]:
        head = {"text": "string", "person_id": "uint32", "exposure_idx": "uint16"}
        names = dict.fromkeys(("first_name", "middle_name", "last_name", "pronoun"), "string")
        if self.params.form == "biod":
            return {**head, **names, "picks": "list<uint16>", "spans": "list<int32>"}
        birth = {"birth_month": "uint8", "birth_day": "uint8", "birth_year": "uint16"}
        values = dict.fromkeys(("birth_city", "university", "major", "employer", "work_city"), "string")
        asked = {"question": "string"} if self.params.form == "qa" else {}
        return {**head, **names, **birth, **values, **asked, "spans": "list<int32>"}

    @property
    def num_examples(self) -> int:
        """People chosen × exposures; for `form=qa` × 6 questions."""
        exposures: int = self.params.exposures
        return self.num_chosen * exposures * (6 if self.params.form == "qa" else 1)

    @property
    def num_chosen(self) -> int:
        """Number of people that `people` chooses."""
        first, stop = self._ranks
        return stop - first

    @property
    def _ranks(self) -> tuple[int, int]:
        p = self.params
        return (0, p.num_people) if p.people == "all" else half_of(p.num_people, p.people)

    def shared_state(self, seed: int) -> U64:
        """The keys of the people of `seed`, and for bioD of its strings: [4]."""
        p = self.params
        people = people_key(self.version, seed, p.num_people, p.they, load_pools())
        strings = string_key(p, self.version, seed) if p.form == "biod" else np.zeros(2, np.uint64)
        return np.concatenate([people, strings])

    @cached_property
    def _networks(self) -> np.ndarray:
        half = self.num_chosen - self.num_chosen // 2
        return np.array([sides(half), sides(self.num_chosen - half), sides(self.params.num_people)], np.uint64)

    def generate(self, key: U64, indices: U64, buffers: Buffers) -> RaggedBatch:
        p, rows, of_people, tables = self.params, len(indices), key[2:4], text_tables(self.params.reverse_md)
        person, passes = buffers.take("person", rows, np.uint32)[:rows], buffers.take("passes", rows, np.uint64)[:rows]
        first, stop = self._ranks
        locate(
            key, of_people, indices, np.uint64(stop - first), np.uint64(first), np.uint64(p.num_people), self._networks,
            person, passes,
        )  # fmt: skip
        pronoun = buffers.take("pronoun", rows, np.uint8)[:rows]
        birth = buffers.take("birth", 3 * rows, np.uint16)[: 3 * rows].reshape(rows, 3)
        pieces = buffers.take("pieces", 12 * rows, np.uint64)[: 12 * rows].reshape(rows, 12)
        people = People(person, pronoun, birth, pieces)
        facts_of(of_people, tables.lists, np.uint64(2 + p.they), people)
        (text, offsets, spans), extra = self._write(key, people, passes, buffers)
        exposure = passes // np.uint64(6 if p.form == "qa" else 1)
        columns = {
            "text": Column("string", text, offsets),
            "person_id": Column("uint32", person),
            "exposure_idx": Column("uint16", exposure.astype(np.uint16)),
            "birth_month": Column("uint8", (birth[:, 0] + 1).astype(np.uint8)),
            "birth_day": Column("uint8", (birth[:, 1] + 1).astype(np.uint8)),
            "birth_year": Column("uint16", birth[:, 2] + np.uint16(FIRST_YEAR)),
            "spans": Column("list<int32>", spans.reshape(-1), np.arange(rows + 1) * spans.shape[1]),
            **extra,
            **self._strings(tables, pieces, buffers),
        }
        return RaggedBatch({name: columns[name] for name in self._columns})

    def _strings(self, tables: TextTables, pieces: np.ndarray, buffers: Buffers) -> dict[str, Column]:
        rows = len(pieces)
        wanted = {name: piece for name, piece in _STRINGS.items() if name in self._columns}
        room = (rows + 1) * WIDTH
        data = buffers.take("strings", len(wanted) * room, np.uint8)
        starts = np.arange(len(wanted)) * room
        size = len(wanted) * (rows + 1)
        offsets = buffers.take("string offsets", size, np.int64)[:size].reshape(len(wanted), rows + 1)
        write_columns(tables.data, pieces, np.array(list(wanted.values())), data, starts, offsets)
        return {
            name: Column("string", data[start : start + int(ends[-1])], ends)
            for name, start, ends in zip(wanted, starts.tolist(), offsets, strict=True)
        }

    def _write(self, key: U64, people: People, passes: U64, buffers: Buffers) -> tuple[TextRows, dict[str, Column]]:
        """Texts, with spans in characters, and the columns that only this form has."""
        p, rows, tables = self.params, len(people.person), text_tables(self.params.reverse_md)
        offsets = buffers.take("text offsets", rows + 1, np.int64)[: rows + 1]
        fresh = (passes % np.uint64(p.fresh or p.exposures)).astype(np.uint16)
        extra: dict[str, Column] = {}
        if p.form == "biod":
            biod = biod_of(p)
            spans, picks = np.empty((rows, 2 + 2 * p.K), np.int32), np.empty((rows, p.K * p.C), np.uint16)
            out = TextRows(buffers.take("text", biod.room(rows), np.uint8), offsets, spans)
            write_biod(key, people, fresh, p.permute, p.fullname, tables.data, biod, out, picks)
            extra["picks"] = Column("list<uint16>", picks.reshape(-1), np.arange(rows + 1) * picks.shape[1])
        else:
            text = buffers.take("text", rows * tables.longest + 2 * WIDTH, np.uint8)
            spans = buffers.take("spans", rows * 2 * len(SPANS), np.int32)[: rows * 2 * len(SPANS)]
            out = TextRows(text, offsets, spans.reshape(rows, 2 * len(SPANS)))
            if p.form == "bios":
                orders = sentence_orders(p.permute, p.couple, p.order)
                write_biographies(key, people, fresh, tables.templates, orders, p.fullname, out)
            else:
                asked = np.empty(rows, np.uint8)
                ask(key, people.person, passes, sentence_orders(True, False, 0), asked)
                write_questions(asked, people.pieces, tables.asked, tables.data, out)
                people.pieces[:, 11] = tables.attributes[asked]
        out = out._replace(text=out.text[: int(offsets[-1])])
        if not tables.ascii:
            to_characters(out)
        return out, extra

    def token_ids(self) -> Sequence[int]:
        """Not for this task: its rows are text.

        Raises:
            UsageError: always.
        """
        raise UsageError("capo: rows are text; legal: a tokenizer (synthshards tasks capo --tokenizer FILE writes one)")

    def tokenizer_texts(self) -> Iterable[str]:
        """Names, values and sentences of all forms and options: one tokenizer for all of Capo."""
        return texts()

    def token_name(self, token: int) -> str:
        """Without a tokenizer, tokens are the bytes of the text."""
        return chr(token) if 32 <= token < 127 else f"<{token:02x}>"

    def check_example(self, example: Mapping[str, Any]) -> None:
        """Check a row clause by clause.

        Args:
            example: a row; `seed`, where it is given too, has the facts checked against the people of that seed.
        """
        check_row(self.params, self.version, example)

    def check_answer(self, example: Mapping[str, Any], answer_ids: Sequence[int] | str) -> None:
        """Refuse an answer to a row of `form=qa` unless it is right: the whole value, and nothing but spaces around it.

        Args:
            answer_ids: a text, or its UTF-8 bytes.

        Raises:
            UsageError: the task asks no questions.
        """
        check_answer(self.params, example, answer_ids)
