"""The command line: one click group whose commands are loaded when used, so that ``--help`` answers at once.

This module imports nothing above the core. `COMMANDS` names where each command lives and what it needs.
"""

from __future__ import annotations

import getpass
import importlib
import os
import re
import resource
import signal
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import Any

import click

from . import __version__
from .errors import SynthshardsError, UsageError, bounded, cut, is_integer, nearest, printable

#: Command → (module, attribute, line of help, extra that it needs).
COMMANDS: dict[str, tuple[str, str, str, str | None]] = {
    "tasks": ("synthshards.commands", "tasks", "List tasks, parameters and presets.", None),
    "build": ("synthshards.pipelines.commands", "build", "Build shards of a task.", None),
    "seal": ("synthshards.pipelines.commands", "seal", "Finish a dataset built with --only-shards.", None),
    "info": ("synthshards.commands", "info", "Show what a dataset contains.", None),
    "verify": ("synthshards.pipelines.commands", "verify", "Check the files of a dataset, or its rows.", None),
    "reproduce": ("synthshards.pipelines.commands", "reproduce", "Regenerate a dataset from its manifest.", None),
    "overlap": ("synthshards.pipelines.commands", "overlap", "Count the rows two datasets share.", None),
    "inspect": ("synthshards.commands", "inspect", "Show rows, decoded and coloured.", None),
    "cache": ("synthshards.loaders.commands", "cache", "Show or clear the local copies of remote shards.", None),
    "loaders-check": (
        "synthshards.loaders.commands",
        "loaders_check",
        "Check the loaders' guarantees on a dataset.",
        "torch",
    ),
    "train": ("synthshards.train.commands", "train", "Train a small model: the minimal example.", "train"),
    "curve": ("synthshards.train.commands", "curve", "Train, evaluate and draw the learning curve.", "train"),
    "plot": ("synthshards.train.commands", "plot", "Draw learning curves of several runs.", "train"),
    "bench": ("synthshards.pipelines.bench.command", "bench", "Measure speeds on this machine.", None),
}


#: What libraries and compiled kernels map, and a little for rows (bytes).
_LEAST_MEMORY = 1 << 30

#: Rows that a command may be told to go through.
MAX_ROWS = 10**12

#: Section of `bench` that a floor above its own measures → (module, extra that it needs).
BENCH_SECTIONS: dict[str, tuple[str, str]] = {
    "loaders": ("synthshards.loaders.bench.streams", "torch"),
    "peers": ("synthshards.loaders.bench.rivals", "torch"),
    "train": ("synthshards.train.bench", "train"),
}


class Integer(click.IntRange):
    """An integer option, in plain ASCII digits: Python would take ``1_0``, ``٣`` and ``" 2 "``, too."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and not is_integer(value):
            self.fail(f"{cut(repr(value))} is not a valid integer (plain digits, at most 20).", param, ctx)
        return super().convert(value, param, ctx)


class Decimal(click.FloatRange):
    """A decimal option, as plain."""

    name = "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and not re.fullmatch(r"-?([0-9.]{1,40}(e-?[0-9]{1,3})?|nan|inf)", value):
            self.fail(f"{cut(repr(value))} is not a decimal number (such as 0.01).", param, ctx)
        return super().convert(value, param, ctx)


def load(module: str, extra: str | None, what: str) -> Any:
    """The module `module`, for `what` that its user asked for.

    Raises:
        UsageError: it needs a package that comes with `extra` and is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise _to_install(error, extra, what) from None


def _to_install(error: ModuleNotFoundError, extra: str | None, what: str) -> Exception:
    """What to raise where a module is missing: the error itself, unless an extra brings the module."""
    package = (error.name or "").partition(".")[0]
    extra = extra or _extra_with(package)
    if extra is None or package == "synthshards":
        return error
    return UsageError(f"{what} needs {package}; install it with: pip install 'synthshards[{extra}]'")


def _extra_with(package: str) -> str | None:
    """The extra that brings a package, by its module's name; `train` where that is one of them."""
    from importlib.metadata import PackageNotFoundError, requires  # here, as it is slow to load

    with suppress(PackageNotFoundError):
        for need in sorted(requires("synthshards") or [], key=lambda need: "train" not in need):
            found = re.match(r"([\w.-]+).*; extra == [\"']([\w-]+)[\"']", need)
            if found and package and found[1].lower().replace("-", "_").split("_")[0] == package.lower():
                return found[2]
    return None


class Group(click.Group):
    """A group that imports a command's module only when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute, _, extra = COMMANDS[name]
        _check_memory()
        _load_numpy()
        command: click.Command = getattr(load(module, extra, name), attribute)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:  # some commands import what their extra brings only when they run
            name = ctx.invoked_subcommand
            raise _to_install(error, COMMANDS[name][3] if name else None, str(name)) from None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS:
            raise UsageError(
                f"no command {cut(repr(args[0]))}{nearest(args[0], COMMANDS)}; legal: {', '.join(COMMANDS)}"
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line, _) in COMMANDS.items()])


@click.group(
    cls=Group,
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(__version__, prog_name="synthshards")
@click.option("--debug", is_flag=True, help="Show a traceback where an error stops a command.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Deterministic shards of synthetic tasks for language-model pretraining research.

    \b
    Example:
      synthshards build depo --shards 64        a million rows of Depo under data/depo/train
      synthshards verify data/depo/train        check that they are intact
      synthshards inspect depo N=12             rows, generated now, in readable form
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _check_memory() -> None:
    """Raise `SynthshardsError` under a limit that LLVM will meet: it ends the process then, without a line of ours."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < _LEAST_MEMORY:
        raise SynthshardsError(
            f"only {limit >> 20} MB of memory may be mapped (ulimit -v); legal: at least {_LEAST_MEMORY >> 20} MB"
        )


def _load_numpy() -> None:
    """Import NumPy with one thread for its linear algebra.

    OpenBLAS starts a thread a core when it is loaded, which turn idly for a tenth of a second and take the cores from
    whoever starts up meanwhile. What is loaded later (torch, child processes) finds the environment as it was.
    """
    limit = "OPENBLAS_NUM_THREADS"
    if "numpy" in sys.modules or limit in os.environ:
        return
    os.environ[limit] = "1"
    try:
        importlib.import_module("numpy")
    finally:
        del os.environ[limit]


def _name_the_nameless() -> None:
    """Give a user whom the system does not know, a container's number say, a home and a name, as some runtimes do.

    Without them, releases of Matplotlib and of PyTorch's compiler end with an error, and others make a folder "~".
    """
    if os.path.expanduser("~") == "~":  # noqa: PTH111 (Path.home() is an error then)
        os.environ["HOME"] = "/"
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"uid-{os.getuid()}"


def main() -> None:
    """Entry point: run the command line and exit with its code (0, 1, 2 or 130)."""
    _name_the_nameless()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # what its encoding lacks, or no encoding has, is shown escaped
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in sys.argv
    sys.argv = [arg for arg in sys.argv if arg != "--debug"]
    code: object = 0
    try:
        code = cli.main(prog_name="synthshards", standalone_mode=False)
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.ClickException as error:
        code = _fail(error, _click_line(error), 2, debug)
    except (click.Abort, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would end us by another code, or with a traceback
        click.echo("stopped", err=True)
        code = 130
    except SynthshardsError as error:
        code = _fail(error, str(error), error.exit_code, debug)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError):  # while the command ran: what loads it says so itself
            command = next((arg for arg in sys.argv[1:] if arg in COMMANDS), "synthshards")
            needed = _to_install(error, None, command)
            if isinstance(needed, UsageError):
                sys.exit(_fail(error, str(needed), needed.exit_code, debug))
        code = _fail(error, _shortage(error) or _unforeseen(error), 1, debug)
    sys.exit(code if isinstance(code, int) else 0)


def _shortage(error: Exception) -> str | None:
    """What the system had too little of, where that is what stopped us: whoever needed it says so in its own words."""
    said = " ".join(str(each) for each in (error, error.__cause__, error.__context__))
    if "can't start new thread" in said:
        return (
            "no more threads can be started; legal: fewer --workers, or more threads or memory (ulimit -u, ulimit -v)"
        )
    if isinstance(error, MemoryError) or re.search("failed to map segment|(?i:cannot allocate memory)", said):
        return "out of memory; legal: smaller --shard-examples or fewer --workers"
    return None


def _unforeseen(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or error}"
    return f"{type(error).__name__}: {error} (a fault of synthshards: please report it, with what --debug shows)"


def _click_line(error: click.ClickException) -> str:
    """click's message, with the command whose --help tells more."""
    ctx, message = getattr(error, "ctx", None), error.format_message().removesuffix(".")
    return f"{message} (see {ctx.command_path} --help)" if ctx is not None else message


def _fail(error: BaseException, line: str, code: int, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exception(error)
    click.echo(f"error: {printable(bounded(' '.join(line.split())))}", err=True)
    return code


if __name__ == "__main__":
    main()
