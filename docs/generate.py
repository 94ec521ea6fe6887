"""Writes the generated parts of docs/, its pictures and the manifest's schema; ``--check`` fails where one is stale.

    python docs/generate.py            # write
    python docs/generate.py --check    # exit 1, and say what is stale

A generated part stands between ``<!-- generated: WHAT -->`` and ``<!-- end -->``, where WHAT is ``presets TASK``,
``parameters TASK``, ``sample TASK KEY=VALUE…``, ``lengths PRESET…``, ``training-presets``,
``settings FILE``, ``datasets`` or ``tree FLOOR``. Everything in it follows from the package alone (rows are of fixed
seeds), so that the text changes exactly when the package does.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import architecture_pictures
import manifest_schema
import numpy as np
import pictures
from drawing import BLUE, SOFT, picture, words

import synthshards
from synthshards.catalog import TASKS, make_task, resolve, task_from_text
from synthshards.kernels.buffers import Buffers
from synthshards.params import describe

DOCS = Path(__file__).parent
ROWS = 65_536
_PART = re.compile(r"(<!-- generated: ([^\n]*?) -->\n)(.*?)(<!-- end -->)", re.S)


def lengths_of(preset: str) -> np.ndarray:
    """Tokens (characters of text) of the first 65,536 rows of seed 0, split "docs"."""
    task, buffers, parts = make_task(preset), Buffers(), []
    for at in range(0, ROWS, 1024):
        parts.append(np.diff(task.batch(0, "docs", at, 1024, buffers=buffers).offsets))
    return np.concatenate(parts)


def presets(task: str) -> str:
    """The presets of a task: parameters, mean length, what they are."""
    lines = ["| preset | parameters | mean length | |", "|---|---|---|---|"]
    for name, preset in TASKS[task][0].presets.items():
        changed = " ".join(f"{k}={json.dumps(v) if not isinstance(v, str) else v}" for k, v in preset.params.items())
        lines.append(f"| `{name}` | {changed} | {preset.mean_length:.1f} | {preset.about} |")
    return "\n".join(lines) + "\n"


def parameters(task: str) -> str:
    """Every parameter of a task: legal values, default, meaning."""
    cls, values = resolve(task)
    lines = ["| parameter | legal | default | meaning |", "|---|---|---|---|"]
    for row in describe(cls.Params):
        default = json.dumps(values.get(row["name"], row["default"]))
        lines.append(f"| `{row['name']}` | {row['legal'].replace('|', '/')} | {default} | {row['meaning']} |")
    return "\n".join(lines) + "\n"


def sample(task: str, *pairs: str) -> str:
    """A row of middling length, decoded, tokens in the loss between guillemets."""
    made = task_from_text(task, pairs)
    row = sorted(made.take(0, 65), key=lambda r: len(r["input_ids"]) if "input_ids" in r else len(r["text"]))[32]
    facts = {k: v for k, v in row.items() if k not in ("input_ids", "loss_mask", "labels", "text")}
    if "text" in row:
        body = row["text"]
    else:
        names = made.decode(row["input_ids"])
        body = " ".join(f"«{name}»" if on else name for name, on in zip(names, row["loss_mask"], strict=True))
        body = body.replace("» «", " ")
    told = ", ".join(f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in facts.items())
    return f"```\n{body}\n```\n\n{told}\n"


def lengths(*names: str) -> str:
    """Mean, spread and deciles of the row length, and a picture of the first preset's distribution."""
    lines = ["| preset | mean | sd | deciles |", "|---|---|---|---|"]
    for name in names:
        found = lengths_of(name)
        deciles = " ".join(f"{q:.0f}" for q in np.percentile(found, range(10, 100, 10)))
        lines.append(f"| `{name}` | {found.mean():.1f} | {found.std():.1f} | {deciles} |")
    picture = f"lengths-{TASKS_OF[names[0]]}.svg"
    return "\n".join(lines) + f"\n\n![row lengths of {names[0]}]({picture})\n"


def training_presets() -> str:
    """The settings of every preset of `synthshards curve`."""
    from synthshards.train.config.compose import CONF, compose

    lines = [
        "| preset | context | batch | steps | schedule | weight decay | learning rates | packing | rows |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    paths = {path.stem: path for path in (CONF / "preset").glob("*.yaml")}
    for name in [preset for preset in TASKS_OF if preset in paths]:
        o = compose([f"preset={name}"])["train"]
        grid = re.search(r"--multirun train\.learning_rate=(\S+)", paths[name].read_text())
        assert grid is not None, f"{name} names its grid"
        shape = f"{o['schedule']} to {o['final_share']:.0%}, warm-up {o['warmup_steps']}"
        lines.append(
            f"| `{name}` | {o['seq_len']} | {o['batch_size']} | {o['max_steps']:,} | {shape} | {o['weight_decay']} | "
            f"{grid[1].replace(',', ' ')} | {o['packing']} | {o['num_examples'] or 'endless'} |"
        )
    return "\n".join(lines) + "\n"


def settings(file: str) -> str:
    """Every key of a file of train/conf with its default and the comment beside it; ``train/default`` is that file."""
    from synthshards.train.config.compose import CONF

    group = "" if file == "config" else f"{file.split('/')[0]}."
    lines, parents = ["| key | default | |", "|---|---|---|"], list[str]()
    text = (CONF / f"{file}.yaml").read_text()
    if file == "config":
        text = text[text.index("\nseed:") : text.index("\nhydra:")]
    for found in re.finditer(r"^( *)(\w+):(?: +([^#\n]*?))? *(?:# (.*))?$", text, re.M):
        depth, key, default, about = len(found[1]) // 2, found[2], found[3], found[4] or ""
        parents = [*parents[:depth], key]
        if key == "name" and not depth:
            continue
        shown = f"`{default}`" if default else ""
        if default or about:
            lines.append(f"| `{group}{'.'.join(parents)}` | {shown} | {about.replace('|', '/').replace('<', '&lt;')} |")
    return "\n".join(lines) + "\n"


def datasets() -> str:
    """The keys and defaults of every group of train/conf/dataset."""
    from synthshards.train.config.compose import CONF

    lines = ["| `dataset=` | keys and defaults |", "|---|---|"]
    for path in sorted((CONF / "dataset").glob("*.yaml")):
        pairs = re.findall(r"^(\w+): +([^#\n]*?) *(?:#.*)?$", path.read_text(), re.M)
        shown = " ".join(f"{key}={value}" for key, value in pairs if key not in ("name", "task"))
        lines.append(f"| `{path.stem}` | {shown} |")
    return "\n".join(lines) + "\n"


def tree(floor: str) -> str:
    """Every folder and module of a floor with the first sentence of its docstring, files before folders."""
    lines, root = ["| | |", "|---|---|"], Path(synthshards.__file__).parents[1] / floor

    def add(folder: Path) -> None:
        name = f"{folder.relative_to(root)}/" if folder != root else f"{floor}/"
        lines.append(f"| **`{name}`** | {_first_sentence(folder / '__init__.py')} |")
        for path in sorted(folder.glob("*.py")):
            if path.name != "__init__.py":
                lines.append(f"| `{path.relative_to(root)}` | {_first_sentence(path)} |")
        for inner in sorted(path.parent for path in folder.glob("*/__init__.py")):
            add(inner)

    add(root)
    return "\n".join(lines) + "\n"


def _first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring, on one line, for a table."""
    paragraph = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0]
    sentence = re.split(r"(?<=[.?]) (?=[A-Z`])", " ".join(paragraph.split()))[0]
    return sentence.removesuffix(".").replace("|", "\\|")


TASKS_OF = {preset: task for task, (cls, _) in TASKS.items() for preset in cls.presets}
PARTS: dict[str, Callable[..., str]] = {
    "presets": presets,
    "parameters": parameters,
    "sample": sample,
    "lengths": lengths,
    "training-presets": training_presets,
    "settings": settings,
    "datasets": datasets,
    "tree": tree,
}


def histogram_svg(preset: str) -> str:
    """The distribution of row lengths of a preset as an SVG: at most 60 bars over what 99.5% of the rows fill.

    A bar covers equally many possible lengths as any other (Mano's are odd): else some would be taller for no reason.
    """
    found = lengths_of(preset)
    low = int(found.min())
    step = int(np.gcd.reduce(found - low)) or 1
    lengths_shown = (int(np.percentile(found, 99.5)) - low) // step + 1
    bin_width = step * -(-lengths_shown // 60)
    bars = -(-lengths_shown * step // bin_width)
    counts = np.bincount((found - low) // bin_width, minlength=bars)[:bars]
    left, base, pixels = 40, 150, 560 / bars
    out = [
        f'<rect x="{left + i * pixels:.1f}" y="{base - 120 * c / counts.max():.1f}" width="{pixels - 1:.1f}" '
        f'height="{120 * c / counts.max():.1f}" fill="{BLUE[1]}"/>'
        for i, c in enumerate(counts)
    ]
    first = low - step / 2  # where the axis begins: a length is in the middle of the room that it has
    spacing = next(n for n in (10**k * m for k in range(6) for m in (1, 2, 5)) if n * 8 >= bars * bin_width)
    for value in range(-(-low // spacing) * spacing, low + bars * bin_width, spacing):
        at = left + (value - first) / bin_width * pixels
        out += [
            f'<path d="M{at:.1f} {base} v4" stroke="{SOFT}"/>',
            words(at, base + 18, f"{value:,}", SOFT, "middle", 12),
        ]
    unit = "tokens" if "input_ids" in make_task(preset).columns else "characters"
    longer = 1 - counts.sum() / len(found)
    told = f"{ROWS:,} rows" + (f"; {longer:.1%} are longer than drawn" if longer else "")
    out.append(words(320, 190, f"{unit} per row of {preset} ({told})", SOFT, "middle", 12))
    return picture(640, 204, out)


def outputs() -> dict[Path, str]:
    """Every generated file with the text that it should have."""
    page = DOCS / "tasks.md"
    out: dict[Path, str] = {
        DOCS / name: svg for drawn in (architecture_pictures, pictures) for name, svg in drawn.pictures().items()
    }

    for folder in (DOCS, Path(synthshards.__file__).parent / "dataset"):
        out[folder / manifest_schema.NAME] = manifest_schema.schema()

    def fill(match: re.Match[str]) -> str:
        what, *arguments = match[2].split()
        if what == "lengths":
            out[DOCS / f"lengths-{TASKS_OF[arguments[0]]}.svg"] = histogram_svg(arguments[0])
        return f"{match[1]}{PARTS[what](*arguments)}{match[4]}"

    for page in sorted(DOCS.glob("*.md")):
        out[page] = _PART.sub(fill, page.read_text())
    return out


def main() -> int:
    """Write or check; the exit code."""
    stale = [path for path, text in outputs().items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.relative_to(DOCS.parent)} is stale; run: make docs", file=sys.stderr)
        return 1 if stale else 0
    for path, text in outputs().items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
