"""The document of a run as tables of text, each made from the entries of one section."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from .figures import megabytes, percent, rate, times

Document = Mapping[str, Any]


class TextTable(NamedTuple):
    """A title, the heads of its columns, and its rows."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def machine(document: Document) -> str:
    m = document["machine"]
    return (
        f"{m['cpu']}, {m['cores']} cores, {m['memory_bytes'] / 2**30:.0f} GiB; {m['system']}; Python {m['python']}, "
        f"numpy {m['numpy']}, numba {m['numba']}, pyarrow {m['pyarrow']}, synthshards {m['synthshards']}; "
        f"load at the start {m['load']}{'; rough figures (--quick)' if document['quick'] else ''}"
    )


def _plain(document: Document) -> TextTable:
    rows = [
        (e["preset"], f"{rate(e['per_second'])} {e['unit']}/s", " ".join(map(rate, e["measured"])))
        for e in document["plain"]
    ]
    return TextTable("Plain Python, one core", ("preset", "best", "in the course of the run"), rows)


def _generation(document: Document) -> TextTable:
    rows = [
        (
            e["preset"],
            f"{rate(e['per_second'])} {e['unit']}/s",
            f"{rate(e['median_per_second'])}",
            rate(e["rows_per_second"]),
            f"{e['ns_per_row']:,.0f} ns",
            times(e["ratio"]),
        )
        for e in document.get("generation", ())
    ]
    head = ("preset", "best", "median", "rows/s", "a row", "plain Python")
    return TextTable("Generation, one core", head, rows)


def _formats(document: Document) -> TextTable:
    rows = [
        (
            e["preset"],
            f"{e['format']} {e['compression']}",
            f"{rate(e['write_per_second'])} {e['unit']}/s",
            rate(e["write_rows_per_second"]),
            times(e["write_ratio"]),
            f"{rate(e['read_per_second'])} {e['unit']}/s",
            times(e["read_ratio"]),
            f"{e['bytes_per_unit']:.2f}",
        )
        for e in document.get("formats", ())
    ]
    head = ("preset", "format", "write", "rows/s", "plain Python", "read", "plain Python", "bytes a token or character")
    return TextTable("Write and read, one core, in memory", head, rows)


def _pyarrow(document: Document) -> TextTable:
    rows = []
    for e in document.get("formats", ()):
        if theirs := e.get("pyarrow"):
            figures = []
            for speed in ("write_per_second", "read_per_second"):
                figures += [rate(e[speed]), rate(theirs[speed]), times(e[speed] / theirs[speed])]
            sizes = (f"{size:.2f}" for size in (e["bytes_per_unit"], theirs["bytes_per_unit"]))
            rows.append((e["preset"], f"{e['compression']}, {e['unit']}/s", *figures, *sizes))
    head = ("preset", "parquet", "write", "pyarrow", "ratio", "read", "pyarrow", "ratio", "bytes a unit", "pyarrow")
    return TextTable("Our Parquet and pyarrow's, one core, in memory", head, rows)


def _columns(document: Document) -> TextTable:
    rows = [
        (
            e["preset"],
            e["column"],
            f"{e['bytes_per_unit']:.3f}",
            f"{e['write_ns_per_unit']:.2f} ns",
            f"{e['format']} {e['compression']}",
        )
        for e in document.get("columns", ())
    ]
    head = ("preset", "column", "bytes a token or character", "time to write", "in")
    return TextTable("What each column costs, one core, in memory", head, rows)


def _digests(document: Document) -> TextTable:
    rows = [
        (
            e["preset"],
            f"{rate(e['content_per_second'])} {e['unit']}/s",
            times(e["content_ratio"]),
            f"{rate(e['sha256_bytes_per_second'])}B/s",
        )
        for e in document.get("digests", ())
    ]
    head = ("preset", "content digest", "plain Python", "sha256 of a file")
    return TextTable("Digests, one core", head, rows)


def _processes(title: str, section: str) -> Callable[[Document], TextTable]:
    def table(document: Document) -> TextTable:
        rows = [
            (
                e["preset"],
                f"{e['format']} {e['compression']}",
                str(e["workers"]),
                f"{e['rows']:,}",
                f"{e['seconds']:.2f} s",
                f"{e['cpu_seconds']:.2f} s",
                megabytes(e["peak_bytes"]),
                f"{rate(e['per_second'])} {e['unit']}/s",
                times(e["ratio"]),
            )
            for e in document.get(section, ())
        ]
        head = ("preset", "format", "workers", "rows", "wall", "processor", "peak memory", "speed", "plain Python")
        return TextTable(title, head, rows)

    return table


def _start_up(document: Document) -> TextTable:
    rows = [(e["command"], f"{e['seconds']:.2f} s", f"{e['cpu_seconds']:.2f} s") for e in document.get("start_up", ())]
    return TextTable("Start-up, whole processes", ("command", "wall", "processor"), rows)


def _resume(document: Document) -> TextTable:
    rows = [
        (
            f"{e['shards']:,}",
            f"{e['resume_seconds']:.2f} s",
            f"{e['resume_cpu_seconds']:.2f} s",
            f"{e['complete_seconds']:.2f} s",
            megabytes(e["peak_bytes"]),
        )
        for e in document.get("resume", ())
    ]
    head = ("shards", "one was missing", "processor", "none was missing", "peak memory")
    return TextTable("Resuming a build, whole processes", head, rows)


def _loaders(document: Document) -> TextTable:
    """A row a source and way to batch: the speed of each number of threads, and ratios of the best of them."""
    cases: dict[tuple[str, str, str], dict[int, Any]] = {}
    for e in document.get("loaders", ()):
        cases.setdefault((e["preset"], e["source"], e["way"]), {})[e["workers"]] = e
    rows = []
    for (preset, source, way), by_workers in cases.items():
        stream = by_workers[0]
        fly = [e["of_generation"] for e in by_workers.values() if e["of_generation"] is not None]
        rows.append(
            (
                f"{preset}, {source}",
                way,
                f"{rate(stream['per_second'])} tokens/s",
                rate(stream["rows_per_second"]),
                *(rate(by_workers[n]["per_second"]) for n in sorted(by_workers) if n),
                percent(stream["of_padded"]),
                percent(fly[0]) if fly else "–",
                percent(max(fly)) if fly else "–",
            )
        )
    workers = sorted({e["workers"] for e in document.get("loaders", ()) if e["workers"]})
    threads = (f"loader, {n} thread{'s' if n > 1 else ''}" for n in workers)
    head = ("source", "batches", "stream", "rows/s", *threads, "of padded", "of generation", "with threads")
    return TextTable("Loaders, one process, real tokens", head, rows)


def _peers(document: Document) -> TextTable:
    """Ours first, then each way to read with another library, and how many times as fast ours is."""
    rows = []
    for run in document.get("peers", ()):
        names = [e["reader"] for e in run["ours"]]
        for e in (*run["ours"], *run["peers"]):
            written = e.get("write_rows_per_second")
            ratios = e.get("of_ours", {})
            rows.append(
                (
                    f"{e['library']} {e['version']}",
                    e["reader"],
                    f"{rate(e['per_second'])} tokens/s",
                    rate(e["rows_per_second"]),
                    "–" if written is None else rate(written),
                    megabytes(e["bytes"]),
                    *(times(ratios[name]) if name in ratios else "–" for name in names),
                )
            )
        blank = ("–",) * (4 + len(names))
        rows += [(e["library"], f"left out: {e['reason']}", *blank) for e in run["left_out"]]
    ours = tuple(f"ours, {e['reader']}" for run in document.get("peers", ())[:1] for e in run["ours"])
    head = ("library", "reader", "read", "rows/s", "rows/s written", "on disk", *ours)
    return TextTable("The same rows by other libraries, one process", head, rows)


def _training(document: Document) -> TextTable:
    rows = [
        (
            e["preset"],
            e["loop"],
            str(e["steps"]),
            f"{rate(e['per_second'])} tokens/s",
            f"{100 * e['waiting']:.2f}%",
            times(e["of_plain"]),
        )
        for e in document.get("train", ())
    ]
    head = ("preset", "loop", "steps", "speed", "waiting for data", "plain loop")
    return TextTable("Training GPT-2 of two layers on the CPU", head, rows)


def _stages(document: Document) -> TextTable:
    """Where a build's processor time goes: what the stages take by themselves, and what is left of the whole."""
    begin = next((e["cpu_seconds"] for e in document.get("start_up", ()) if e["command"] != "--help"), None)
    generation = {e["preset"]: e["per_second"] for e in document.get("generation", ())}
    digests = {e["preset"]: e for e in document.get("digests", ())}
    encoding = {
        (e["preset"], e["format"], e["compression"]): e["write_per_second"] for e in document.get("formats", ())
    }
    rows = []
    for e in document.get("builds", ()):
        preset, case = e["preset"], (e["preset"], e["format"], e["compression"])
        if begin is None or preset not in generation or preset not in digests or case not in encoding:
            continue
        parts = [
            begin,
            e["units"] / generation[preset],
            e["units"] / digests[preset]["content_per_second"],
            e["units"] / encoding[case],
            e["bytes"] / digests[preset]["sha256_bytes_per_second"],
        ]
        seconds = [*parts, e["cpu_seconds"] - sum(parts), e["cpu_seconds"], e["seconds"]]
        what = (preset, f"{e['format']} {e['compression']}", str(e["workers"]), f"{e['rows']:,}")
        rows.append((*what, *(f"{value:.2f}" for value in seconds)))
    stages = ("start-up", "generation", "content digest", "encoding", "file sha256", "rest", "processor", "wall")
    head = ("preset", "format", "workers", "rows", *stages)
    return TextTable("Where the time of a build goes, in seconds", head, rows)


def _summary(document: Document) -> TextTable:
    rows = [
        ("generation, one core", e["preset"], f"{rate(e['per_second'])} {e['unit']}/s", times(e["ratio"]))
        for e in document.get("generation", ())
    ]
    builds = document.get("builds", ())
    most = {e["preset"]: max(other["rows"] for other in builds if other["preset"] == e["preset"]) for e in builds}
    rows += [
        (
            f"build, {e['format']} {e['compression']}, {e['workers']} worker{'s' if e['workers'] > 1 else ''}",
            f"{e['preset']}, {e['rows']:,} rows in {e['seconds']:.2f} s",
            f"{rate(e['per_second'])} {e['unit']}/s",
            times(e["ratio"]),
        )
        for e in builds
        if e["rows"] == most[e["preset"]]
    ]
    return TextTable("In short", ("what", "of what", "speed", "plain Python"), rows)


#: Name of a marker → what stands there, in the order of the text report.
TABLES: dict[str, Callable[[Document], TextTable]] = {
    "plain": _plain,
    "generation": _generation,
    "formats": _formats,
    "pyarrow": _pyarrow,
    "columns": _columns,
    "digests": _digests,
    "builds": _processes("Builds, whole processes", "builds"),
    "verifications": _processes("Verifications, whole processes", "verifications"),
    "stages": _stages,
    "start-up": _start_up,
    "resume": _resume,
    "loaders": _loaders,
    "peers": _peers,
    "train": _training,
    "summary": _summary,
}
