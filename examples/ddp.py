"""Data-parallel training that can stop and go on under another number of processes.

    pip install 'synthshards[torch]'
    torchrun --nproc-per-node 2 examples/ddp.py      # 20 steps on two processes, and a checkpoint
    torchrun --nproc-per-node 1 examples/ddp.py      # the next 20 steps, on one process: the same rows as on two

Each rank asks for its part of the global batch; there is no sampler. The state of any rank's stream restores them all.
"""

from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from synthshards import open_dataset

STEPS, BATCH = 20, 32
CHECKPOINT = Path("data/ddp/checkpoint.pt")

dist.init_process_group("gloo")
rank, world_size = dist.get_rank(), dist.get_world_size()

ds = open_dataset("lano-cfg3b", seed=0)  # on the fly; or a folder, or "s3://…"
stream = ds.batches(BATCH, repeat=True, rank=rank, world_size=world_size)

torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Embedding(4, 32), torch.nn.Linear(32, 4))  # ids 0..3: a model of token pairs
model = DistributedDataParallel(net)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

done = 0
if CHECKPOINT.exists():
    saved = torch.load(CHECKPOINT)
    done = saved["steps"]
    net.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    stream.load_state_dict(saved["stream"])

loader = stream.loader(num_workers=1)
for _, batch in zip(range(STEPS), loader, strict=False):
    logits, labels = model(batch["input_ids"])[:, :-1], batch["labels"][:, 1:]
    # The mean over the global batch, whatever the number of ranks: DDP divides summed gradients by their number.
    counted = (labels != -100).sum()
    dist.all_reduce(counted)
    total = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    optimizer.zero_grad()
    (total * world_size / counted).backward()
    optimizer.step()
    loss = total.detach() / counted
    dist.all_reduce(loss)

if rank == 0:
    print(f"steps {done + 1} to {done + STEPS} on {world_size} process(es): last loss {loss.item():.4f}")
    CHECKPOINT.parent.mkdir(parents=True, exist_ok=True)
    weights, moments = net.state_dict(), optimizer.state_dict()
    torch.save(
        {"steps": done + STEPS, "model": weights, "optimizer": moments, "stream": loader.state_dict()}, CHECKPOINT
    )
dist.barrier()
dist.destroy_process_group()
