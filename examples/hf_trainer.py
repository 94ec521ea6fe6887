"""Train with Hugging Face's Trainer, then measure what the paper measures.

    pip install 'synthshards[train]' accelerate
    python examples/hf_trainer.py          # 300 steps, some minutes on one core; writes data/hf_trainer
    python examples/hf_trainer.py 20       # so many steps

docs/loading.md shows how to keep the stream's state in the Trainer's checkpoints, for an exact resume.
"""

import sys

from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from synthshards import make_task, open_dataset
from synthshards.train.evaluation.metrics import METRICS, eval_rows

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 300
model_inputs = ("input_ids", "labels", "attention_mask")


class StreamTrainer(Trainer):
    """The stream makes the batches, shuffles and shards them; the Trainer takes them as they are."""

    def get_train_dataloader(self):
        return self.train_dataset.loader(num_workers=1)

    def compute_loss(self, model, inputs, **options):
        return super().compute_loss(model, {name: inputs[name] for name in model_inputs}, **options)


arguments = TrainingArguments(
    "data/hf_trainer",
    max_steps=steps,
    per_device_train_batch_size=64,
    learning_rate=2e-3,
    logging_steps=20,
    save_strategy="no",
    report_to="none",
    disable_tqdm=True,
)
mano = {"L": 2, "value_mod": 5}  # arithmetic expressions of one or two operations, modulo 5
stream = open_dataset("mano", **mano).batches(
    batch_size=64 * arguments.world_size, repeat=True, rank=arguments.process_index, world_size=arguments.world_size
)
model = GPT2LMHeadModel(
    GPT2Config(vocab_size=10064, n_positions=32, n_embd=128, n_layer=2, n_head=4, bos_token_id=9999, eos_token_id=9999)
)
StreamTrainer(model, arguments, train_dataset=stream).train()

# The paper's metric, on the hardest rows (`qa`), from a split that training never sees.
task = make_task("mano", **mano, qa=True)
score = METRICS["mano"](model, task, eval_rows(task, seed=0, count=256))
print(f"accuracy {score.accuracy:.3f} ± {score.standard_error:.3f}")
