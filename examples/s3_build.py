"""Build a dataset in an object store, a part on each machine, and stream from it.

    pip install 'synthshards[torch,remote]'
    python examples/s3_build.py s3://bucket/depo/train

Credentials and endpoint come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL …), as for the AWS tools. The
bucket must exist. From a shell the same is `synthshards build depo … --only-shards 0-1 --out s3://…`, then `seal`.
"""

import sys

from synthshards import make_task, open_dataset
from synthshards.pipelines.build import build, seal
from synthshards.pipelines.plan import make_plan
from synthshards.pipelines.verify import verify

url = sys.argv[1]
plan = make_plan(make_task("depo", N=20), seed=0, split="train", shards=4, shard_examples=2048)

# Each of these calls may run on another machine: shards are objects of their own, and their bytes do not depend on who
# makes them. A part that is run again only makes what is missing.
for shards in ("0-1", "2-3"):
    print(build(plan, url, only_shards=shards, workers=2).summary)

# Once all parts are there, somebody writes the manifest, which makes it a dataset.
manifest = seal(url)
print(f"{manifest.totals['examples']} rows, {manifest.identity.fingerprint}")
assert verify(url).ok

# Shards are fetched ahead, checked against the manifest, and kept in a bounded cache on the local disk.
stream = open_dataset(url).batches(batch_size=64, shuffle=True)
rows = sum(len(batch["index"]) for batch in stream.loader(num_workers=2))
print(f"streamed {rows} rows from {stream.stats()['shards_opened']} shards")
