"""What the package says: sentences of errors, tables, warnings."""
