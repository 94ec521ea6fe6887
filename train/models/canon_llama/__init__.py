"""Llama with Canon layers."""
