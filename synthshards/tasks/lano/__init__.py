"""Lano: hierarchical structure. `grammars/` holds the published grammars."""
