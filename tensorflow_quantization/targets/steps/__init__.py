"""The steps of `at_tensors`, one in each file. A step adds placements to a `Draft`."""
