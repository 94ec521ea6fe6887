"""Brevo: reasoning breadth."""
