"""`open_dataset`: rows from shards, on the fly, or mixed, behind one interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from synthshards.catalog import is_task_name, make_task
from synthshards.dataset.stored import open_stored
from synthshards.errors import UsageError
from synthshards.tasks.task import Task

from .dataset import Dataset
from .mixture import Mixture

#: What `open_dataset` takes.
Location: TypeAlias = "str | Path | Task | Dataset | Mapping[Any, float] | Sequence[tuple[Any, float]]"


def open_dataset(
    location: Location,
    *,
    seed: int | None = None,
    split: str | None = None,
    num_examples: int | None = None,
    exhaustion: str = "stop",
    tokenizer: Any = None,
    **overrides: Any,
) -> Dataset | Mixture:
    """Open rows: from shards, from a manifest, on the fly, or a mixture of these.

    Args:
        location: one of

            - a folder, a URI or the path of a manifest: rows are read from its shards; rows of missing or damaged
              shards are regenerated. `seed`, `split` and parameters may be given if they equal the manifest's;
            - a task or preset name, or a `Task`: rows are generated on the fly;
            - a mapping (or pairs) from these to weights: a mixture. `seed` and `split` then apply to generated rows.

        seed: 0..2^64−1; defaults to 0 on the fly, and to the manifest's otherwise.
        split: ``[a-z0-9_]+``; defaults to "train" on the fly, and to the manifest's otherwise.
        num_examples: use the first `num_examples` rows; None is all, which is endless on the fly (except for Capo).
        exhaustion: for mixtures: "stop" before the first row that a component cannot supply, or "repeat" components.
        tokenizer: for text rows: a fast tokenizer of transformers, the path of a ``tokenizer.json``, or a Hub name.
        **overrides: parameters of the task.

    Returns:
        A dataset (or mixture) with rows by index, ``ds[i]``, and streams of batches, ``ds.batches(64)``.

    Raises:
        UsageError: no such task, dataset or parameter, or one that differs from the manifest's.
        ManifestError: the manifest is not valid.
        StorageError: the manifest cannot be read.

    Examples:
        >>> from synthshards import open_dataset
        >>> ds = open_dataset("depo1-225", num_examples=1000, K=4)
        >>> len(ds), ds[7]["n"]
        (1000, 89)
    """
    if isinstance(location, Mapping) or (isinstance(location, Sequence) and not isinstance(location, str | bytes)):
        pairs = list(location.items() if isinstance(location, Mapping) else location)
        for pair in pairs:
            if not (isinstance(pair, Sequence) and not isinstance(pair, str | bytes) and len(pair) == 2):
                raise UsageError(f"{pair!r} in a mixture; legal: pairs of a dataset and its weight, or a mapping")
        if num_examples is not None or overrides:
            option = "num_examples" if num_examples is not None else next(iter(overrides))
            raise UsageError(f"{option} with a mixture; legal: open the component with it, and mix the opened datasets")
        parts = [_open_one(what, seed, split, None, tokenizer, {}, mixed=True) for what, _ in pairs]
        return Mixture(parts, [weight for _, weight in pairs], exhaustion)
    return _open_one(location, seed, split, num_examples, tokenizer, overrides)


def _open_one(
    location: Any, seed: int | None, split: str | None, num_examples: int | None, tokenizer: Any,
    overrides: dict[str, Any], mixed: bool = False,
) -> Dataset:  # fmt: skip
    if isinstance(location, Dataset):
        return location
    if isinstance(location, Task) or (isinstance(location, str) and is_task_name(location)):
        if isinstance(location, Task):
            task = location if not overrides else type(location)(location.params.canonical(), **overrides)
        else:
            task = make_task(location, **overrides)
        return Dataset(task, 0 if seed is None else seed, "train" if split is None else split, num_examples, tokenizer)
    if not isinstance(location, str | Path):
        raise UsageError(
            f"open_dataset takes no {type(location).__name__}; legal: a folder, a URI, a manifest, a task or preset "
            "name, or a mapping of these to weights"
        )
    stored = open_stored(str(location))
    identity = stored.manifest.identity
    asked = {} if mixed else {"seed": seed, "split": split}
    for name, value in asked.items():
        if value is not None and value != getattr(identity, name):
            raise UsageError(
                f"{name}={value!r}, and {location} has {getattr(identity, name)!r}; legal: that, or leave it out"
            )
    if overrides:
        parameters = stored.manifest.task().params.canonical()
        overridden = make_task(identity.task, identity.params, **overrides).params.canonical()
        for name in overrides:
            if overridden.get(name) != parameters.get(name):
                raise UsageError(
                    f"{name}={overrides[name]!r}, and {location} has {parameters.get(name)!r}; "
                    "legal: that, or leave it out"
                )
    return Dataset.of(stored, num_examples, tokenizer)
