"""The document of a run as tables of text, each made from the entries of one section."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Document = Mapping[str, Any]


class Table(NamedTuple):
    """A title, the heads of its columns, and its rows."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def _rate(value: float, unit: str = "") -> str:
    """``"62.4 M"``, three digits."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{_three(value / factor)} {letter} {unit}".rstrip()
    return f"{_three(value)} {unit}".rstrip()


def _three(value: float) -> str:
    """Three digits, more before the point if there are more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _times(value: float) -> str:
    return f"{_three(value)} ×"


def _percent(value: float) -> str:
    return f"{100 * value:.0f}%"


def _memory(value: int | None) -> str:
    return "–" if value is None else f"{value / 1e6:,.0f} MB"


def machine(document: Document) -> str:
    m = document["machine"]
    return (
        f"{m['cpu']}, {m['cores']} cores, {m['memory_bytes'] / 2**30:.0f} GiB; {m['system']}; Python {m['python']}, "
        f"numpy {m['numpy']}, numba {m['numba']}, pyarrow {m['pyarrow']}, synthshards {m['synthshards']}; "
        f"load at the start {m['load']}{'; rough figures (--quick)' if document['quick'] else ''}"
    )


def _plain(document: Document) -> Table:
    rows = [
        (e["preset"], f"{_rate(e['per_second'])} {e['unit']}/s", " ".join(map(_rate, e["measured"])))
        for e in document["plain"]
    ]
    return Table("Plain Python, one core", ("preset", "best", "in the course of the run"), rows)


def _generation(document: Document) -> Table:
    rows = [
        (
            e["preset"],
            f"{_rate(e['per_second'])} {e['unit']}/s",
            f"{_rate(e['median_per_second'])}",
            _rate(e["rows_per_second"]),
            f"{e['ns_per_row']:,.0f} ns",
            _times(e["ratio"]),
        )
        for e in document.get("generation", ())
    ]
    head = ("preset", "best", "median", "rows/s", "a row", "plain Python")
    return Table("Generation, one core", head, rows)


def _formats(document: Document) -> Table:
    rows = [
        (
            e["preset"],
            f"{e['format']} {e['compression']}",
            f"{_rate(e['write_per_second'])} {e['unit']}/s",
            _rate(e["write_rows_per_second"]),
            _times(e["write_ratio"]),
            f"{_rate(e['read_per_second'])} {e['unit']}/s",
            _times(e["read_ratio"]),
            f"{e['bytes_per_unit']:.2f}",
        )
        for e in document.get("formats", ())
    ]
    head = ("preset", "format", "write", "rows/s", "plain Python", "read", "plain Python", "bytes a token or character")
    return Table("Write and read, one core, in memory", head, rows)


def _pyarrow(document: Document) -> Table:
    rows = []
    for e in document.get("formats", ()):
        if theirs := e.get("pyarrow"):
            figures = []
            for speed in ("write_per_second", "read_per_second"):
                figures += [_rate(e[speed]), _rate(theirs[speed]), _times(e[speed] / theirs[speed])]
            sizes = (f"{size:.2f}" for size in (e["bytes_per_unit"], theirs["bytes_per_unit"]))
            rows.append((e["preset"], f"{e['compression']}, {e['unit']}/s", *figures, *sizes))
    head = ("preset", "parquet", "write", "pyarrow", "ratio", "read", "pyarrow", "ratio", "bytes a unit", "pyarrow")
    return Table("Our Parquet and pyarrow's, one core, in memory", head, rows)


def _columns(document: Document) -> Table:
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
    return Table("What each column costs, one core, in memory", head, rows)


def _digests(document: Document) -> Table:
    rows = [
        (
            e["preset"],
            f"{_rate(e['content_per_second'])} {e['unit']}/s",
            _times(e["content_ratio"]),
            f"{_rate(e['sha256_bytes_per_second'])}B/s",
        )
        for e in document.get("digests", ())
    ]
    head = ("preset", "content digest", "plain Python", "sha256 of a file")
    return Table("Digests, one core", head, rows)


def _processes(title: str, section: str) -> Callable[[Document], Table]:
    def table(document: Document) -> Table:
        rows = [
            (
                e["preset"],
                f"{e['format']} {e['compression']}",
                str(e["workers"]),
                f"{e['rows']:,}",
                f"{e['seconds']:.2f} s",
                f"{e['cpu_seconds']:.2f} s",
                _memory(e["peak_bytes"]),
                f"{_rate(e['per_second'])} {e['unit']}/s",
                _times(e["ratio"]),
            )
            for e in document.get(section, ())
        ]
        head = ("preset", "format", "workers", "rows", "wall", "processor", "peak memory", "speed", "plain Python")
        return Table(title, head, rows)

    return table


def _start_up(document: Document) -> Table:
    rows = [(e["command"], f"{e['seconds']:.2f} s", f"{e['cpu_seconds']:.2f} s") for e in document.get("start_up", ())]
    return Table("Start-up, whole processes", ("command", "wall", "processor"), rows)


def _resume(document: Document) -> Table:
    rows = [
        (
            f"{e['shards']:,}",
            f"{e['resume_seconds']:.2f} s",
            f"{e['resume_cpu_seconds']:.2f} s",
            f"{e['complete_seconds']:.2f} s",
            _memory(e["peak_bytes"]),
        )
        for e in document.get("resume", ())
    ]
    head = ("shards", "one was missing", "processor", "none was missing", "peak memory")
    return Table("Resuming a build, whole processes", head, rows)


def _loaders(document: Document) -> Table:
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
                f"{_rate(stream['per_second'])} tokens/s",
                _rate(stream["rows_per_second"]),
                *(_rate(by_workers[n]["per_second"]) for n in sorted(by_workers) if n),
                _percent(stream["of_padded"]),
                _percent(fly[0]) if fly else "–",
                _percent(max(fly)) if fly else "–",
            )
        )
    workers = sorted({e["workers"] for e in document.get("loaders", ()) if e["workers"]})
    threads = (f"loader, {n} thread{'s' if n > 1 else ''}" for n in workers)
    head = ("source", "batches", "stream", "rows/s", *threads, "of padded", "of generation", "with threads")
    return Table("Loaders, one process, real tokens", head, rows)


def _peers(document: Document) -> Table:
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
                    f"{_rate(e['per_second'])} tokens/s",
                    _rate(e["rows_per_second"]),
                    "–" if written is None else _rate(written),
                    _memory(e["bytes"]),
                    *(_times(ratios[name]) if name in ratios else "–" for name in names),
                )
            )
        blank = ("–",) * (4 + len(names))
        rows += [(e["library"], f"left out: {e['reason']}", *blank) for e in run["left_out"]]
    ours = tuple(f"ours, {e['reader']}" for run in document.get("peers", ())[:1] for e in run["ours"])
    head = ("library", "reader", "read", "rows/s", "rows/s written", "on disk", *ours)
    return Table("The same rows by other libraries, one process", head, rows)


def _training(document: Document) -> Table:
    rows = [
        (
            e["preset"],
            e["loop"],
            str(e["steps"]),
            f"{_rate(e['per_second'])} tokens/s",
            f"{100 * e['waiting']:.2f}%",
            _times(e["of_plain"]),
        )
        for e in document.get("train", ())
    ]
    head = ("preset", "loop", "steps", "speed", "waiting for data", "plain loop")
    return Table("Training GPT-2 of two layers on the CPU", head, rows)


def _stages(document: Document) -> Table:
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
    return Table("Where the time of a build goes, in seconds", head, rows)


def _summary(document: Document) -> Table:
    rows = [
        ("generation, one core", e["preset"], f"{_rate(e['per_second'])} {e['unit']}/s", _times(e["ratio"]))
        for e in document.get("generation", ())
    ]
    builds = document.get("builds", ())
    most = {e["preset"]: max(other["rows"] for other in builds if other["preset"] == e["preset"]) for e in builds}
    rows += [
        (
            f"build, {e['format']} {e['compression']}, {e['workers']} worker{'s' if e['workers'] > 1 else ''}",
            f"{e['preset']}, {e['rows']:,} rows in {e['seconds']:.2f} s",
            f"{_rate(e['per_second'])} {e['unit']}/s",
            _times(e["ratio"]),
        )
        for e in builds
        if e["rows"] == most[e["preset"]]
    ]
    return Table("In short", ("what", "of what", "speed", "plain Python"), rows)


#: Name of a marker → what stands there, in the order of the text report.
TABLES: dict[str, Callable[[Document], Table]] = {
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
