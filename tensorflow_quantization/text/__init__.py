"""Helpers for texts: sentences of error messages, tables, warnings."""
