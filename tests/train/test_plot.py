"""The command `plot`: which lines a picture has, where they run, and that it can be read."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers import Ended
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from synthshards.errors import DataError, UsageError
from synthshards.train.report.plot import (
    COLOURS,
    Curve,
    Line,
    lines_of,
    name_of_x,
    named,
    panels_of,
    picture,
    plot_curves,
    save,
)

Cli = Callable[..., Ended]
HEAD = "step,examples_seen,hop,accuracy,token_accuracy\n"


def depo(folder: Path, name: str, *accuracies: float, hops: tuple[int, ...] = (1, 2)) -> Path:
    """A CSV with one evaluation each 10 steps of batch 8; hop k has accuracy a / k."""
    path = folder / name
    lines = [f"{10 * i},{80 * i},{hop},{a / hop},0.5\n" for i, a in enumerate(accuracies, 1) for hop in hops]
    path.write_text(HEAD + "".join(lines))
    return path


def lano(folder: Path, name: str, *rows: tuple[float, float]) -> Path:
    path = folder / name
    lines = [f"{10 * i},{80 * i},{a},{kl}\n" for i, (a, kl) in enumerate(rows, 1)]
    path.write_text("step,examples_seen,accuracy,kl\n" + "".join(lines))
    return path


def read(*paths: Path) -> dict[str, list[Curve]]:
    return {"": [Curve.read(path) for path in paths]}


def test_one_line_a_hop(tmp_path: Path) -> None:
    lines = lines_of(read(depo(tmp_path, "a.csv", 0.2, 0.8)), "examples_seen", ["accuracy"], "range")
    assert [(line.hop, line.x, line.mean) for line in lines] == [
        (1.0, [80.0, 160.0], [0.2, 0.8]),
        (2.0, [80.0, 160.0], [0.1, 0.4]),
    ]


def test_seeds_become_their_mean_and_spread(tmp_path: Path) -> None:
    paths = [depo(tmp_path, f"{i}.csv", a, 1.0, hops=(1,)) for i, a in enumerate((0.2, 0.3, 0.7))]
    (line,) = lines_of(read(*paths), "step", ["accuracy"], "range")
    assert (line.x, line.low, line.high) == ([10.0, 20.0], [0.2, 1.0], [0.7, 1.0])
    assert line.mean == pytest.approx([0.4, 1.0])
    (line,) = lines_of(read(*paths), "step", ["accuracy"], "sd")
    sd = np.std([0.2, 0.3, 0.7], ddof=1)
    assert (line.low[0], line.high[0]) == (pytest.approx(0.4 - sd), pytest.approx(0.4 + sd))
    (line,) = lines_of(read(*paths), "step", ["accuracy"], "none")
    assert line.low == line.high == line.mean


def test_a_mean_is_over_all_runs_or_not_drawn(tmp_path: Path) -> None:
    """A run that stopped early does not bend the mean behind its end."""
    long, short = depo(tmp_path, "a.csv", 0.2, 0.4, 0.9, hops=(1,)), depo(tmp_path, "b.csv", 0.4, 0.6, hops=(1,))
    (line,) = lines_of(read(long, short), "step", ["accuracy"], "range")
    assert (line.x, line.mean) == ([10.0, 20.0], pytest.approx([0.3, 0.5]))
    with pytest.raises(UsageError, match="accuracy at hop 2: no x that all 2 runs have"):
        lines_of(read(depo(tmp_path, "c.csv", 0.1), short), "step", ["accuracy"], "range")


def test_what_is_no_number_is_left_out(tmp_path: Path) -> None:
    path = lano(tmp_path, "a.csv", (0.1, 2.0), (0.2, float("nan")), (0.3, 1.0))
    path.write_text(path.read_text() + "40,320,,0.5\n")
    by_metric = {line.metric: line for line in lines_of(read(path), "step", ["accuracy", "kl"], "range")}
    assert (by_metric["accuracy"].x, by_metric["kl"].x) == ([10, 20, 30], [10, 30, 40])


def test_accuracies_share_a_panel_and_other_figures_do_not(tmp_path: Path) -> None:
    metrics = ["accuracy", "kl"]
    panels = panels_of(lines_of(read(lano(tmp_path, "a.csv", (0.1, 2.0))), "step", metrics, "range"))
    assert [[line.metric for line in panel] for panel in panels] == [["accuracy"], ["kl"]]
    line = Line("", "token_accuracy", None, [1.0], [0.5], [0.5], [0.5])
    assert len(panels_of([*panels[0], line])) == 1
    panels = panels_of(lines_of(read(depo(tmp_path, "b.csv", 0.1)), "step", ["accuracy", "token_accuracy"], "range"))
    assert [len(panel) for panel in panels] == [2, 2], "hops make too many lines for one"


def drawn(lines: list[Line], **more: Any) -> list[dict[str, Any]]:
    """What the panels of a picture hold: labels → (colour, dashes, marker, data), scales and names of axes."""
    figure = picture(lines, "examples_seen", **more)
    return [
        {
            "lines": {
                str(line.get_label()): (line.get_color(), line.get_linestyle(), line.get_marker(), line.get_xydata())
                for line in axes.get_lines()
            },
            "bands": len(axes.collections),
            "x": (axes.get_xscale(), axes.get_xlabel()),
            "y": (axes.get_ylabel(), axes.get_ylim()),
        }
        for axes in figure.axes
    ]


def test_lines_are_drawn_where_they_belong(tmp_path: Path) -> None:
    groups = {
        "GPT-2": [Curve.read(depo(tmp_path, f"a{i}.csv", a, 0.5)) for i, a in enumerate((0.1, 0.3))],
        "Llama": [Curve.read(depo(tmp_path, "b.csv", 0.8, 1.0))],
    }
    (panel,) = drawn(lines_of(groups, "examples_seen", ["accuracy"], "range"), log_x=True)
    assert list(panel["lines"]) == ["GPT-2, 1 hop", "GPT-2, 2 hops", "Llama, 1 hop", "Llama, 2 hops"]
    np.testing.assert_allclose(panel["lines"]["GPT-2, 1 hop"][3], [[80, 0.2], [160, 0.5]])
    np.testing.assert_allclose(panel["lines"]["Llama, 2 hops"][3], [[80, 0.4], [160, 0.5]])
    assert panel["bands"] == 2, "around the lines of two runs"
    styles = {name: style[:3] for name, style in panel["lines"].items()}
    assert len(set(styles.values())) == 4
    assert styles["GPT-2, 1 hop"][0] == styles["Llama, 1 hop"][0] != styles["GPT-2, 2 hops"][0]
    assert styles["GPT-2, 1 hop"][1] != styles["Llama, 1 hop"][1]
    assert panel["x"] == ("log", "training examples seen")
    assert panel["y"][0] == "accuracy"
    assert panel["y"][1][0] < 0 < 1 < panel["y"][1][1], "all of an accuracy's range"


def test_a_line_is_told_by_more_than_its_colour(tmp_path: Path) -> None:
    lines = lines_of(read(depo(tmp_path, "a.csv", 0.5, hops=(1, 2, 3, 4, 8, 16, 32))), "step", ["accuracy"], "range")
    (panel,) = drawn(lines)
    colours, _, markers, _ = zip(*panel["lines"].values(), strict=True)
    assert len(set(colours)) == len(set(markers)) == 7


def simulated(colour: str, matrix: list[list[float]]) -> np.ndarray:
    """A colour as it is seen without one kind of cones (Viénot and others, 1999), in linear light."""
    linear = np.array(to_rgb(colour)) ** 2.2
    return np.asarray(matrix) @ linear


@pytest.mark.parametrize(
    "matrix",
    [
        [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],  # no red cones
        [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],  # no green cones
    ],
)
def test_colours_stay_apart_for_the_colour_blind(matrix: list[list[float]]) -> None:
    seen = [simulated(colour, matrix) for colour in COLOURS]
    apart = [np.abs(a - b).max() for i, a in enumerate(seen) for b in seen[:i]]
    assert min(apart) > 0.05
    # The usual ten of matplotlib fail this.
    usual = [simulated(colour, matrix) for colour in ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b")]
    assert min(np.abs(a - b).max() for i, a in enumerate(usual) for b in usual[:i]) < 0.05


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_same_picture_gives_the_same_bytes(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = lines_of(read(depo(tmp_path, "a.csv", 0.2, 0.8)), "examples_seen", ["accuracy"], "range")
    paths = [tmp_path / f"{i}{suffix}" for i in range(2)]
    for path in paths:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", f"{paths.index(path)}00000")  # what matplotlib takes for the time
        save(picture(lines, "examples_seen", title="Depo"), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"0{suffix}", f"1{suffix}", "a.csv"]


def test_the_command_writes_every_file(cli: Cli, tmp_path: Path) -> None:
    csvs = [depo(tmp_path, f"{i}.csv", a, 1.0) for i, a in enumerate((0.2, 0.4))]
    outs = [tmp_path / f"curve{suffix}" for suffix in (".png", ".svg", ".pdf")]
    ended = cli("plot", *csvs, "--title", "Two seeds", *(part for out in outs for part in ("--out", out)))
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.split() == [str(out) for out in outs]
    pixels = imread(outs[0])
    assert pixels.shape[0] > 300
    for colour in COLOURS[:2]:
        assert (np.abs(pixels[..., :3] - to_rgb(colour)).max(axis=2) < 0.02).sum() > 200, "a line of this colour"
    assert not (np.abs(pixels[..., :3] - to_rgb(COLOURS[2])).max(axis=2) < 0.02).any(), "and no third"
    words = "".join(ElementTree.parse(outs[1]).getroot().itertext())
    assert all(word in words for word in ("Two seeds", "1 hop", "2 hops", "accuracy", "training examples seen"))
    assert outs[2].read_bytes().startswith(b"%PDF")


def test_names_hops_and_metrics(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "b.csv", "lr=0.1.csv"):
        depo(tmp_path, name, 0.2, 0.9)
    assert named("lr=0.1.csv") == ("", Path("lr=0.1.csv"))
    assert named("x=lr=0.1.csv") == ("x", Path("lr=0.1.csv"))
    ended = cli("plot", "small=a.csv", "large=b.csv", "--hop", "2", "--x", "step", "--out", "two.svg")
    assert ended.code == 0
    words = [text for text in ElementTree.parse("two.svg").getroot().itertext() if text.strip()]
    assert [word for word in words if "hop" in word or word in ("small", "large")] == ["small, 2 hops", "large, 2 hops"]
    assert "training steps" in words
    lano(tmp_path, "lano.csv", (0.1, 2.0), (0.5, 1.0))
    assert cli("plot", "lano.csv", "--metric", "accuracy", "--metric", "kl").out == "curve.png\n"
    assert imread("curve.png").shape[0] > imread("curve.png").shape[1], "two panels, one above the other"


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["none.csv"], 2, "none.csv: no such file; legal: a CSV that synthshards curve has written"),
        (["a.csv", "--metric", "acuracy"], 2, "a.csv: no column 'acuracy'; did you mean 'accuracy'?; legal: step, "
            "examples_seen, hop, accuracy, token_accuracy"),
        (["a.csv", "--x", "epoch"], 2, "a.csv: no column 'epoch'; legal: step, examples_seen, hop, accuracy, "
            "token_accuracy"),
        (["a.csv", "--hop", "3"], 2, "no hop 3 in these runs; legal: 1, 2"),
        (["l.csv", "--hop", "3"], 2, "no hop 3 in these runs; legal: no --hop"),
        (["a.csv", "l.csv"], 2, "l.csv: no column 'hop'; legal: step, examples_seen, accuracy, kl"),
        (["a.csv", "--out", "a.png", "--out", "a.gif"], 2, "a.gif: not a picture; legal: .png, .svg, .pdf"),
        (["a.csv", "--out", "no/a.png"], 2, "no: no such folder; legal: one that exists"),
        (["empty.csv"], 1, "empty.csv: no rows; legal: a line of names, then at least one of numbers"),
        (["torn.csv"], 1, "torn.csv:3: '20,16'; legal: 4 numbers"),
        (["words.csv"], 1, "words.csv:2: 'ten,80,0.5,1'; legal: 4 numbers"),
        (["zero.csv", "--scale", "log"], 2, "a logarithmic axis cannot show examples_seen = 0; legal: numbers above 0, "
            "or --scale linear"),
    ],
)  # fmt: skip
def test_wrong_usage(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    depo(tmp_path, "a.csv", 0.5)
    lano(tmp_path, "l.csv", (0.5, 1.0))
    head = "step,examples_seen,accuracy,kl\n"
    Path("empty.csv").write_text(head)
    Path("torn.csv").write_text(f"{head}10,80,0.5,1\n20,16")
    Path("words.csv").write_text(f"{head}ten,80,0.5,1\n")
    Path("zero.csv").write_text(f"{head}0,0,0.5,1\n")
    before = sorted(Path().iterdir())
    ended = cli("plot", *arguments)
    assert (ended.code, ended.out, ended.err) == (code, "", f"error: {line}\n")
    assert sorted(Path().iterdir()) == before, "nothing is left"


def test_errors_have_their_class(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        Curve.read(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(DataError, match="no rows"):
        Curve.read(tmp_path / "a.csv")


# What is in files, and in the environment ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"step,examples_seen,accuracy\n1,2,\xff\n", "not a CSV ('utf-8' codec"),
        (b"step,examples_seen,accuracy\n1,2," + b"9" * 200_000, "not a CSV (field larger than"),
        (b'step,examples_seen,accuracy\n1,2,"0.5\n', "not a CSV (unexpected end of data)"),
        (
            b"step,examples_seen,accuracy,accuracy\n1,2,0.5,0.5\n",
            "two columns are called 'accuracy'; legal: names that",
        ),
    ],
)
def test_what_is_no_csv_is_one_line(content: bytes, line: str, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    ended = cli("plot", tmp_path / "a.csv", "--out", tmp_path / "a.png")
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert line in ended.err
    assert not (tmp_path / "a.png").exists()


def test_numbers_too_large_for_an_axis_are_left_out(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "a.csv").write_text("step,examples_seen,accuracy\n1,1,1e308\n2,2,-1e308\n3,3,0.5\n4,1e308,1\n")
    ended = cli("plot", tmp_path / "a.csv", "--out", tmp_path / "a.png")
    assert (ended.code, ended.err) == (0, "")
    (line,) = lines_of(read(tmp_path / "a.csv"), "examples_seen", ["accuracy"], "none")
    assert (line.x, line.mean) == ([3.0], [0.5])


@pytest.mark.parametrize("text", [r"$\a$", "$", r"$\frac", "_hidden", "a $b$", "\udcff", "\x1b[2J"])
def test_texts_are_shown_as_they_are(text: str, tmp_path: Path) -> None:
    """A dollar begins no formula; a leading _ hides no line; what is no UTF-8 is escaped."""
    curve = Curve(tmp_path, ("step", text), ({"step": 1.0, text: 0.5}, {"step": 2.0, text: 0.6}))
    lines = lines_of({text: [curve], "other": [curve]}, "step", [text], "none")
    save(picture(lines, "step", title=text), tmp_path / "a.svg")
    shown = text.replace("\udcff", "\\udcff").replace("\x1b", "\\x1b")
    texts = [node.text or "" for node in ElementTree.parse(tmp_path / "a.svg").iter() if node.tag.endswith("text")]
    assert sum(one.strip() == shown for one in texts) >= 2, texts  # title and legend


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense"])
def test_the_backend_of_a_notebook_stops_nothing(backend: str, tmp_path: Path) -> None:
    path, env = depo(tmp_path, "a.csv", 0.2, 0.8), {**os.environ, "MPLBACKEND": backend}
    command = [sys.executable, "-m", "synthshards", "plot", str(path), "--out", str(tmp_path / "a.svg")]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    kept = "import os, synthshards.train.report; print(os.environ['MPLBACKEND'])"
    done = subprocess.run([sys.executable, "-c", kept], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == backend


def test_windows_are_called_windows(tmp_path: Path) -> None:
    """`examples_seen` counts windows where runs were packed: `rows_seen` then differs from it."""
    path = tmp_path / "a.csv"
    for rows, name in ((64, "training examples seen"), (503, "training windows seen")):
        path.write_text(f"step,examples_seen,accuracy,rows_seen\n1,64,0.5,{rows}\n")
        assert name_of_x("examples_seen", read(path)[""]) == name
        assert name_of_x("rows_seen", read(path)[""]) == "rows seen"
        plot_curves([str(path)], [str(tmp_path / "a.svg")], ["accuracy"], "examples_seen", "linear", "none", [], "")
        assert name in (tmp_path / "a.svg").read_text()
