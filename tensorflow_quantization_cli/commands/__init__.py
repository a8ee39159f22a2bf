"""One module for each command.

A module has `HELP` (one line), `DESCRIPTION`, `USAGE`, `EXAMPLES`, `FINDINGS` (what exit status 1 says; "" if never),
`add_arguments(parser)`, `run(options)`, which returns the exit status, and maybe `check_arguments(options)`, which
raises `argparse.ArgumentTypeError` before anything is loaded.
"""
