"""A training run: what it consists of is made and checked first, then it trains, evaluates, and can be gone on with.

Everything that comes after a step is a function of what a checkpoint holds, so that a run that was killed and resumed
ends with the same CSV, bit for bit on a CPU, as one that was not.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from synthshards import __version__
from synthshards.errors import UsageError
from synthshards.loaders.dataset import Dataset, Mixture
from synthshards.params import parse
from synthshards.spec import MAX_SEED

from . import checkpoint
from .evals import EvalSet, eval_sets, longest_row, stored_sets, write_manifests
from .logs import Log, open_logs
from .metrics import METRICS, PACKED_METRICS
from .metrics import Options as MetricOptions
from .model_options import parse_options
from .models import BuiltModel, build_model, tokenizer_ids
from .optimize import LossModule, any_batch, choose_device, learning_rate, make_optimizer, train_step
from .options import DataOptions, EvalOptions, LoggingOptions, TrainOptions
from .shifted import Shifted
from .subjects import Subject, make_subjects
from .tables import Table

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
        self.config, self._say = config, say
        self.train = parse(TrainOptions, config["train"], "train")
        self.eval = parse(EvalOptions, config["eval"], "eval")
        self.logging = parse(LoggingOptions, config["logging"], "logging")
        self.data = parse(DataOptions, {k: v for k, v in config["data"].items() if k != "mixture_groups"}, "data")
        self.seed = _seed(config["seed"])
        self.folder = Path(config["output_dir"])
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        if self.train.batch_size % self.world:
            raise UsageError(f"train.batch_size={self.train.batch_size} is no multiple of the {self.world} ranks")
        self.device = choose_device(self.train.device)

        name, options = _model_of(config["model"])
        special = tokenizer_ids(parse_options(name, options))
        self.subjects = make_subjects(
            config["dataset"], self.data, self.train, self.folder, given=given, special=special,
            mixed=config["data"].get("mixture_groups"),
        )  # fmt: skip
        self.sets = [self._sets_of(subject) for subject in self.subjects]
        self.built = self._build(name, options)
        self.pad_id = special.pad if special is not None and special.pad is not None else 0
        self.model: nn.Module = self.built.model.to(self.device)
        self.optimizer = make_optimizer(self.model, self.train)
        self.loader = self._stream().loader(num_workers=self.train.num_workers)
        self.step = 0
        self.tables = [self._table(subject) for subject in self.subjects]

    # What it consists of -------------------------------------------------------------------------------------------

    def _sets_of(self, subject: Subject) -> list[EvalSet]:
        if self.eval.manifests is not None:
            return stored_sets(Path(self.eval.manifests), subject)
        return eval_sets(subject, self.eval)

    def _build(self, name: str, options: Mapping[str, Any]) -> BuiltModel:
        longest = max(longest_row(sets, s.tokenizer) for sets, s in zip(self.sets, self.subjects, strict=True))
        longest = max(longest, self.train.seq_len or 0, self.eval.packed_seq_len or 0)
        largest = max(subject.largest_id for subject in self.subjects)
        what = " and ".join(subject.name for subject in self.subjects)
        return build_model(name, options, seed=self.seed, task=what, largest_id=largest, longest_row=longest)

    def _stream(self) -> Any:
        o = self.train
        rows: Dataset | Mixture
        if len(self.subjects) == 1:
            rows = self.subjects[0].training_rows()
            tokenizer = self.subjects[0].tokenizer
        else:
            assert self.data.mixture is not None, "several subjects are a mixture"
            rows = Mixture([s.dataset for s in self.subjects], list(self.data.mixture.values()), "repeat")
            tokenizer = None
        return rows.batches(
            o.batch_size, seq_len=o.seq_len if o.packing != "pad" else None, packing=o.packing, repeat=True,
            rank=self.rank, world_size=self.world, pad_id=self.pad_id, tokenizer=tokenizer,
        )  # fmt: skip

    def _table(self, subject: Subject) -> Table:
        stem = "depo_hop" if subject.name == "depo" else subject.name
        alone = len(self.subjects) == 1
        csv = self.config["metrics_file"] if alone else None
        plot = self.config["plot_file"] if alone else None
        return Table(
            subject.task.name, self.folder / (csv or f"{stem}_metrics.csv"), self.folder / (plot or f"{stem}_curve.png")
        )

    # Running -------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train to the last step; at Ctrl-C write a checkpoint and pass it on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        digest = checkpoint.digest_of(self.config)
        state = checkpoint.load(self.folder, digest) if self.train.resume == "auto" else None
        torch.manual_seed(_derived(self.seed, self.rank))
        if state is not None:
            self._restore(state)
            self._say(f"going on from step {self.step} of {checkpoint.NAME}")
        if self.rank == 0:
            self._write_config()
            if not self.eval.resample_each_eval and self.eval.manifests is None:
                write_manifests([one for sets in self.sets for one in sets], self.folder / "eval")
        logs = open_logs(self.folder, self.logging, self.config, self.step) if self.rank == 0 else []
        loss_of = self._wrapped()
        clock = _Clock(self.step, self.train.max_steps)
        batches = iter(self.loader)
        try:
            with closing(batches):
                while self.step < self.train.max_steps:
                    self._one_step(loss_of, batches, clock, logs)
                    if self.train.checkpoint_every and self.step % self.train.checkpoint_every == 0:
                        self._save(digest)
        except KeyboardInterrupt:
            self._save(digest)
            self._say(f"stopped at step {self.step}; train.resume=auto with output_dir={self.folder} goes on")
            raise
        finally:
            for log in logs:
                log.close()
        if self.rank == 0:
            self._write_record(clock)

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

    def _one_step(self, loss_of: nn.Module, batches: Iterator[Any], clock: _Clock, logs: Sequence[Log]) -> None:
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
        seen = self.examples_seen
        for log in logs:
            log.numbers(number, {"train/loss": loss, "train/examples_seen": seen, "train/learning_rate": rate})
        if number == 1 or number % o.eval_every_steps == 0 or number == o.max_steps:
            with clock.evaluating():
                said = self._evaluate(logs) if self.rank == 0 else ""
                if self.world > 1:
                    dist.barrier()
            self._tell(f"step {number}/{o.max_steps}  {seen:,} examples  loss {loss:.4f}{said}  {clock.line()}")
        elif o.log_every_steps and number % o.log_every_steps == 0:
            self._tell(f"step {number}/{o.max_steps}  {seen:,} examples  loss {loss:.4f}  {clock.line()}")

    @property
    def examples_seen(self) -> int:
        """Rows (or windows) that all ranks have trained on."""
        return self.step * self.train.batch_size * self.train.gradient_accumulation_steps

    def _tell(self, line: str) -> None:
        if self.rank == 0:
            self._say(line)

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

    def _evaluate(self, logs: Sequence[Log]) -> str:
        """Evaluate every subject, write tables and pictures; what to tell of it."""
        told = []
        number = len({row["step"] for row in self.tables[0].rows})
        for subject, sets, table in zip(self.subjects, self.sets, self.tables, strict=True):
            model = self.model if subject.offset == 0 and len(self.subjects) == 1 else Shifted(self.model, subject)
            sets = (
                [one.at(number) for one in sets] if self.eval.resample_each_eval and not self.eval.manifests else sets
            )
            for row, values in self._scores(model, subject, sets):
                table.add({"step": self.step, "examples_seen": self.examples_seen, **row})
                for log in logs:
                    log.numbers(self.step, values)
                error = row["standard_error"]
                what = f"hop {row['hop']}" if "hop" in row else subject.name
                told.append(f"\n  {what}: accuracy {row['accuracy']:.4f} ± {error:.4f}{_more(row)}")
            table.write()
            table.draw()
            for log in logs:
                log.picture(self.step, table.plot_path)
        return "".join(told) + ("\n " if told else "")

    def _scores(
        self, model: nn.Module, subject: Subject, sets: Sequence[EvalSet]
    ) -> Iterator[tuple[dict[str, Any], dict[str, float]]]:
        """Rows of the table, and figures by the names that logs have for them."""
        name = subject.task.name
        options = MetricOptions(
            batch_tokens=max(1, self.eval.batch_size) * 512, batch_rows=self.eval.batch_size, samples=self.eval.samples,
            seed=_derived(self.seed, self.step) % (1 << 63), tokenizer=subject.tokenizer,
            used_tokens=None if subject.tokenizer is None else len(subject.tokenizer),
        )  # fmt: skip
        if name == "capo":
            rows = [row for one in sets for row in one.rows()]
            score = METRICS[name](model, subject.task, rows, options)
            yield score.columns(), {f"eval/{subject.name}_{k}": v for k, v in score.columns().items()}
            return
        for one in sets:
            if self.eval.packed_seq_len is not None and name in PACKED_METRICS:
                stream = one.dataset().batches(self.eval.batch_size, packing="paper", seq_len=self.eval.packed_seq_len)
                score = PACKED_METRICS[name](model, one.task, stream, options)
            else:
                score = METRICS[name](model, one.task, one.rows(), options)
            columns = score.columns()
            label = f"hop_{one.hop}" if one.hop is not None else subject.name
            logged = {f"eval/{label}_{k}": v for k, v in columns.items()}
            yield ({"hop": one.hop, **columns} if one.hop is not None else columns), logged

    # Going on ------------------------------------------------------------------------------------------------------

    def _save(self, digest: str) -> None:
        states: list[Any] = [self.loader.state_dict()]
        generators: list[Any] = [torch.get_rng_state()]
        if self.world > 1:
            states, generators = [None] * self.world, [None] * self.world
            dist.all_gather_object(states, self.loader.state_dict())
            dist.all_gather_object(generators, torch.get_rng_state())
        if self.rank:
            return
        recursion = getattr(self.model, "recursion", None)
        checkpoint.save(
            self.folder,
            {
                "config": digest,
                "step": self.step,
                "world": self.world,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "generators": generators,
                "cuda": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
                "recursion": recursion.get_state() if recursion is not None else None,
                "loader": json.dumps(states),
                "tables": json.dumps([table.rows for table in self.tables]),
            },
        )

    def _restore(self, state: Mapping[str, Any]) -> None:
        if state["world"] != self.world:
            raise UsageError(f"the checkpoint is of {state['world']} ranks, this run has {self.world}")
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["generators"][self.rank])
        if state["cuda"]:
            torch.cuda.set_rng_state_all(state["cuda"])
        recursion = getattr(self.model, "recursion", None)
        if recursion is not None and state["recursion"] is not None:
            recursion.set_state(state["recursion"])
        self.loader.load_state_dict(json.loads(state["loader"])[self.rank])
        for table, rows in zip(self.tables, json.loads(state["tables"]), strict=True):
            table.rows = rows
            if rows and self.rank == 0:
                table.write()

    # Records -------------------------------------------------------------------------------------------------------

    def _write_config(self) -> None:
        from omegaconf import OmegaConf

        plain = {k: v for k, v in self.config.items() if k != "data"}
        data = {k: v for k, v in self.config["data"].items() if k != "mixture_groups"}
        OmegaConf.save(OmegaConf.create({**plain, "data": data}), self.folder / "config.yaml")

    def _write_record(self, clock: _Clock) -> None:
        import numba
        import numpy
        import transformers

        record = {
            "data": [
                {
                    "name": s.name,
                    "fingerprint": s.dataset.fingerprint,
                    "identity": s.dataset.identity.as_dict(),
                    "rows": s.dataset.num_examples,
                    "id_offset": s.offset,
                }
                for s in self.subjects
            ],
            "eval": [
                {"name": one.label, "seed": one.seed, "split": one.split, "rows": one.count}
                for sets in self.sets
                for one in sets
            ],
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "steps": self.step,
            "examples_seen": self.examples_seen,
            "device": str(self.device),
            "world_size": self.world,
            "versions": {
                "python": platform.python_version(), "synthshards": __version__, "torch": torch.__version__,
                "transformers": transformers.__version__, "numpy": numpy.__version__, "numba": numba.__version__,
            },
            **clock.record(),
        }  # fmt: skip
        (self.folder / "run.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


class _Clock:
    """Where the time goes."""

    def __init__(self, step: int, steps: int) -> None:
        self._first, self._step, self._steps = step, step, steps
        self._began, self._waited, self._evaluated, self._tokens = time.perf_counter(), 0.0, 0.0, 0

    def waiting(self) -> _Stretch:
        """A stretch in which training waits for data."""
        return _Stretch(self, "_waited")

    def evaluating(self) -> _Stretch:
        """A stretch of evaluation."""
        return _Stretch(self, "_evaluated")

    def step(self, tokens: int) -> None:
        """A step is done."""
        self._step += 1
        self._tokens += tokens

    @property
    def _trained(self) -> float:
        return max(1e-9, time.perf_counter() - self._began - self._evaluated)

    def line(self) -> str:
        """Speed, waiting, and time left."""
        total = time.perf_counter() - self._began
        left = int(total / max(1, self._step - self._first) * (self._steps - self._step))
        share = self._waited / self._trained
        return f"{self._tokens / self._trained:,.0f} tokens/s, {share:.1%} waiting, {left // 60}:{left % 60:02} left"

    def record(self) -> dict[str, Any]:
        """What the run record says."""
        return {
            "wall_seconds": round(time.perf_counter() - self._began, 3),
            "evaluation_seconds": round(self._evaluated, 3),
            "waiting_for_data_seconds": round(self._waited, 3),
            "train_tokens_per_second": round(self._tokens / self._trained),
        }


class _Stretch:
    def __init__(self, clock: _Clock, name: str) -> None:
        self._clock, self._name, self._began = clock, name, 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        spent = getattr(self._clock, self._name) + time.perf_counter() - self._began
        setattr(self._clock, self._name, spent)


def _more(row: Mapping[str, Any]) -> str:
    """What a line tells beside the accuracy."""
    shown = [
        f"  {name} {row[name]:.4g}" for name in ("token_accuracy", "kl", "bits", "bits_per_parameter") if name in row
    ]
    return "".join(shown)


def _model_of(group: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    return str(group["name"]), {key: value for key, value in group.items() if key != "name"}


def _seed(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_SEED:
        raise UsageError(f"seed={value!r}; legal: an integer 0..2^64-1")
    return value


def _derived(seed: int, number: int) -> int:
    """A seed of its own for each number: never seed + number, under which neighbouring runs would share streams."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:8], "little")
