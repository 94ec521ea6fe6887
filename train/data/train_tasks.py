"""What a run trains on and is evaluated on: a dataset per task, in one shared vocabulary.

In a mixture of tasks each task's ids are moved up behind those of the tasks before it: task j's id t becomes
t + Σ_{i<j} (largest id of task i + 1). A single task keeps its ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from synthshards import make_task, open_dataset
from synthshards.catalog import TASKS
from synthshards.errors import UsageError, nearest
from synthshards.loaders.dataset import Dataset
from synthshards.loaders.mixture import Mixture
from synthshards.tasks.task import Task
from synthshards.tokenizer import with_special_ids, write_tokenizer

from ..config.options import DataOptions, TrainOptions
from ..evaluation.metrics import TaskEvaluation, evaluation_of
from ..evaluation.task_view import TaskView
from ..models.base import SpecialIds

#: Keys of `conf/dataset` that are no parameters of the task.
OWN_KEYS = ("name", "task", "tokenizer", "qa_share")


@dataclass(frozen=True)
class TrainTask:
    """One task of a run.

    Attributes:
        name: names its files: the task, or in a mixture the name of the dataset's configuration.
        dataset: the rows to train on.
        offset: what is added to its ids.
        tokenizer: of text rows, as transformers has it.
        tokenizer_json: that tokenizer's file, where it was made for this run.
        qa_share: of text windows: the share that holds questions.
        mixed: whether there are other tasks beside it.
    """

    name: str
    dataset: Dataset
    offset: int = 0
    tokenizer: Any = None
    tokenizer_json: bytes | None = None
    qa_share: float = 0.0
    mixed: bool = False

    @property
    def task(self) -> Task:
        """The task of the rows that are trained on."""
        return self.dataset.task

    @property
    def seed(self) -> int:
        """The seed of the rows, also of those that are evaluated."""
        return self.dataset.identity.seed

    @property
    def largest_id(self) -> int:
        """The largest id that its rows hold, as the model meets it."""
        own = len(self.tokenizer) - 1 if self.tokenizer is not None else max(self.task.token_ids())
        return own + self.offset

    @property
    def evaluation(self) -> TaskEvaluation:
        """How it is evaluated; `UsageError` where its task has no metrics."""
        return evaluation_of(self.task.name)

    def view(self, model: nn.Module) -> nn.Module:
        """The model of all train tasks as one of this task's ids alone."""
        return TaskView(model, self.offset, self.largest_id + 1 - self.offset) if self.mixed else model

    @property
    def parts(self) -> list[Dataset]:
        """What it is trained on: the dataset, and with `qa_share` the questions."""
        if not self.qa_share:
            return [self.dataset]
        assert self.evaluation.questions is not None, "checked at the door"
        identity = self.dataset.identity
        return [self.dataset, Dataset(self.evaluation.questions(self.task), identity.seed, identity.split)]

    def training_rows(self) -> Dataset | Mixture:
        """What to stream: the dataset, or with `qa_share` windows of it among windows of questions."""
        parts = self.parts
        return parts[0] if len(parts) == 1 else Mixture(parts, [1 - self.qa_share, self.qa_share], "repeat")


def make_train_tasks(
    dataset: Mapping[str, Any],
    data: DataOptions,
    train: TrainOptions,
    *,
    mixed: Mapping[str, Mapping[str, Any]] | None = None,
    given: Mapping[str, Any] | None = None,
    special: SpecialIds | None = None,
) -> list[TrainTask]:
    """The train tasks of a run.

    Args:
        dataset: the group `dataset` of the configuration.
        data: the group `data`.
        train: for `num_examples`.
        mixed: of `data.mixture`: name → its group.
        given: what the command line said of dataset and data; with `data.path` it must be what the manifest says.
        special: ids of a tokenizer that replace the task's own.

    Raises:
        UsageError: an unknown key, an illegal value, or something other than the manifest says.
    """
    if mixed:
        for name in given or {}:
            if name != "seed":
                where = "dataset" if name == "task" else f"dataset.{name}"
                raise UsageError(
                    f"{where} says nothing in a mixture; legal: data.mixture_params={{NAME: {{KEY: VALUE}}}}"
                )
        train_tasks: list[TrainTask] = []
        offset = 0
        for name, group in mixed.items():
            train_task = replace(_train_task(name, group, data, train, special, offset), mixed=True)
            train_tasks.append(train_task)
            offset = train_task.largest_id + 1
        return train_tasks
    if data.path is None:
        return [_train_task(str(dataset["task"]), dataset, data, train, special, 0)]
    stored = open_dataset(data.path)
    assert isinstance(stored, Dataset), "a string names one dataset"
    _check_given(stored, given or {}, data.path)
    if special is not None and with_special_ids(stored.task, special.bos, special.sep) is not stored.task:
        raise UsageError(
            f"data.path={data.path}: rows that are stored keep their ids, and the tokenizer's bos or sep differ; "
            "legal: rows on the fly, or a model without a tokenizer"
        )
    name = stored.identity.task
    text = dataset if dataset["task"] == name else {}
    return [_with_text(name, _first(stored, data.path, train.num_examples), text, 0)]


def _first(stored: Dataset, path: str, num_examples: int) -> Dataset:
    """The rows of an epoch: the first `num_examples`, if there are so many."""
    if stored.num_examples is None or num_examples <= 0 or num_examples >= stored.num_examples:
        return stored
    first = open_dataset(path, num_examples=num_examples)
    assert isinstance(first, Dataset), "a string names one dataset"
    return first


def _check_given(stored: Dataset, given: Mapping[str, Any], path: str) -> None:
    """Refuse what the command line says otherwise than the manifest."""
    identity = stored.identity
    values: dict[str, Any] = {**identity.params, "task": identity.task, "seed": identity.seed}
    named = {name: value for name, value in given.items() if name in values}
    if named.get("task", identity.task) == identity.task:
        parameters = {name: value for name, value in named.items() if name not in ("task", "seed")}
        canonical = TASKS[identity.task][0]({**identity.params, **parameters}).params.canonical()
        named.update({name: canonical[name] for name in parameters})
    for name, value in named.items():
        if value != values[name]:
            where = "data.seed" if name == "seed" else f"dataset.{name}"
            raise UsageError(f"{where}={value!r}, and {path} has {values[name]!r}; legal: that, or leave it out")


def _train_task(
    name: str, group: Mapping[str, Any], data: DataOptions, train: TrainOptions, special: SpecialIds | None, offset: int
) -> TrainTask:
    kind = str(group.get("task"))
    if kind not in TASKS:
        raise UsageError(f"dataset.task={kind!r}{nearest(kind, TASKS)}; legal: {', '.join(TASKS)}")
    params = {key: value for key, value in group.items() if key not in OWN_KEYS}
    task = make_task(kind, params)
    if special is not None:
        task = with_special_ids(task, special.bos, special.sep)
    count = train.num_examples if train.num_examples > 0 else None
    if task.num_examples is not None and count is not None:
        count = min(count, task.num_examples)
    return _with_text(name, Dataset(task, data.seed, "train", count), group, offset)


def _with_text(name: str, dataset: Dataset, group: Mapping[str, Any], offset: int) -> TrainTask:
    """A train task of this dataset; text rows get their tokenizer."""
    if "text" not in dataset.columns:
        return TrainTask(name, dataset, offset)
    share = group.get("qa_share", 0.0)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
        raise UsageError(f"dataset.qa_share={share!r}; legal: 0 or more, and below 1")
    if share and evaluation_of(dataset.task.name).questions is None:
        raise UsageError(f"dataset.qa_share={share!r}: {dataset.task.name} has no questions; legal: 0")
    where = group.get("tokenizer")
    if where is not None:
        return TrainTask(name, dataset, offset, load_tokenizer(str(where)), None, float(share))
    with TemporaryDirectory() as folder:  # nothing is written elsewhere before all settings are found legal
        path = Path(folder) / "tokenizer.json"
        write_tokenizer(dataset.task, path)
        return TrainTask(name, dataset, offset, load_tokenizer(str(path)), path.read_bytes(), float(share))


def load_tokenizer(where: str) -> Any:
    """A fast tokenizer of transformers from a ``tokenizer.json``, a folder, or the hub, with an <eos>.

    Raises:
        UsageError: there is none, or it has no end-of-text token.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        if Path(where).is_file():
            tokenizer = PreTrainedTokenizerFast(
                tokenizer_file=where, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"
            )
        else:
            tokenizer = AutoTokenizer.from_pretrained(where, use_fast=True)
    except (OSError, ValueError) as error:
        line = str(error).strip().splitlines()[0]
        raise UsageError(f"dataset.tokenizer={where}: {line}") from None
    if tokenizer.eos_token_id is None:
        raise UsageError(f"dataset.tokenizer={where}: no end-of-text token; legal: a tokenizer with an eos_token")
    return tokenizer
