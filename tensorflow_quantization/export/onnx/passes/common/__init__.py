"""Passes for all files, and passes that several runtimes share."""
