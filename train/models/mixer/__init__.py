"""Llama's block around a mixer of the user's own."""
