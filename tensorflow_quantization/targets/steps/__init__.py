"""The steps of `at_tensors`, one a file: each adds placements to a `Draft`."""
