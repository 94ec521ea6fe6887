"""`synthshards train`: the smallest experiment, from rows to a score, top to bottom. About half a minute on two cores.

By default ten steps of eight rows; ``synthshards train --help`` has examples.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

from synthshards.errors import UsageError
from synthshards.params import parse

from .config.compose import GROUPS, compose, given_of, name_and_options
from .config.options import DataOptions, EvalOptions, RunOptions, TrainOptions
from .data.batches import training_tensors
from .data.eval_sets import eval_sets, longest_row, metric_options
from .data.train_tasks import make_train_tasks
from .evaluation.evaluate import scores
from .evaluation.generators import seed_all
from .evaluation.isolation import check_isolation
from .loop.failures import explained
from .loop.step import choose_device, make_optimizer, mean_loss
from .models import build_model, parse_options, tokenizer_ids

#: Settings of `synthshards curve` that this script has no lines for.
_NOT_HERE = {
    *(f"data.{name}" for name in ("mixture", "mixture_params")),
    *(f"eval.{name}" for name in ("resample_each_eval", "manifests", "samples", "packed_seq_len", "isolate")),
    *(
        f"train.{name}"
        for name in (
            "schedule", "warmup_steps", "final_share", "max_grad_norm", "eval_every_steps", "num_workers", "precision",
            "gradient_accumulation_steps", "compile", "checkpoint_every", "resume", "log_every_steps", "save_model",
        )
    ),
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, evaluate, print.

    Args:
        arguments: Hydra overrides, such as ``train.max_steps=100``; default those of the command line.

    Raises:
        UsageError: an unknown or illegal setting.
    """
    overrides = list(sys.argv[1:] if arguments is None else arguments)
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if key in _NOT_HERE or key.startswith("logging"):
            raise UsageError(
                f"{key} says nothing here: the minimal example leaves it out; legal with: synthshards curve"
            )
    with explained():
        _experiment(overrides)


def _experiment(overrides: Sequence[str]) -> None:
    config = compose(overrides, "minimal")
    train, ev = parse(TrainOptions, config["train"], "train"), parse(EvalOptions, config["eval"], "eval")
    seed = parse(RunOptions, {k: v for k, v in config.items() if k not in GROUPS}, "train").seed
    device = choose_device(train.device)

    # Rows to train on: the split "train" of a seed; rows to be asked: its split "eval". They share no stream.
    name, options = name_and_options(config["model"])
    special = tokenizer_ids(parse_options(name, options))
    data = parse(DataOptions, config["data"], "data")
    (train_task,) = make_train_tasks(config["dataset"], data, train, given=given_of(overrides), special=special)
    sets = eval_sets(train_task, ev)

    # A model with random weights, large enough for the largest id and the longest row.
    built = build_model(
        name, options, seed=seed, task=train_task.name, largest_id=train_task.largest_id,
        longest_row=max(longest_row(sets, train_task.tokenizer), train.seq_len or 0),
    )  # fmt: skip
    model = built.model.to(device)
    built.prove()
    if train.packing != "pad" and train.isolate:
        check_isolation(model, built.vocab_size, "train.isolate", "train.packing=pad")
    if line := built.about_seed(seed):
        print(line)
    optimizer = make_optimizer(model, train)

    # Batches in index order, the same ones from shards and on the fly.
    stream = train_task.training_rows().batches(
        train.batch_size, packing=train.packing, seq_len=train.seq_len, repeat=True, tokenizer=train_task.tokenizer,
        pad_id=(special.pad if special is not None else None) or 0,
    )  # fmt: skip
    seed_all(seed)
    for step, batch in zip(range(1, train.max_steps + 1), stream, strict=False):
        inputs = {key: value.to(device) for key, value in training_tensors(batch).items()}
        loss = mean_loss(model, inputs, train.isolate, built.plain_logits)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        print(f"step {step:3d}  loss {loss.item():.4f}", flush=True)

    # What it has learned: whole answers, and tokens of answers with and without marks such as <ans>.
    measuring = metric_options(ev, train_task, seed)
    for row, _ in scores(model, train_task.name, train_task.task, sets, measuring):
        name = f"hop_{row['hop']}" if "hop" in row else train_task.name
        extra = "".join(f"  {key} {row[key]:.4g}" for key in train_task.evaluation.progress_columns)
        print(
            f"{name}: "
            f"whole answers {row['accuracy']:.4f} ± {row['standard_error']:.4f}  "
            f"answer tokens {row['answer_token_accuracy']:.4f}  with marks {row['token_accuracy']:.4f}{extra}"
        )

    # And a row is what the law says, by a checker that shares no code with the generator.
    print(f"first row valid: {bool(train_task.task.validate_example(train_task.dataset[0]))}")


if __name__ == "__main__":
    main()
