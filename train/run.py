"""A training run: it is put together and checked first, then trains and evaluates, and can be resumed.

Everything that comes after a step is a function of what a checkpoint holds, so that a run that was killed and resumed
ends with the same CSV, bit for bit on a CPU, as one that was not.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from synthshards.errors import DataError, UsageError, first_line, say
from synthshards.params import parse
from synthshards.storage.local import replacing

from .config.compose import GROUPS, name_and_options
from .config.options import DataOptions, EvalOptions, LoggingOptions, RunOptions, TrainOptions
from .data.batches import epoch_sizes, shifted, stream_of
from .data.eval_sets import longest_met
from .data.train_tasks import make_train_tasks
from .data.trained_rows import COMPARED
from .evaluation.generators import seed_all
from .evaluation.isolation import check_isolation
from .evaluator import Evaluator, derived_seed
from .loop import checkpoint
from .loop.distributed import gathered, on_any_rank, rank_and_world_size
from .loop.seen import Seen
from .loop.signals import StopSignal
from .loop.step import LossModule, choose_device, learning_rate, make_optimizer, train_step
from .loop.timer import Timer
from .models import build_model, parse_options, tokenizer_ids
from .report.logs import Log, check_installed, open_logs
from .report.run_record import write_config, write_record
from .report.table import score_tables

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

    def __init__(self, config: Mapping[str, Any], given: Mapping[str, Any] | None = None, say: Say = say) -> None:
        self.config = config
        own = parse(RunOptions, {k: v for k, v in config.items() if k not in GROUPS}, "curve")
        self.train = parse(TrainOptions, config["train"], "train")
        self.eval = parse(EvalOptions, config["eval"], "eval")
        self.logging = parse(LoggingOptions, config["logging"], "logging")
        check_installed(self.logging)
        self.data = parse(DataOptions, {k: v for k, v in config["data"].items() if k != "mixture_groups"}, "data")
        self.seed, self.folder = own.seed, Path(own.output_dir)
        self.rank, self.world_size = rank_and_world_size()
        self._say: Say = say if self.rank == 0 else lambda line: None
        if self.train.batch_size % self.world_size:
            raise UsageError(
                f"train.batch_size={self.train.batch_size} is not shared evenly by {self.world_size} ranks; "
                f"legal: a multiple of {self.world_size}"
            )
        self.device = choose_device(self.train.device)

        name, options = name_and_options(config["model"])
        special = tokenizer_ids(parse_options(name, options))
        self.train_tasks = make_train_tasks(
            config["dataset"], self.data, self.train, given=given, special=special,
            mixed=config["data"].get("mixture_groups"),
        )  # fmt: skip
        tables = score_tables(self.train_tasks, self.folder, own.metrics_file, own.plot_file)
        self.evaluator = Evaluator(self.train_tasks, tables, self.eval, self.seed)
        self.pad_id = special.pad if special is not None and special.pad is not None else 0
        self.stream = stream_of(
            self.train_tasks, self.data, self.train, pad_id=self.pad_id, rank=self.rank, world_size=self.world_size
        )
        self.loader = self.stream.loader(num_workers=self.train.num_workers)
        self.built = build_model(
            name, options, seed=self.seed, task=" and ".join(one.name for one in self.train_tasks),
            largest_id=max(one.largest_id for one in self.train_tasks),
            longest_row=longest_met(self.train_tasks, self.evaluator.sets, self.train, self.eval),
        )  # fmt: skip
        self.model: nn.Module = self.built.model.to(self.device)
        self.built.prove()
        if self.train.packing != "pad" and self.train.isolate:
            check_isolation(self.model, self.built.vocab_size, "train.isolate", "train.packing=pad")
        elif self.eval.isolate and self.evaluator.in_windows:
            check_isolation(self.model, self.built.vocab_size, "eval.isolate", "eval.packed_seq_len=null")
        self.optimizer = make_optimizer(self.model, self.train)
        self.step, self.timer = 0, Timer(self.train.max_steps)
        self.seen = Seen(epoch_sizes(self.train_tasks, self.data))
        #: The first step whose loss, or whose weights at an evaluation, were no numbers.
        self.diverged_at: int | None = None
        #: Names the run to Weights & Biases, also where it is resumed.
        self.id = secrets.token_hex(4)

    # Running -------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train to the last step, or until it diverges; at Ctrl-C and SIGTERM write a checkpoint and pass them on."""
        digest = checkpoint.digest_of({**self.config, **self.built.source})
        state = checkpoint.load(self.folder, digest) if self.train.resume == "auto" else None
        seed_all(derived_seed(self.seed, self.rank))
        if state is not None:
            self._restore(state)
            self._say(f"going on from step {self.step} of {checkpoint.NAME}")
        elif line := self.built.about_seed(self.seed):
            self._say(line)
        if self.rank == 0:
            self._write_inputs()
        logs = open_logs(self.folder, self.logging, self.config, self.step, self.id) if self.rank == 0 else []
        loss_of, batches = self._wrapped(), iter(self.loader)
        with StopSignal(self.world_size, self._say, self.train.stop_on_usr1) as stop:
            try:
                with closing(batches):
                    self._loop(loss_of, batches, logs, stop, digest)
            except KeyboardInterrupt:
                if self._whole:
                    self.evaluator.forget_half(self.step)
                    self._save(digest)
                    self._say(f"stopped at step {self.step}; train.resume=auto with output_dir={self.folder} goes on")
                raise
            finally:
                for log in logs:
                    log.close()
                if self.rank == 0:
                    self._record()
        if self.rank == 0 and self.train.save_model:
            self.built.model.save_pretrained(str(self.folder / "model"))

    def _loop(
        self,
        loss_of: nn.Module,
        batches: Iterator[Any],
        logs: Sequence[Log],
        stop: StopSignal,
        digest: str,
    ) -> None:
        o, loss = self.train, None
        while True:
            stop.check()
            if self._evaluation_is_due():
                if not all(bool(p.isfinite().all()) for p in self.model.parameters()):
                    self._diverged()
                given = on_any_rank(self.stream.rows_given(COMPARED), self.world_size)
                with self.timer.evaluating():  # rank 0 evaluates while the others wait in `check`
                    lines = stop.at_once(partial(self._evaluate, logs, given))
                    stop.check()
                self._progress(loss, lines or [])
            elif o.log_every_steps and self.step and self.step % o.log_every_steps == 0:
                self._progress(loss, [])
            if o.checkpoint_every and loss is not None and self.step % o.checkpoint_every == 0:
                self._save(digest)
            if self._ends_here():
                return
            self._whole = False  # a second Ctrl-C can end what follows anywhere
            loss = self._one_step(loss_of, batches, logs)
            self._whole = True

    #: Whether model, optimizer, loader and generators stand between two steps, so that a checkpoint makes sense.
    _whole = True

    def _evaluation_is_due(self) -> bool:
        """Behind step 1, every `eval_every_steps` and the last one, where it has not been done before a checkpoint."""
        step = self.step
        due = step == 1 or self._ends_here() or (step > 0 and step % self.train.eval_every_steps == 0)
        return due and not self.evaluator.done(step)

    def _ends_here(self) -> bool:
        return self.step == self.train.max_steps or (self.diverged_at is not None and self.train.stop_on_nan)

    def _diverged(self) -> None:
        """It is a result: the rate was too high, say. What can still be measured is."""
        if self.diverged_at is None:
            self.diverged_at = self.step
            then = "the run ends here (train.stop_on_nan)" if self.train.stop_on_nan else "the run goes on"
            self._say(f"diverged at step {self.step}: loss or weights are no longer numbers; {then}")

    def _evaluate(self, logs: Sequence[Log], given: Sequence[np.ndarray]) -> list[str]:
        """What to tell of an evaluation, which rank 0 makes."""
        if self.rank:
            return []
        counts = {"tokens_seen": self.seen.tokens, "rows_seen": self.seen.rows}
        met = self.evaluator.count_trained(given)
        return self.evaluator.evaluate(self.model, self.step, self.examples_seen, counts, logs) + met

    def _wrapped(self) -> nn.Module:
        loss_of: nn.Module = LossModule(self.model, self.train.isolate, self.built.plain_logits)
        if self.train.compile:
            loss_of = torch.compile(loss_of)  # type: ignore[assignment]
        if self.world_size > 1:
            ids = [self.device] if self.device.type == "cuda" else None
            loss_of = nn.parallel.DistributedDataParallel(
                loss_of, device_ids=ids, find_unused_parameters=self.built.unused_weights
            )
        return loss_of

    def _one_step(self, loss_of: nn.Module, batches: Iterator[Any], logs: Sequence[Log]) -> float:
        o, number = self.train, self.step + 1
        given, parts = [], []
        for _ in range(o.gradient_accumulation_steps):
            with self.timer.waiting():
                batch = next(batches)
            self._check_width(batch)
            given.append(batch)
            parts.append(shifted(batch, self.train_tasks, self.pad_id))
        rate = learning_rate(number, o)
        loss = train_step(loss_of, self.model, self.optimizer, parts, rate, o, self.device)
        self.step, before = number, self.seen.tokens
        for line in self.seen.add(given, self.world_size):
            self._say(f"step {number}: {line}")
        self.timer.step(self.seen.tokens - before)
        values = {
            "train/loss": loss, "train/examples_seen": self.examples_seen, "train/tokens_seen": self.seen.tokens,
            "train/rows_seen": self.seen.rows, "train/learning_rate": rate,
        }  # fmt: skip
        if loss.router is not None:
            values["train/router_loss"] = loss.router
        if not isfinite(loss):
            self._diverged()
            values["train/diverged"] = 1
        for log in logs:
            log.numbers(number, values)
        return loss

    @property
    def examples_seen(self) -> int:
        """Rows, or with packing windows, that all ranks have trained on."""
        return self.step * self.train.batch_size * self.train.gradient_accumulation_steps

    def _progress(self, loss: float | None, lines: Sequence[str]) -> None:
        shown = "" if loss is None else f"  loss {loss:.4f}"
        unit = "rows" if self.train.packing == "pad" else "windows"
        first = f"step {self.step}/{self.train.max_steps}  {self.examples_seen:,} {unit}{shown}  {self.timer.line()}"
        for line in (first, *lines):
            self._say(line)

    def _check_width(self, batch: Mapping[str, Any]) -> None:
        context, width = self.built.context, batch["input_ids"].shape[1]
        if context is not None and width > context:
            raise UsageError(
                f"a row of the batch has {width} tokens, and the model a context of {context}; legal: a longer "
                "context, or train.packing with train.seq_len"
            )

    # Going on ------------------------------------------------------------------------------------------------------

    def _save(self, digest: str) -> None:
        own = checkpoint.rank_state(self.model, self.loader, self.device)
        ranks = gathered(own, self.world_size)
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
                "tables": json.dumps(self.evaluator.state()),
                "seen": self.seen.state(),
                "timer": self.timer.state(),
                "diverged_at": self.diverged_at,
                "id": self.id,
            },
        )

    def _restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            UsageError: it is of another number of ranks.
            DataError: something in it is not what `_save` wrote.
        """
        path = self.folder / checkpoint.NAME
        try:
            ranks = state["ranks"]
            if len(ranks) == self.world_size:
                return self._set(state, ranks[self.rank])
        except Exception as error:  # torch raises what it likes
            raise DataError(f"{path}: damaged ({first_line(error)}); legal: train.resume=no") from None
        raise UsageError(
            f"{path} is of {len(ranks)} ranks, and this run has {self.world_size}; legal: as many, or train.resume=no"
        )

    def _set(self, state: Mapping[str, Any], rank_state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        checkpoint.set_rank_state(rank_state, self.model, self.loader, self.device)
        self.evaluator.restore(json.loads(state["tables"]))
        self.seen.restore(state["seen"])
        self.timer.restore(state["timer"])
        self.step, self.diverged_at, self.id = state["step"], state["diverged_at"], state["id"]

    # Records -------------------------------------------------------------------------------------------------------

    def _write_inputs(self) -> None:
        """What the run begins with, so that its folder explains itself from the first moment."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_config(self.folder, self.config)
        self.evaluator.write_manifests(self.folder / "eval")
        for train_task in self.train_tasks:
            if train_task.tokenizer_json is not None:
                with replacing(self.folder / "tokenizer.json") as file:
                    file.write(train_task.tokenizer_json)
        for table in self.evaluator.tables:
            table.write()
        self._record()

    def _record(self) -> None:
        figures = {
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "model": {"name": self.config["model"]["name"], **self.built.record},
            "id": self.id,
            "steps": self.step,
            "examples_seen": self.examples_seen,
            "tokens_seen": self.seen.tokens,
            "rows_seen": self.seen.rows,
            "diverged": self.diverged_at is not None,
            "diverged_at": self.diverged_at,
            "device": str(self.device),
            "world_size": self.world_size,
            **self.evaluator.trained_on,
            **self.timer.record(),
        }
        write_record(self.folder, self.train_tasks, self.evaluator.sets, figures)
