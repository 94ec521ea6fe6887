"""Settings and task parameters: frozen, typed, strict. A field carries its legal range and one line of meaning.

A task declares a `TaskParams` whose fields are ``Annotated[int, Meta(ge=…, le=…, description=…)]``; this module turns
mappings (or ``KEY=VALUE`` strings) into it and describes it for ``synthshards tasks NAME``. `Settings` is the same for
what enters no identity, such as the options of a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeVar, get_args, get_type_hints

import msgspec

from .errors import UsageError, cut, is_integer, nearest


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Named values with legal ranges. `check` refuses combinations that no single field's range excludes."""

    def check(self) -> None:
        """Raise `UsageError` for an impossible combination."""


class TaskParams(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every task's parameters: settings that enter the identity of rows."""

    #: Names of the parameters added after the task's first release.
    later: ClassVar[frozenset[str]] = frozenset()

    def refuse_idle(self, task: str, names: Iterable[str], what: str) -> None:
        """Raise `UsageError` where one of `names`, which say nothing under `what`, has another value than its default.

        Ids of special tokens are never idle: they stay reserved, and name what packing puts between rows.
        """
        defaults = {field.name: field.default for field in msgspec.structs.fields(type(self))}
        for name in names:
            if (value := getattr(self, name)) != defaults[name]:
                raise UsageError(f"{task}: {name}={value!r} says nothing about {what}; leave it out")

    @classmethod
    def check_identity(cls, values: Mapping[str, Any]) -> None:
        """Raise `UsageError` for a value that users may give but no identity holds (the path of a file, say).

        Called before a manifest's parameters are looked at any closer: reading a manifest must not open other files.
        """

    def canonical(self) -> dict[str, Any]:
        """The mapping that enters the identity: every parameter, as integers, booleans, strings, null and lists.

        A parameter added after a task's first release is listed in the task's `later` and appears only where it
        differs from its default, so that new options never change old identities.
        """
        later = self.later
        fields = msgspec.structs.fields(type(self))
        return {
            f.name: getattr(self, f.name) for f in fields if f.name not in later or getattr(self, f.name) != f.default
        }


S = TypeVar("S", bound=Settings)


def parse(cls: type[S], values: Mapping[str, Any], where: str, *, text: bool = False, check: bool = True) -> S:
    """Build and check the settings `cls` from `values`.

    Args:
        cls: the class of settings.
        values: name → value; with ``text=True`` strings as typed on a command line are converted.
        where: what the message names, e.g. ``"depo"``.
        check: also refuse impossible combinations.

    Raises:
        UsageError: unknown name, wrong type, value out of range, impossible combination.
    """
    known = {field.name: field for field in msgspec.structs.fields(cls)}
    converted: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise UsageError(
                f"{where}: no parameter {cut(repr(name))}{nearest(name, known)}; legal: {', '.join(known)}"
            )
        hint = get_type_hints(cls, include_extras=True)[name]
        raw = None if text and value in ("null", "none", "None") and _optional(hint) else value
        if text and raw is not None and _only_integers(hint) and not is_integer(raw):
            raise UsageError(f"{where}: {name}={cut(repr(value))} is not legal (expected int); legal: {legal(hint)}")
        try:
            if isinstance(raw, str):
                raw.encode()  # msgspec takes lone halves of a character, which no identity can hold
            converted[name] = msgspec.convert(raw, hint, strict=not text)
        except (msgspec.ValidationError, UnicodeEncodeError) as error:
            raise UsageError(
                f"{where}: {name}={cut(repr(value))} is not legal ({_reason(error)}); legal: {legal(hint)}"
            ) from None
    settings = cls(**converted)
    if check:
        settings.check()
    return settings


def assignments(pairs: tuple[str, ...] | list[str], where: str) -> dict[str, str]:
    """``("N=300", "qa=true")`` → ``{"N": "300", "qa": "true"}``.

    Raises:
        UsageError: for anything that is not KEY=VALUE, and for a key given twice.
    """
    out: dict[str, str] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise UsageError(f"{where}: {cut(repr(pair))} is not KEY=VALUE")
        if key in out:
            raise UsageError(f"{where}: {cut(key)} is given twice")
        out[key] = value
    return out


def describe(cls: type[Settings]) -> list[dict[str, Any]]:
    """One entry a field: name, type, legal range (None where any value of the type is), default, meaning."""
    hints = get_type_hints(cls, include_extras=True)
    return [
        {
            "name": field.name,
            "legal": legal(hints[field.name]),
            "default": field.default,
            "meaning": _meta(hints[field.name], "description") or "",
        }
        for field in msgspec.structs.fields(cls)
    ]


def legal(hint: Any) -> str:
    """The legal values of a type hint in words: ``int 3..65535``, ``true or false``, ``int 1..8 or null``."""
    union = get_args(hint)[0] if _is_annotated(hint) and _optional(hint) else hint
    alternatives = [a for a in get_args(union) if a is not type(None)] if _optional(hint) else [hint]
    words = []
    for alternative in alternatives:
        base = get_args(alternative)[0] if _is_annotated(alternative) else alternative
        low, high = _meta(alternative, "ge"), _meta(alternative, "le")
        choices = [repr(c) for c in get_args(base) if isinstance(c, str)]
        if base is bool:
            words.append("true or false")
        elif choices:
            words.append(" ".join(choices))
        elif base is int and low is not None:
            words.append(f"int {low}..{high}" if high is not None else f"int from {low}")
        elif pattern := _meta(alternative, "pattern"):
            words.append(f"{base.__name__} {pattern}")
        else:
            words.append(getattr(base, "__name__", str(base)))
    return " or ".join(words + (["null"] if _optional(hint) else []))


def _only_integers(hint: Any) -> bool:
    """Whether a hint allows integers alone (and null): msgspec would take "5.0" and "3e1" for them, too."""
    while _is_annotated(hint):
        hint = get_args(hint)[0]
    parts = get_args(hint)
    if not parts:
        return hint is int
    return all(part is type(None) or _only_integers(part) for part in parts) and type(None) in parts


def _is_annotated(hint: Any) -> bool:
    return hasattr(hint, "__metadata__")


def _optional(hint: Any) -> bool:
    inner = get_args(hint)[0] if _is_annotated(hint) and _optional(get_args(hint)[0]) else hint
    return type(None) in get_args(inner)


def _meta(hint: Any, name: str) -> Any:
    for candidate in (hint, *get_args(hint)):
        for meta in getattr(candidate, "__metadata__", ()):
            if getattr(meta, name, None) is not None:
                return getattr(meta, name)
    return None


def _reason(error: Exception) -> str:
    text = re.sub(r" - at `.*", "", str(error)).replace("`", "")
    return text[0].lower() + text[1:]
