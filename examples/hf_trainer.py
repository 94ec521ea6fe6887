"""Train with Hugging Face's Trainer, then measure what the paper measures.

    pip install 'synthshards[train]' accelerate
    python examples/hf_trainer.py          # 300 steps, about a minute on one core; writes data/hf_trainer
    python examples/hf_trainer.py 20       # so many steps

docs/loading-cookbook.md shows how to keep the stream's state in the Trainer's checkpoints, for an exact resume.
"""

import sys

from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

from synthshards import make_task, open_dataset
from synthshards.loaders import attention_mask_4d
from synthshards.train.evaluation.metrics import EVALUATIONS, MetricOptions, eval_rows

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 300


class StreamTrainer(Trainer):
    """The stream makes the batches, shuffles and shards them; the Trainer takes them as they are.

    Packed rows do not see one another, and each has positions from 0, as the metric below reads it.
    """

    def get_train_dataloader(self):
        return self.train_dataset.loader(num_workers=1)

    def compute_loss(self, model, inputs, **options):
        taken = {name: inputs[name] for name in ("input_ids", "labels", "position_ids")}
        taken["attention_mask"] = attention_mask_4d(inputs["segment_ids"])  # the batch's own marks padding alone
        return super().compute_loss(model, taken, **options)


# Sentences of a small grammar. Each begins with <bos>, which also ends the one before it in a packed window.
lano = {"grammar": "S -> A B | B A C\nA -> 1 2 | 2 3 1\nB -> 3 1 | 2 2\nC -> 1 1 | 3 2 2", "framing": "bos"}
arguments = TrainingArguments(
    "data/hf_trainer",
    max_steps=steps,
    per_device_train_batch_size=32,
    learning_rate=3e-3,
    logging_steps=20,
    save_strategy="no",
    report_to="none",
    disable_tqdm=True,
)
ranks = {"rank": arguments.process_index, "world_size": arguments.world_size}
stream = open_dataset("lano", **lano).batches(32 * arguments.world_size, packing="paper", seq_len=32, **ranks)
small = {"vocab_size": 8, "n_positions": 64, "n_embd": 64, "n_layer": 2, "n_head": 4, "initializer_range": 0.1}
no_dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
set_seed(0)  # the first weights
model = GPT2LMHeadModel(GPT2Config(**small, **no_dropout, bos_token_id=0, eos_token_id=0))
StreamTrainer(model, arguments, train_dataset=stream).train()

# The paper's metric, on rows of a split that training never sees: of the sentences that the model writes at temperature
# 1, the share that parses; and the divergence (KL) of its next-token distributions from the true ones, in nats.
task = make_task("lano", **lano)
score = EVALUATIONS["lano"].measure(model, task, eval_rows(task, seed=0, count=256), MetricOptions())
print(f"sentences that parse: {score.accuracy:.3f} ± {score.standard_error:.3f}, KL {score.kl:.4f} nats")
