"""Mano: knowledge manipulation."""
