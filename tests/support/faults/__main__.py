"""Runs fault campaigns: `python -m faults [--times 20] [--only WORD] [--json FILE] [--markdown PAGE]`.

Exit code 1 if a fault was not survived. The JSON is added to, fault by fault, so that a run may be done in parts;
`--markdown` writes the table of all that it holds into a page.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from .catalog import FAULTS
from .fault import Tally, attempt


def progress(tally: Tally) -> None:
    if sys.stderr.isatty():
        print(f"\r{tally.fault}: {tally.survived} of {tally.tried}", end="", file=sys.stderr, flush=True)


def table(results: dict[str, Any]) -> str:
    """The results as Markdown, in the order of the catalog."""
    lines = ["| fault | what must hold | tried | survived |", "|---|---|---:|---:|"]
    for fault in FAULTS:
        if found := results.get(fault.name):
            lines.append(f"| {fault.name} | {fault.right} | {found['tried']:,} | {found['survived']:,} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="faults", description="Try faults, and count how many are survived.")
    parser.add_argument("--times", type=float, default=1.0, help="multiplies the number of tries (default 1)")
    parser.add_argument("--seed", type=int, default=0, help="another seed is other faults")
    parser.add_argument("--only", action="append", metavar="WORD", help="only faults whose names hold the word")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add the results to this file")
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="write --json's table into the page's markers")
    options = parser.parse_args()
    stored: dict[str, Any] = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    chosen = [fault for fault in FAULTS if not options.only or any(word in fault.name for word in options.only)]
    right = bool(chosen)
    for fault in chosen:
        tally = attempt(fault, max(1, round(fault.full * options.times)), options.seed, progress)
        right = right and tally.survived == tally.tried > 0
        print(f"\r{tally.fault}: {tally.survived:,} of {tally.tried:,} survived ({tally.seconds:.0f} s)", flush=True)
        for problem in tally.problems[:5]:
            print(f"  {problem}", flush=True)
        stored[fault.name] = tally.as_json()
        if options.json:
            options.json.write_text(json.dumps(stored, indent=1) + "\n")
    if options.markdown:
        text = re.sub(
            r"(<!-- faults -->\n).*?(<!-- /faults -->)",
            lambda found: found[1] + table(stored) + found[2],
            options.markdown.read_text(),
            flags=re.DOTALL,
        )
        options.markdown.write_text(text)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
