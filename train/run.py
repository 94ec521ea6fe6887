"""A training run: what it consists of is made and checked first, then it trains, evaluates, and can be gone on with.

Everything that comes after a step is a function of what a checkpoint holds, so that a run that was killed and resumed
ends with the same CSV, bit for bit on a CPU, as one that was not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from synthshards.errors import UsageError
from synthshards.identity import MAX_SEED
from synthshards.params import parse

from .config.options import DataOptions, EvalOptions, LoggingOptions, TrainOptions
from .data.eval_sets import EvalSet, eval_sets, stored_sets, write_manifests
from .data.setup import model_of, stream_of, tables_of, training_rows
from .data.train_tasks import Subject, make_subjects
from .evaluation.evaluate import scores, told
from .loop import checkpoint
from .loop.distributed import gathered, place
from .loop.signals import Stop
from .loop.step import LossModule, any_batch, check_isolation, choose_device, learning_rate, make_optimizer, train_step
from .loop.timer import Clock
from .models.base import tokenizer_ids
from .models.options import parse_options
from .report.logs import Log, check_installed, open_logs
from .report.run_record import write_config, write_record

Say = Callable[[str], None]


class Run:
    """One run of a resolved configuration (see ``conf/config.yaml``).

    Args:
        config: plain values: groups are dicts.
        given: what the command line said of `dataset` and `data`, by name (checked against a manifest).
        say: is told a line now and then.

    Raises:
        UsageError: anything illegal, impossible or contradictory, before a step is made or a file written.
    """

    def __init__(self, config: Mapping[str, Any], given: Mapping[str, Any] | None = None, say: Say = print) -> None:
        self.config = config
        self.train = parse(TrainOptions, config["train"], "train")
        self.eval = parse(EvalOptions, config["eval"], "eval")
        self.logging = parse(LoggingOptions, config["logging"], "logging")
        check_installed(self.logging)
        self.data = parse(DataOptions, {k: v for k, v in config["data"].items() if k != "mixture_groups"}, "data")
        self.seed = _seed(config["seed"])
        self.folder = Path(config["output_dir"])
        self.rank, self.world = place()
        self._say: Say = say if self.rank == 0 else lambda line: None
        if self.train.batch_size % self.world:
            raise UsageError(
                f"train.batch_size={self.train.batch_size} is not shared evenly by {self.world} ranks; "
                f"legal: a multiple of {self.world}"
            )
        self.device = choose_device(self.train.device)

        name, options = _name_and_options(config["model"])
        special = tokenizer_ids(parse_options(name, options))
        self.subjects = make_subjects(
            config["dataset"], self.data, self.train, given=given, special=special,
            mixed=config["data"].get("mixture_groups"),
        )  # fmt: skip
        self.sets = [self._sets_of(subject) for subject in self.subjects]
        self.pad_id = special.pad if special is not None and special.pad is not None else 0
        rows = training_rows(self.subjects, self.data)
        self.loader = stream_of(rows, self.subjects, self.train, self.pad_id, self.rank, self.world).loader(
            num_workers=self.train.num_workers
        )
        self.tables = tables_of(self.subjects, self.folder, config["metrics_file"], config["plot_file"])
        self.built = model_of(name, options, self.seed, self.subjects, self.sets, self.train, self.eval)
        self.model: nn.Module = self.built.model.to(self.device)
        if self.train.packing != "pad" and self.train.isolate:
            check_isolation(self.model)
        self.optimizer = make_optimizer(self.model, self.train)
        self.step = 0

    # What it consists of -------------------------------------------------------------------------------------------

    def _sets_of(self, subject: Subject) -> list[EvalSet]:
        if self.eval.manifests is not None:
            return stored_sets(Path(self.eval.manifests), subject)
        return eval_sets(subject, self.eval)

    # Running -------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train to the last step; at Ctrl-C write a checkpoint and pass it on."""
        digest = checkpoint.digest_of(self.config)
        state = checkpoint.load(self.folder, digest) if self.train.resume == "auto" else None
        torch.manual_seed(_derived(self.seed, self.rank))
        if state is not None:
            self._restore(state)
            self._say(f"going on from step {self.step} of {checkpoint.NAME}")
        if self.rank == 0:
            self._write_inputs()
        logs = open_logs(self.folder, self.logging, self.config, self.step) if self.rank == 0 else []
        loss_of, clock = self._wrapped(), Clock(self.step, self.train.max_steps)
        batches = iter(self.loader)
        try:
            with Stop(self.world, self._say) as stop, closing(batches):
                self._loop(loss_of, batches, clock, logs, stop, digest)
        except KeyboardInterrupt:
            if self._whole:
                self._forget_half_an_evaluation()
                self._save(digest)
                self._say(f"stopped at step {self.step}; train.resume=auto with output_dir={self.folder} goes on")
            raise
        finally:
            for log in logs:
                log.close()
            if self.rank == 0:
                self._record(clock)
        if self.rank == 0 and self.train.save_model:
            self.built.model.save_pretrained(str(self.folder / "model"))

    def _loop(
        self, loss_of: nn.Module, batches: Iterator[Any], clock: Clock, logs: Sequence[Log], stop: Stop, digest: str
    ) -> None:
        o, loss = self.train, None
        while True:
            if self._evaluation_is_due():
                with clock.evaluating(), stop.at_once():
                    lines = self._evaluate(logs) if self.rank == 0 else []
                    if self.world > 1:
                        dist.barrier()
                self._progress(loss, clock, lines)
            elif o.log_every_steps and self.step and self.step % o.log_every_steps == 0:
                self._progress(loss, clock, [])
            if o.checkpoint_every and loss is not None and self.step % o.checkpoint_every == 0:
                self._save(digest)
            if self.step == o.max_steps:
                return
            stop.check()
            self._whole = False  # a second Ctrl-C can end what follows anywhere
            loss = self._one_step(loss_of, batches, clock, logs)
            self._whole = True

    #: Whether model, optimizer, loader and generators stand between two steps, so that a checkpoint makes sense.
    _whole = True

    def _wrapped(self) -> nn.Module:
        loss_of: nn.Module = LossModule(self.model, self.train.isolate)
        if self.train.compile:
            loss_of = torch.compile(loss_of)  # type: ignore[assignment]
        if self.world > 1:
            ids = [self.device] if self.device.type == "cuda" else None
            loss_of = nn.parallel.DistributedDataParallel(
                loss_of, device_ids=ids, find_unused_parameters=self.config["model"]["name"] == "recurrent_olmo3"
            )
        return loss_of

    def _one_step(self, loss_of: nn.Module, batches: Iterator[Any], clock: Clock, logs: Sequence[Log]) -> float:
        o, number = self.train, self.step + 1
        parts = []
        for _ in range(o.gradient_accumulation_steps):
            with clock.waiting():
                batch = next(batches)
            self._check_width(batch)
            parts.append(self._shift(batch))
        rate = learning_rate(number, o)
        loss = train_step(loss_of, self.model, self.optimizer, parts, rate, o, self.device)
        self.step = number
        clock.step(sum(int(part["attention_mask"].sum()) for part in parts) * self.world)
        values = {"train/loss": loss, "train/examples_seen": self.examples_seen, "train/learning_rate": rate}
        for log in logs:
            log.numbers(number, values)
        return loss

    @property
    def examples_seen(self) -> int:
        """Rows (or windows) that all ranks have trained on."""
        return self.step * self.train.batch_size * self.train.gradient_accumulation_steps

    def _progress(self, loss: float | None, clock: Clock, lines: Sequence[str]) -> None:
        shown = "" if loss is None else f"  loss {loss:.4f}"
        first = f"step {self.step}/{self.train.max_steps}  {self.examples_seen:,} examples{shown}  {clock.line()}"
        self._say("\n".join([first, *lines]))

    def _check_width(self, batch: Mapping[str, Any]) -> None:
        context, width = self.built.context, batch["input_ids"].shape[1]
        if context is not None and width > context:
            raise UsageError(
                f"a row of the batch has {width} tokens, and the model a context of {context}; legal: a longer "
                "context, or train.packing with train.seq_len"
            )

    def _shift(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """In a mixture of tasks, each row's ids moved to its task's place in the vocabulary."""
        found = any_batch(dict(batch))
        if len(self.subjects) > 1:
            offset = torch.tensor([s.offset for s in self.subjects])[batch["source"]][:, None]
            found["input_ids"] = torch.where(found["attention_mask"] == 1, found["input_ids"] + offset, self.pad_id)
            found["labels"] = torch.where(found["labels"] != -100, found["labels"] + offset, -100)
        return found

    # Evaluating ----------------------------------------------------------------------------------------------------

    def _evaluation_is_due(self) -> bool:
        """Behind step 1, every `eval_every_steps` and the last one, where it has not been done before a checkpoint."""
        step, o = self.step, self.train
        done = any(row["step"] == step for row in self.tables[0].rows[-1:])
        return not done and (step == 1 or step == o.max_steps or (step > 0 and step % o.eval_every_steps == 0))

    def _evaluate(self, logs: Sequence[Log]) -> list[str]:
        """Evaluate every subject, write tables and pictures, then log; what to tell of it."""
        lines: list[str] = []
        figures: dict[str, float] = {}
        number = len({row["step"] for row in self.tables[0].rows})
        for subject, sets, table in zip(self.subjects, self.sets, self.tables, strict=True):
            if self.eval.resample_each_eval and self.eval.manifests is None:
                sets = [one.at(number) for one in sets]
            found = scores(self.model, subject, sets, self.eval, _derived(self.seed, self.step))
            for row, values in list(found):
                table.add({"step": self.step, "examples_seen": self.examples_seen, **row})
                figures |= values
                lines.append(told(subject.name, row))
        for table in self.tables:
            table.write()
            table.draw()
        for log in logs:
            log.numbers(self.step, figures)
            for table in self.tables:
                log.picture(self.step, table.plot_path)
        return lines

    def _forget_half_an_evaluation(self) -> None:
        """Where Ctrl-C came in an evaluation: it is done again from its beginning."""
        tables = [{row["step"] for row in table.rows} for table in self.tables]
        if any(self.step in steps for steps in tables) and not all(self.step in steps for steps in tables):
            for table in self.tables:
                table.rows = [row for row in table.rows if row["step"] != self.step]

    # Going on ------------------------------------------------------------------------------------------------------

    def _save(self, digest: str) -> None:
        recursion = getattr(self.model, "recursion", None)
        own = {
            "loader": json.dumps(self.loader.state_dict()),
            "generator": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "recursion": recursion.get_state() if recursion is not None else None,
        }
        ranks = gathered(own, self.world)
        if self.rank:
            return
        checkpoint.save(
            self.folder,
            {
                "config": digest,
                "step": self.step,
                "ranks": ranks,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "tables": json.dumps([table.rows for table in self.tables]),
            },
        )

    def _restore(self, state: Mapping[str, Any]) -> None:
        ranks = state["ranks"]
        if len(ranks) != self.world:
            raise UsageError(
                f"{self.folder / checkpoint.NAME} is of {len(ranks)} ranks, and this run has {self.world}; "
                "legal: as many, or train.resume=no"
            )
        own = ranks[self.rank]
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(own["generator"])
        if own["cuda"] is not None:
            torch.cuda.set_rng_state(own["cuda"], self.device)
        recursion = getattr(self.model, "recursion", None)
        if recursion is not None:
            recursion.set_state(own["recursion"])
        self.loader.load_state_dict(json.loads(own["loader"]))
        for table, rows in zip(self.tables, json.loads(state["tables"]), strict=True):
            table.rows = rows

    # Records -------------------------------------------------------------------------------------------------------

    def _write_inputs(self) -> None:
        """What the run begins with, so that its folder explains itself from the first moment."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_config(self.folder, self.config)
        if not self.eval.resample_each_eval and self.eval.manifests is None:
            write_manifests([one for sets in self.sets for one in sets], self.folder / "eval")
        for subject in self.subjects:
            if subject.tokenizer_json is not None:
                (self.folder / "tokenizer.json").write_bytes(subject.tokenizer_json)
        for table in self.tables:
            table.write()
        self._record(Clock(self.step, self.train.max_steps))

    def _record(self, clock: Clock) -> None:
        figures = {
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "steps": self.step,
            "examples_seen": self.examples_seen,
            "device": str(self.device),
            "world_size": self.world,
            **clock.record(),
        }
        write_record(self.folder, self.subjects, self.sets, figures)


def _name_and_options(group: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    return str(group["name"]), {key: value for key, value in group.items() if key != "name"}


def _seed(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_SEED:
        raise UsageError(f"seed={value!r}; legal: an integer 0..2^64-1")
    return value


def _derived(seed: int, number: int) -> int:
    """A seed of its own for each number: never seed + number, under which neighbouring runs would share streams."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:8], "little")
