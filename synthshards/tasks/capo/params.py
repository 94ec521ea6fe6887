"""Capo's parameters, and what follows from them alone."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from ...errors import UsageError
from ...params import TaskParams


class CapoParams(TaskParams, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of Capo; `num_people` and `they` decide who exists, everything else how it is told."""

    num_people: Annotated[int, Meta(ge=2, le=160_000_000, description="people in all")] = 50_000
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
