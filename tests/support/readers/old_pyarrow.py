"""`by_old_pyarrow` of the tests of the readers, in that pyarrow's own environment: a question in, JSON out."""

import json
import sys

import pyarrow.compute as pc
import pyarrow.dataset as ds

asked = json.load(sys.stdin)
data = ds.dataset(asked["folder"])
bounds = [group.statistics[asked["column"]] for fragment in data.get_fragments() for group in fragment.row_groups]
found = {
    "columns": data.to_table().to_pydict(),
    "filtered": data.to_table(filter=pc.field(asked["column"]) == asked["value"])[asked["column"]].to_pylist(),
    "lowest": min(bound["min"] for bound in bounds),
    "highest": max(bound["max"] for bound in bounds),
    "count": data.count_rows(),
}
json.dump(found, sys.stdout)
