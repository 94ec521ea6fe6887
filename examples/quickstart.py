"""From a task to a trained model: look at a row, build shards, verify them, stream batches, train.

pip install 'synthshards[torch]'
python examples/quickstart.py          # about a minute on one core; writes data/quickstart
python examples/quickstart.py 20       # so many steps
"""

import sys

import torch
from torch import nn

from synthshards import make_task, open_dataset
from synthshards.pipelines.build import build
from synthshards.pipelines.plan import make_plan
from synthshards.pipelines.verify import verify

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 400

# A task is a rule for rows. Depo hides a directed cycle in the list of its edges, and asks which node lies k steps on.
# (The published ids go up to 9,700; smaller ones keep the toy model small.)
small = {"mini_vocab": 10, "max_tlen": 1, "separator_token_id": 28, "answer_token_id": 29, "query_token_base": 30}
task = make_task("depo", N=6, K=2, **small)
row = task.example(seed=0, split="train", i=7)
print(" ".join(task.decode(row["input_ids"])))
assert task.validate_example(row)  # by a checker that shares no code with the generator

# `synthshards build depo N=6 K=2 … --shards 4 --out data/quickstart` does the same. A second run makes nothing anew.
print(build(make_plan(task, shards=4, shard_examples=16384), "data/quickstart").summary)
assert verify("data/quickstart").ok

# Rows are the same whether they come from shards or are generated on the fly, and so are batches.
stored, generated = open_dataset("data/quickstart"), open_dataset(task, num_examples=4 * 16384)
first, same = (next(iter(ds.batches(batch_size=64, shuffle=True))) for ds in (stored, generated))
assert first["input_ids"].equal(same["input_ids"])


class TinyTransformer(nn.Module):
    """Two layers, causal, without positions: enough to see the loss fall."""

    def __init__(self, vocabulary: int, width: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
        return self.head(self.layers(self.embed(ids), mask=mask, is_causal=True))


torch.manual_seed(0)
model = TinyTransformer(vocabulary=max(task.token_ids()) + 1)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
stream = stored.batches(batch_size=64, shuffle=True, repeat=True)
for step, batch in zip(range(1, steps + 1), stream.loader(num_workers=1), strict=False):
    # Labels are not shifted: position t of the logits predicts label t + 1. Labels outside the loss are −100.
    logits, labels = model(batch["input_ids"])[:, :-1], batch["labels"][:, 1:]
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 0:
        print(f"step {step}: loss {loss.item():.3f}")
