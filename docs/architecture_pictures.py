"""The two pictures of docs/architecture.md: from an index to bytes, and from a row to a batch."""

from __future__ import annotations

from collections.abc import Sequence

from drawing import BLUE, GREEN, GREY, INK, PURPLE, SOFT, YELLOW, arrow, box, picture, words

WIDTH, HEIGHT = 178, 74
#: Left edges of the four stations of a band.
LEFT = (148, 352, 556, 760)

FLOORS = words(24, 522, "blue: synthshards/ · yellow: pipelines/ · green: loaders/ · purple: train/", SOFT, size=12)


def band(y: float, name: str, lines: Sequence[str]) -> list[str]:
    """A grey band with its name at the left, for stations that lie in one part of the tree."""
    back = f'<rect x="16" y="{y:g}" width="934" height="{HEIGHT + 24}" rx="8" fill="{GREY[0]}"/>'
    return [
        back,
        words(28, y + 36, name, INK, bold=True),
        *(words(28, y + 56 + 17 * i, line, SOFT, size=12) for i, line in enumerate(lines)),
    ]


def station(column: int, y: float, hue: Sequence[str], title: str, line: str, path: str) -> list[str]:
    """A box of three lines in a band: what it is, what it does, and where that is written."""
    at = LEFT[column] + WIDTH / 2
    return [
        box(LEFT[column], y + 12, WIDTH, HEIGHT, hue),
        words(at, y + 35, title, hue[2], "middle", 14, True),
        words(at, y + 54, line, INK, "middle", 12),
        words(at, y + 75, path, SOFT, "middle", 11),
    ]


def across(y: float, column: int, back: bool = False) -> str:
    """An arrow from a station to the one at its right, or back."""
    left, right = LEFT[column] + WIDTH, LEFT[column + 1]
    return arrow(f"M{right - 2} {y + 49} H{left + 3}" if back else f"M{left + 2} {y + 49} H{right - 3}")


def down(y: float, column: int, to: float) -> str:
    """An arrow from the band at y to the one at `to`, at a column's middle."""
    return arrow(f"M{LEFT[column] + WIDTH / 2:g} {y + 12 + HEIGHT + 2} V{to + 9}")


def build() -> str:
    """From the index of a row to the bytes of a finished dataset."""
    first, second, third, fourth = 50, 168, 286, 404
    return picture(
        966,
        536,
        [
            words(24, 32, "From an index to bytes", bold=True, size=16),
            *band(first, "plan", ["what to make,", "and where"]),
            *station(0, first, YELLOW, "plan", "which rows in which shard", "pipelines/plan.py"),
            across(first, 0),
            *station(1, first, YELLOW, "executor", "one job a shard, anywhere", "pipelines/execution/"),
            across(first, 1),
            *station(2, first, YELLOW, "shard job", "rows start … stop−1", "pipelines/shard.py"),
            *station(3, first, BLUE, "identity", "task, params, seed, split", "synthshards/identity.py"),
            across(first, 2, back=True),
            *band(second, "generate", ["pure: no input,", "no output"]),
            *station(0, second, BLUE, "ragged batch", "flat tokens, mask, offsets", "synthshards/ragged.py"),
            across(second, 0, back=True),
            *station(1, second, BLUE, "kernel of the task", "draws and writes the row", "synthshards/tasks/"),
            across(second, 1, back=True),
            *station(2, second, BLUE, "stream of row i", "random words of (key, i)", "kernels/rng.py"),
            across(second, 2, back=True),
            *station(3, second, BLUE, "key", "sha256 of the identity", "synthshards/identity.py"),
            down(first, 3, second),
            down(first, 2, second),
            *band(third, "encode", ["a shard in", "memory"]),
            *station(0, third, BLUE, "content digest", "sha256 of the rows", "synthshards/digest.py"),
            down(second, 0, third),
            *station(1, third, BLUE, "writer", "blocks of 1,024 rows", "synthshards/formats/"),
            arrow(f"M{LEFT[0] + WIDTH - 30} {second + 88} V{second + 105} H{LEFT[1] + 40} V{third + 9}"),
            across(third, 1),
            *station(2, third, YELLOW, "file", "its bytes, and their sha256", "pipelines/shard.py"),
            *band(fourth, "store", ["whole, or not", "there at all"]),
            *station(2, fourth, BLUE, "folder or bucket", "write, sync, rename; upload", "synthshards/storage/"),
            down(third, 2, fourth),
            across(fourth, 1, back=True),
            *station(1, fourth, YELLOW, "journal", "one line a finished shard", "pipelines/folder/"),
            across(fourth, 0, back=True),
            *station(0, fourth, BLUE, "manifest", "last, when all shards stand", "synthshards/dataset/"),
            down(third, 0, fourth),
            FLOORS,
        ],
    )


def load() -> str:
    """From a row to the batch that a model is given."""
    first, second, third, fourth = 50, 168, 286, 404
    return picture(
        966,
        536,
        [
            words(24, 32, "From a row to a batch", bold=True, size=16),
            *band(first, "shards/", ["files that can", "be damaged"]),
            *station(0, first, BLUE, "file or object", "of a finished dataset", "synthshards/storage/"),
            across(first, 0),
            *station(1, first, GREEN, "checked file", "size, sha256; local cache", "shards/checked_files.py"),
            across(first, 1),
            *station(2, first, GREEN, "decoded block", "1,024 rows", "shards/reader.py"),
            *station(3, first, GREEN, "healing", "generates what is damaged", "shards/healing.py"),
            across(first, 2, back=True),
            *band(second, "sources/", ["rows at any", "index"]),
            *station(2, second, GREEN, "source", "rows by their indices", "sources/source.py"),
            down(first, 2, second),
            *station(3, second, BLUE, "on the fly", "the task generates the row", "synthshards/tasks/"),
            across(second, 2, back=True),
            arrow(f"M{LEFT[3] + WIDTH / 2:g} {second + 10} V{first + 89}", True),
            *station(1, second, GREEN, "tokenizer", "for rows of text", "sources/tokenize.py"),
            across(second, 1, back=True),
            *band(third, "batching/", ["and order/:", "which row when"]),
            *station(0, third, GREEN, "order", "which row comes when", "order/shuffle.py, mixing.py"),
            across(third, 0),
            *station(1, third, GREEN, "rows in order", "of one dataset or a mixture", "batching/ordered_source.py"),
            down(second, 1, third),
            across(third, 1),
            *station(2, third, GREEN, "padded or packed", "one kernel, many batches", "batching/"),
            across(third, 2),
            *station(3, third, GREEN, "tensors", "memory that is used again", "batching/tensors.py"),
            *band(fourth, "stream", ["what the user", "iterates"]),
            *station(3, fourth, GREEN, "stream", "batches, and exact state", "loaders/stream.py"),
            down(third, 3, fourth),
            across(fourth, 2, back=True),
            *station(2, fourth, GREEN, "loader", "threads fetch rows ahead", "loaders/threaded.py"),
            across(fourth, 1, back=True),
            *station(1, fourth, PURPLE, "training step", "loss, gradients, evaluation", "train/loop/"),
            FLOORS,
        ],
    )


def pictures() -> dict[str, str]:
    """File name → SVG."""
    return {"architecture-build.svg": build(), "architecture-load.svg": load()}
