"""Passes for any file, and passes that several runtimes share."""
