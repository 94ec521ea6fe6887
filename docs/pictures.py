"""The pictures of docs/loading*.md, drawn with the loaders themselves: `docs/generate.py` writes and checks them.

The order is drawn with blocks of 6 rows, 4 to a superblock, in place of 1,024 and 16; everything else is as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from drawing import BLUE, GREEN, GREY, HUES, INK, PURPLE, RED, SOFT, YELLOW, arrow, box, picture, words

from synthshards.kernels.buffers import Pool
from synthshards.loaders.batching.lanes import Packer
from synthshards.loaders.batching.packing import FIELDS, PACKINGS, Packing
from synthshards.loaders.batching.tensors import Memory
from synthshards.loaders.sources.row_refs import RowRefs
from synthshards.ragged import Column, RaggedBatch, offsets_of


def order() -> str:
    """From blocks by way of two permutations to lanes, batches and ranks."""
    rng = np.random.default_rng(3)
    supers, blocks, rows, lanes = 4, 4, 6, 4
    really = f"drawn with {rows} rows a block and {blocks} blocks a superblock; really 1,024 and 16"
    out = [
        words(24, 34, "1  the dataset: blocks of rows, in superblocks", bold=True),
        words(929, 34, really, SOFT, "end", 13),
    ]
    step, width = 57, 53

    def strip(y: float, numbers: Sequence[int]) -> Iterator[str]:
        for place, block in enumerate(numbers):
            yield box(24 + step * place, y, width, 26, HUES[block // blocks], str(block))

    out += strip(46, range(supers * blocks))
    out.append(words(24, 108, "2  superblocks are permuted, and blocks within each of them", bold=True))
    order_of = [int(s * blocks + b) for s in rng.permutation(supers) for b in rng.permutation(blocks)]
    out += strip(120, order_of)
    out.append(
        words(24, 182, "3  each lane takes consecutive blocks of that list, and reads one after another,", bold=True)
    )
    out.append(words(40, 200, "with rows permuted within each block; a batch takes one row from every lane", bold=True))
    top, cell, left = 232, 32, 110
    each = supers * blocks // lanes
    for lane in range(lanes):
        y = top + lane * 34
        out.append(words(24, y + 19, f"lane {lane}", SOFT))
        for k in range(each):
            block = order_of[lane * each + k]
            for turn, row in enumerate(rng.permutation(rows)):
                x = left + (k * rows + turn) * cell
                out.append(box(x, y, cell - 3, 28, HUES[block // blocks], str(block * rows + row)))
    right = left + each * rows * cell
    for g, x in ((0, left - 3), (1, left + cell - 3)):
        out.append(
            f'<rect x="{x}" y="{top - 5}" width="{cell + 3}" height="{lanes * 34 + 4}" rx="4" fill="none" '
            f'stroke="{INK}" stroke-width="2"/>'
        )
        out.append(words(x + cell / 2 + 1, top + lanes * 34 + 16, f"b{g}", INK, "middle", 13, True))
    for rank in range(2):
        y = top + rank * 68
        out.append(f'<path d="M{right + 6} {y} h8 v62 h-8" stroke="{SOFT}" fill="none" stroke-width="1.6"/>')
        out.append(words(right + 22, y + 36, f"rank {rank}", SOFT))
    out.append(
        words(left + 90, top + lanes * 34 + 16, "b0, b1, …: batches. Rank r of W gets a contiguous part of each,", SOFT)
    )
    out.append(words(left + 90, top + lanes * 34 + 34, "so a rank opens only the blocks of its own lanes.", SOFT))
    return picture(960, 420, out)


def resume() -> str:
    """One list of rows, interrupted after a batch, resumed with another number of ranks."""
    cell, left, rows = 22, 120, 34
    hues = (BLUE, GREEN, YELLOW, PURPLE)
    out = [words(24, 34, "one list of rows per epoch, whoever reads it", bold=True)]
    for p in range(rows):
        out.append(box(left + p * cell, 46, cell - 2, 24, GREY, str(p)))

    def run(y: float, first: int, stop: int, size: int, world: int, ahead: int, name: str) -> None:
        out.append(words(24, y + 16, name, INK, bold=True))
        for p in range(first, stop + ahead):
            begin = p - (p - first) % size
            count = min(size, rows - begin)
            (rank,) = (r for r in range(world) if r * count // world <= p - begin < (r + 1) * count // world)
            faint = {"stroke_dasharray": "3 2", "fill_opacity": "0.3"} if p >= stop else {}
            out.append(box(left + p * cell, y, cell - 2, 24, hues[rank], str(rank), **faint))
        for p in range(first, stop + ahead, size):
            length = min(size, rows - p) * cell - 4
            out.append(f'<path d="M{left + p * cell + 1} {y + 28} v6 h{length} v-6" stroke="{SOFT}" fill="none"/>')

    run(112, 0, 20, 4, 2, 8, "2 ranks")
    run(222, 20, rows, 8, 4, 0, "4 ranks")
    cut = left + 20 * cell - 1
    out.append(f'<path d="M{cut} 84 V262" stroke="{RED[1]}" stroke-width="2" stroke-dasharray="5 4"/>')
    out.append(words(left, 104, "batches of 4; a number is the rank that gets the row", SOFT, size=13))
    out.append(words(cut + 8, 104, "prefetched, not yet handed out: does not count", SOFT, size=13))
    out.append(box(left + 40, 170, 450, 30, RED, "state_dict(): epoch 0, unit 20, and which order it is"))
    out.append(arrow(f"M{cut} 200 V218"))
    out.append(words(cut + 60, 190, "load_state_dict(): batches of 8", SOFT, size=13))
    out.append(
        words(left, 286, "the last batch is short (drop_last leaves it out); every rank still gets one", SOFT, size=13)
    )
    return picture(960, 306, out)


LENGTHS = (34, 52, 27, 61, 18, 45, 70, 30, 39, 24)


def windows_of(mode: Packing, seq_len: int) -> list[list[tuple[int, int, int]]]:
    """The windows that the loaders' packer makes of rows of `LENGTHS`: (row, its first token, tokens)."""
    count = len(LENGTHS)
    values = np.concatenate([np.arange(n) for n in LENGTHS]).astype(np.uint16)
    offsets = offsets_of(np.array(LENGTHS, np.int64))
    columns = {
        "input_ids": Column("list<uint16>", values, offsets),
        "loss_mask": Column("list<bool>", np.ones(len(values), np.bool_), offsets),
    }
    rows = RowRefs.of(np.arange(count), RaggedBatch(columns))
    packer = Packer(mode, seq_len, np.zeros((1, 2), np.int64), np.array([count]), lambda lane, n: rows)
    plan = packer.plan(np.zeros(count, np.int64))
    tensors, addresses = Memory(Pool()).batch(FIELDS, len(plan), seq_len)
    plan.fill(0, np.arange(len(plan)), 0, np.array(addresses, np.uint64))
    out = []
    wanted = (tensors[name].numpy() for name in ("index", "segment_ids", "position_ids"))
    for index, segments, positions in zip(*wanted, strict=True):
        found = [np.flatnonzero(segments == s) for s in range(1, segments.max() + 1)]
        out.append([(int(index[at[0]]), int(positions[at[0]]), len(at)) for at in found])
    return out


def packing() -> str:
    """The same ten rows padded, and in windows of 100 tokens by each mode."""
    seq_len, scale = 100, 1.62
    out: list[str] = []
    cut_rows = 0
    for at, (mode, says) in enumerate(PACKINGS.items()):
        x, y = 24 + at * 232, 60
        out += [words(x, 32, mode, bold=True, size=15), words(x, 49, says, SOFT, size=13)]
        if mode == "pad":
            shown, width, height = [[(row, 0, n)] for row, n in enumerate(LENGTHS)], max(LENGTHS), 19
        else:
            shown, width, height = windows_of(mode, seq_len), seq_len, 32
        for window in shown:
            out.append(box(x, y, width * scale, height, GREY, stroke_dasharray="2 2"))
            used = 0
            for row, first, n in window:
                cut = first + n < LENGTHS[row]
                label = (
                    f"{row}"
                    + ("…" if cut and mode == "concat" and n > 13 else "")
                    + (" ✂" if cut and mode == "paper" else "")
                )
                label = label if n < 14 else ("…" if first else "") + label
                out.append(box(x + used * scale, y, n * scale, height, HUES[row % 4], label if n > 5 else ""))
                used += n
                cut_rows += cut
            y += height + 6
    assert cut_rows, "a picture of cuts"
    out.append(
        words(24, 336, "Grey is padding. ✂: the rest of the row is left out. …: it continues in the next window.", SOFT)
    )
    out.append(words(24, 356, "Numbers are rows; within a window, segment_ids 1, 2, 3, … distinguish them.", SOFT))
    return picture(960, 374, out)


def healing() -> str:
    """Where a shard's rows come from when its file is damaged or gone."""
    out = [
        box(24, 40, 170, 60, GREEN),
        words(109, 66, "train-00002.parquet", GREEN[2], "middle", 14, True),
        words(109, 86, "fetched whole, once", INK, "middle", 13),
        arrow("M194 70 H262"),
        box(266, 40, 180, 60, GREY),
        words(356, 66, "size and sha256", INK, "middle", 14, True),
        words(356, 86, "as in the manifest?", INK, "middle", 13),
        arrow("M446 70 H742"),
        words(590, 60, "yes", SOFT, "middle", 13),
        box(746, 40, 190, 60, GREEN),
        words(841, 66, "rows 2,048 … 3,071", GREEN[2], "middle", 14, True),
        words(841, 86, "at their place in the order", INK, "middle", 13),
        arrow("M356 100 V166"),
        words(366, 130, "damaged, absent, out of reach", SOFT, size=13),
        words(366, 148, "(after some retries)", SOFT, size=13),
        box(24, 168, 170, 64, BLUE),
        words(109, 194, "manifest: identity", BLUE[2], "middle", 14, True),
        words(109, 214, "task, params, seed, split", INK, "middle", 13),
        arrow("M194 200 H262"),
        box(266, 168, 180, 64, YELLOW),
        words(356, 194, "generate the shard", YELLOW[2], "middle", 14, True),
        words(356, 214, "its rows, in memory", INK, "middle", 13),
        arrow("M446 200 H512"),
        box(516, 168, 180, 64, GREY),
        words(606, 194, "content digest", INK, "middle", 14, True),
        words(606, 214, "as in the manifest?", INK, "middle", 13),
        arrow("M696 200 C 800 200 841 170 841 104"),
        words(822, 196, "yes: the same rows,", SOFT, size=13),
        words(822, 213, "one HealWarning", SOFT, size=13),
        arrow("M606 232 V268"),
        words(616, 254, "no", SOFT, size=13),
        box(516, 270, 180, 32, RED, "DataError"),
        arrow("M356 232 V320 H11 V70 H21", True),
        words(
            24,
            352,
            'heal="rewrite": the file is also replaced, if its bytes match the manifest',
            SOFT,
        ),
        words(24, 372, 'heal="raise": an error that names the file, nothing else', SOFT),
    ]
    return picture(960, 392, out)


def pictures() -> dict[str, str]:
    """File name → SVG."""
    drawn = {"order": order, "resume": resume, "packing": packing, "healing": healing}
    return {f"loading-{name}.svg": draw() for name, draw in drawn.items()}
