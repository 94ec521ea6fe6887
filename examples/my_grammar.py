"""A grammar of your own as a Lano dataset: write it, look at its sentences, ask what is exactly true of them, build it.

pip install synthshards
python examples/my_grammar.py          # writes data/my_grammar.cfg and data/my_grammar
"""

from pathlib import Path

from synthshards import make_task
from synthshards.pipelines.build import build
from synthshards.pipelines.plan import make_plan
from synthshards.tasks.lano.grammar import load_grammar

# One line a symbol, the root's first; every rule of a symbol is equally likely. Numbers are terminals: the tokens.
GRAMMAR = """
S  -> NP VP                # root
NP -> 1 2 | 1 3 2          # the cat, the black cat
VP -> 4 | 4 1 2 | 5 1 3 2  # sleeps, sees the cat, ...
"""
path = Path("data/my_grammar.cfg")
path.parent.mkdir(exist_ok=True)
path.write_text(GRAMMAR)

# The identity of the dataset holds the grammar's text, not its path: the file may change or go afterwards.
task = make_task("lano", grammar=str(path), framing="bos")
for row in task.take(seed=0, count=3):
    print(" ".join(task.decode(row["input_ids"])))
assert task.validate_example(row)

# What a perfect model would know: whether a sentence is in the language, how likely it is, and what comes next.
grammar = load_grammar(path)
print(f"terminals in a sentence: {grammar.lengths[0]} to {grammar.lengths[1]}, {grammar.lengths[2]:.2f} in the mean")
print("1 2 4 is a sentence:", grammar.contains([1, 2, 4]), " 2 1 4 is one:", grammar.contains([2, 1, 4]))
after = grammar.next_token_distributions([1])[1]  # after the prefix "1": terminals 1..V, then the end
print("after 1 comes", {token + 1: float(p) for token, p in enumerate(after) if p > 0})

print(build(make_plan(task, examples=10_000), "data/my_grammar").summary)
print("now try: synthshards inspect data/my_grammar --show 2")
