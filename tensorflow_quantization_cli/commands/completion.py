"""`completion`: the completion of commands, options and files in a shell."""

from __future__ import annotations

import argparse

from tensorflow_quantization_cli import arguments, results

HELP = "Print a script that completes commands, options and files in a shell."
DESCRIPTION = "The package shtab writes it: pip install 'tensorflow-quantization[completion]'."
USAGE = "SHELL"
EXAMPLES = (
    "bash > ~/.local/share/bash-completion/completions/tensorflow-quantization",
    "zsh > ~/.zfunc/_tensorflow-quantization    # ~/.zfunc is in $fpath",
    "fish > ~/.config/fish/completions/tensorflow-quantization.fish",
)
FINDINGS = ""

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "shell",
        metavar="SHELL",
        type=arguments.name_in(SHELLS),
        choices=SHELLS,
        help=arguments.one_of(SHELLS),
    )


def run(options: argparse.Namespace) -> int:
    try:
        import shtab
    except ImportError as error:
        raise ImportError("shtab is not installed: pip install 'tensorflow-quantization[completion]'") from error
    from tensorflow_quantization_cli.parser import make_parser

    parser = make_parser()
    for one in _with_commands(parser):
        for action in one._actions:
            # Everything that is neither one of some names nor a number is the path of a file or folder.
            if action.dest in arguments.PATHS:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    results.put(shtab.complete(parser, shell=options.shell))
    return 0


def _with_commands(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    subs = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return [parser, *(sub for action in subs for sub in action.choices.values())]
