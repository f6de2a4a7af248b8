"""The frame of the command line: one line per mistake instead of a traceback, logs on standard error, exit codes.

Exit codes: 0 done, 1 the optimisation diverged, 2 wrong input or a file that cannot be read or written, 130 interrupted
(a checkpoint is left).
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import latentdc
from latentdc.errors import DivergenceError, LatentDCError

_log = logging.getLogger(__name__)


class Commands(TyperGroup):
    """A group of commands that turns the errors of the library and the system into one clear line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except DivergenceError as error:
            _complain(str(error))
            raise typer.Exit(1) from None
        except LatentDCError as error:
            _complain(str(error))
            raise typer.Exit(2) from None
        except BrokenPipeError:  # The reader of the output went away; click ends quietly.
            raise
        except OSError as error:
            _log.info("where it happened:", exc_info=True)
            _complain(_reason(error))
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            _complain("interrupted; the same command with the same --out goes on from what it has kept")
            raise typer.Exit(130) from None


def _reason(error: OSError) -> str:
    named = error.filename is not None and error.strerror
    said = f"{error.filename}: {error.strerror}" if named else str(error) or type(error).__name__
    return f"{said}. Check the paths that were given, and the space left; latentdc -v shows where it happened."


def _complain(message: str) -> None:
    typer.echo(f"latentdc: error: {message}", err=True)


def group(help: str, *, alone: bool = False) -> typer.Typer:
    """A group of commands in the project's manner: plain help, no fancy tracebacks; ``alone`` if itself a command."""
    return typer.Typer(
        cls=Commands,
        help=help,
        no_args_is_help=not alone,
        invoke_without_command=alone,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )


app = group(
    """Condense a data set into a few latents of a pretrained generator, and measure what they teach.

    \b
    A first run, end to end:
      latentdc condense --data fashion-mnist-mini --images-per-class 1 --out runs/first
      latentdc evaluate runs/first --data fashion-mnist-mini --protocol quick --out runs/first-report
      latentdc decode runs/first --out runs/first-images --format folder

    \b
    Results go to standard output, progress and logs to standard error.
    Exit codes: 0 done, 1 diverged, 2 wrong input, 130 interrupted with a checkpoint left.
    """
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(latentdc.__version__)
        raise typer.Exit


@app.callback()
def frame(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is being done.")] = False,
) -> None:
    """Set up logging to standard error."""
    del version
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")


def emit(value: object) -> None:
    """Write one JSON value to standard output; of several processes the main one does."""
    say(json.dumps(value, indent=2, ensure_ascii=False))


def say(*lines: str) -> None:
    """Write lines meant for a reader to standard output; of several processes the main one does."""
    from latentdc.devices import is_main_process

    for line in lines if is_main_process() else ():
        typer.echo(line)
