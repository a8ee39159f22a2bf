"""Reads the arguments: the commands with their help, and errors that name the closest command or option."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from tensorflow_quantization_cli import start
from tensorflow_quantization_cli.commands import (
    benchmark,
    check,
    compare,
    completion,
    describe,
    env,
    export,
    quantize,
    report,
    sensitivity,
)

#: In the order of the help: the way of a model first.
COMMANDS = {
    module.__name__.rpartition(".")[2]: module
    for module in (quantize, compare, sensitivity, benchmark, check, report, describe, export, env, completion)
}

_DESCRIPTION = """\
Quantized Keras models: from a .keras file and a folder of images to a verified
file that a runtime executes in integers."""

_EPILOG = """\
examples:
  tensorflow-quantization quantize model.keras --data images/ -o model.onnx
  tensorflow-quantization benchmark float.onnx model.onnx
  tensorflow-quantization quantize --help

exit status:
  0  done
  1  done, with findings, or with a figure beyond a limit such as --min-snr, or none
  2  not done: a wrong argument or file; the reason is on stderr, and no file was written
"""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Returns the options of a command. Its attribute `run` is the function that carries it out.

    Args:
        arguments: the arguments after the program's name; `None`: from `sys.argv`.

    Raises:
        SystemExit: after `--help`, `--version` and a wrong argument.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = make_parser()
    if not arguments:
        parser.print_help(sys.stderr)
        parser.exit(2)
    name = next((argument for argument in arguments if not argument.startswith("-")), None)
    if name is not None and name not in COMMANDS:
        parser.error(_unknown("command", name, list(COMMANDS)))
    options = parser.parse_args(arguments)
    try:
        options.check(options)
    except argparse.ArgumentTypeError as error:
        options.parser.error(str(error))
    return options


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands."""
    parser = _Parser("tensorflow-quantization", description=_DESCRIPTION, epilog=_EPILOG, usage="%(prog)s command ...")
    parser.add_argument("--version", action="version", version=start.version(), help="show the version and exit")
    commands = parser.add_subparsers(required=True, metavar="command", title="commands", prog=parser.prog)
    for name, module in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=module.HELP,
            description=f"{module.HELP}\n\n{module.DESCRIPTION}".strip(),
            epilog=_epilog(name, module.EXAMPLES, module.FINDINGS),
            usage=f"%(prog)s {module.USAGE}",
        )
        module.add_arguments(sub)
        # A command may compare its arguments with each other.
        sub.set_defaults(run=module.run, check=getattr(module, "check_arguments", lambda options: None), parser=sub)
    return parser


def _unknown(kind: str, name: str, known: list[str]) -> str:
    close = start.messages()["did_you_mean"](name, known)
    return f"there is no {kind} {name!r}.{close or ' There are ' + ', '.join(known) + '.'}"


def _epilog(name: str, examples: Sequence[str], findings: str) -> str:
    shown = "".join(f"  tensorflow-quantization {name} {example}\n" for example in examples)
    status = ["  0  done", *([f"  1  {findings}"] if findings else []), "  2  not done; the reason is on stderr"]
    return f"examples:\n{shown}\nexit status:\n" + "\n".join(status)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are short, and that names the option closest to an unknown one."""

    def __init__(self, prog: str | None = None, **kwargs: Any):
        super().__init__(prog, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **kwargs)
        # argparse takes "-1" for a value and "-1,0,1" for an option.
        self._negative_number_matcher = re.compile(r"^-\.?\d[-\d.,/e]*$")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            name = unknown[0].partition("=")[0]
            if not name.startswith("-"):
                self.error(f"one argument too many: {name}")
            known = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
            self.error(_unknown("option", name, known))
        return namespace, unknown

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: error: {message}\nTry: {self.prog} --help\n")
