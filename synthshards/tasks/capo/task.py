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
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from msgspec import Meta

from ...errors import UsageError
from ...kernels.permutation import sides
from ...params import TaskParams
from ...ragged import Column, RaggedBatch
from ..task import Buffers, Preset, Task
from .biod import BioD, make_biod, string_world
from .biography import SPANS, templates
from .checker import check_answer, check_row
from .kernels import ask, facts_of, locate, to_characters, write_biographies, write_columns, write_questions
from .people import FIRST_YEAR, half_of, load_pools, world_key
from .tables import WIDTH, Tables, make_tables, sentence_orders
from .tokenizer_texts import texts

#: Columns of strings, and which piece of a person (see `facts_of`) each holds.
_STRINGS = {
    "first_name": 0, "middle_name": 1, "last_name": 2, "pronoun": 3,
    "birth_city": 6, "university": 7, "major": 8, "employer": 9, "work_city": 10, "question": 11,
}  # fmt: skip


class CapoParams(TaskParams, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of Capo; `num_people` and `they` decide who exists, everything else how it is told."""

    num_people: Annotated[int, Meta(ge=2, le=160_000_000, description="people in the world")] = 50_000
    exposures: Annotated[int, Meta(ge=1, le=65_535, description="rows of each person (form=qa: of each question)")] = (
        100
    )
    fresh: Annotated[
        Annotated[int, Meta(ge=1, le=65_535)] | None,
        Meta(description="different biographies a person; divides exposures; null: all (bioS), 1: bioS-simple"),
    ] = None
    permute: Annotated[bool, Meta(description="a new order of sentences in every biography")] = True
    fullname: Annotated[bool, Meta(description="the full name in every sentence")] = False
    order: Annotated[
        int, Meta(ge=0, le=1, description="without permute: 0 work city before employer, 1 employer before work city")
    ] = 0
    reverse_md: Annotated[bool, Meta(description="dates as '2 of October, 1996'")] = False
    couple: Annotated[
        bool, Meta(description="permute pairs: date and birth city, university and major, employer and work city")
    ] = False
    form: Annotated[Literal["bios", "biod", "qa"], Meta(description="biographies, bioD, or questions")] = "bios"
    people: Annotated[
        Literal["all", "train", "test"], Meta(description="everybody, or one of the two halves for questions")
    ] = "all"
    they: Annotated[bool, Meta(description="a third pronoun beside he and she")] = False
    K: Annotated[int, Meta(ge=1, le=50, description="bioD: attributes")] = 4
    C: Annotated[int, Meta(ge=1, le=50, description="bioD: strings in a value")] = 2
    D: Annotated[int, Meta(ge=10, le=10_000, description="bioD: different strings of an attribute")] = 1000
    L: Annotated[int, Meta(ge=1, le=50, description="bioD: words in a string")] = 2
    T: Annotated[int, Meta(ge=20, le=40_000, description="bioD: words in all")] = 100

    def check(self) -> None:
        if self.fresh is not None and self.exposures % self.fresh:
            legal = [n for n in range(1, self.exposures + 1) if self.exposures % n == 0]
            shown = ", ".join(map(str, legal[:20]))
            raise UsageError(
                f"capo: fresh={self.fresh} does not divide exposures={self.exposures}; legal: {shown} or null"
            )
        if self.couple and not self.permute:
            raise UsageError("capo: couple=true permutes pairs of sentences; legal: with permute=true")
        idle = {
            "bios": ("K", "C", "D", "L", "T"),
            "biod": ("order", "reverse_md", "couple"),
            "qa": ("fresh", "permute", "fullname", "order", "couple", "K", "C", "D", "L", "T"),
        }[self.form]
        self.refuse_idle("capo", idle, f"form={self.form}")
        if self.permute:
            self.refuse_idle("capo", ["order"], "permute=true")
        if self.form == "biod" and self.D > self.T**self.L:
            raise UsageError(
                f"capo: D={self.D} different strings of L={self.L} words of T={self.T}; legal: D 10..{self.T**self.L}"
            )


@cache
def tables_of(reverse_md: bool) -> Tables:
    """The tables of the shipped pools and templates."""
    return make_tables(load_pools(), templates(), reverse_md)


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

    def world(self, seed: int) -> np.ndarray:
        """The keys of the people of `seed`, and for bioD of its strings: uint64 [4]."""
        p = self.params
        people = world_key(self.version, seed, p.num_people, p.they, load_pools())
        strings = string_world(self, seed) if p.form == "biod" else np.zeros(2, np.uint64)
        return np.concatenate([people, strings])

    @cached_property
    def _networks(self) -> np.ndarray:
        half = self.num_chosen - self.num_chosen // 2
        return np.array([sides(half), sides(self.num_chosen - half), sides(self.params.num_people)], np.uint64)

    @cached_property
    def _biod(self) -> BioD:
        p = self.params
        return make_biod(p.K, p.C, p.D, p.L, p.T)

    def generate(self, key: np.ndarray, indices: np.ndarray, buffers: Buffers) -> RaggedBatch:
        p, rows, world, tables = self.params, len(indices), key[2:4], tables_of(self.params.reverse_md)
        person, passes = buffers.take("person", rows, np.uint32)[:rows], buffers.take("passes", rows, np.uint64)[:rows]
        first, stop = self._ranks
        locate(
            key, world, indices, np.uint64(stop - first), np.uint64(first), np.uint64(p.num_people), self._networks,
            person, passes,
        )  # fmt: skip
        pronoun = buffers.take("pronoun", rows, np.uint8)[:rows]
        birth = buffers.take("birth", 3 * rows, np.uint16)[: 3 * rows].reshape(rows, 3)
        pieces = buffers.take("pieces", 12 * rows, np.uint64)[: 12 * rows].reshape(rows, 12)
        facts_of(world, person, tables.sizes, tables.names, np.uint64(2 + p.they), tables.lists, pronoun, birth, pieces)
        text, offsets, spans, extra = self._write(key, person, passes, pieces, pronoun, buffers)
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

    def _strings(self, tables: Tables, pieces: np.ndarray, buffers: Buffers) -> dict[str, Column]:
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

    def _write(
        self, key: np.ndarray, person: np.ndarray, passes: np.ndarray, pieces: np.ndarray, pronoun: np.ndarray,
        buffers: Buffers,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Column]]:  # fmt: skip
        """Texts, their offsets, spans in characters, and the columns that only this form has."""
        p, rows, tables = self.params, len(person), tables_of(self.params.reverse_md)
        offsets = buffers.take("text offsets", rows + 1, np.int64)[: rows + 1]
        fresh = (passes % np.uint64(p.fresh or p.exposures)).astype(np.uint16)
        extra: dict[str, Column] = {}
        if p.form == "biod":
            biod = self._biod
            text = buffers.take("text", biod.room(rows), np.uint8)
            spans, picks = biod.write(
                key, person, fresh, p.permute, p.fullname, pieces, pronoun, tables.data, text, offsets
            )
            extra["picks"] = Column("list<uint16>", picks.reshape(-1), np.arange(rows + 1) * picks.shape[1])
        else:
            text = buffers.take("text", rows * tables.longest + 2 * WIDTH, np.uint8)
            spans = buffers.take("spans", rows * 2 * len(SPANS), np.int32)[: rows * 2 * len(SPANS)]
            spans = spans.reshape(rows, 2 * len(SPANS))
            if p.form == "bios":
                orders = sentence_orders(p.permute, p.couple, p.order)
                parts = (tables.data, tables.before, tables.after, tables.start)
                write_biographies(key, person, fresh, pieces, pronoun, parts, orders, p.fullname, text, offsets, spans)
            else:
                asked = np.empty(rows, np.uint8)
                ask(key, person, passes, sentence_orders(True, False, 0), asked)
                write_questions(asked, pieces, tables.asked, tables.data, text, offsets, spans)
                pieces[:, 11] = tables.attributes[asked]
        text = text[: int(offsets[-1])]
        if not tables.ascii:
            to_characters(text, offsets, spans)
        return text, offsets, spans, extra

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
            example: a row; `seed`, where it is given too, has the facts checked against that world's people.
        """
        check_row(self, example)

    def check_answer(self, example: Mapping[str, Any], answer_ids: Sequence[int] | str) -> None:
        """Refuse an answer to a row of `form=qa` unless it is right: the whole value, and nothing but spaces around it.

        Args:
            answer_ids: a text, or its UTF-8 bytes.

        Raises:
            UsageError: the task asks no questions.
        """
        check_answer(self, example, answer_ids)
