"""The `dpmed` command: what all commands share, and the one place where errors become exit codes."""

import contextlib
import errno
import os
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from dpmed.cli.shared.console import Console, unprinted
from dpmed.cli.shared.fields import name_options, reword
from dpmed.errors import DpmedError, InputError, RunError
from dpmed.files import user_cache
from dpmed.pages import pages_folder
from dpmed.runtime.distributed import has_company, leave, lost_company
from dpmed.runtime.docstrings import leave_docstrings
from dpmed.runtime.malloc import collect_rarely, keep_freed_memory
from dpmed.runtime.programs import keep_programs
from dpmed.runtime.streams import prepare_streams

_HELP = {"--help", "-h", "--version", "--docs"}


class _Group(TyperGroup):
    def invoke(self, ctx: Any) -> Any:  # typer's own copy of click is private, so its Context cannot be named
        try:
            return super().invoke(ctx)
        except TyperException as error:
            of_program = [name for option in self.get_params(ctx) for name in option.opts]
            reword(error, of_program=of_program, command=ctx.invoked_subcommand or "")
            raise
        except (typer.Exit, typer.Abort):
            raise
        except DpmedError as error:
            name_options(error, self.get_command(ctx, ctx.invoked_subcommand or ""))
            _fail(ctx, error)
        except KeyboardInterrupt:
            _fail(ctx, RunError("interrupted"))
        except BrokenPipeError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
                # Any path that the user gave can be so long, and the first look at it fails.
                _fail(ctx, InputError("is too long for the name of a file or folder", where=str(error.filename)))
            remedy = "Run it again as `dpmed --debug …` to see where, and please report it."
            if has_company():
                remedy = "Another process of this run may have ended first; its own message says why. " + remedy
            unexpected = RunError(f"unexpected {type(error).__name__}: {error}", remedy=remedy)
            _fail(ctx, lost_company(error) or unexpected)


def _fail(ctx: typer.Context, error: DpmedError) -> None:
    console = ctx.obj if isinstance(ctx.obj, Console) else Console()
    if console.debug:
        raise  # noqa: PLE0704 called from within the except clauses above, for their traceback
    console.error(error)
    raise typer.Exit(error.exit_code)


app = typer.Typer(
    cls=_Group,
    name="dpmed",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"dpmed {version('dpmed')}")
        raise typer.Exit


def _show_docs(value: bool) -> None:
    if value:
        typer.echo(pages_folder())
        raise typer.Exit


@app.callback()
def dpmed(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    docs: Annotated[
        bool,
        typer.Option("--docs", callback=_show_docs, is_eager=True, help="Show where the documentation is and exit."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only results and errors, no plan or progress.")] = False,
) -> None:
    """Train on medical images with differential privacy, attack the training, and state the risk that remains."""
    del version, docs
    ctx.obj = Console(quiet=quiet, debug=debug)


def _register() -> None:
    # In the usual order of work. Each module only declares options; the real work is imported when its command runs.
    from dpmed.cli import (
        audit,
        bounds,
        budget,
        compare,
        evaluate,
        export,
        match,
        phantom,
        predict,
        reconstruct,
        train,
        visualize,
    )

    train.register(app)
    predict.register(app)
    evaluate.register(app)
    compare.register(app)
    export.register(app)
    reconstruct.register(app)
    match.register(app)
    visualize.register(app)
    bounds.register(app)
    audit.register(app)
    budget.register(app)
    phantom.register(app)


_register()


def main() -> None:
    """Run the command line."""
    prepare_streams()
    keep_freed_memory(os.environ)
    collect_rarely()
    if len(sys.argv) > 1 and not _HELP & set(sys.argv):
        with contextlib.suppress(InputError):  # without a home folder, programs are compiled each time
            keep_programs(os.environ, user_cache())
        leave_docstrings()
    try:
        app()
    except BrokenPipeError:
        # Whoever reads our output has stopped reading: no failure, and there is nobody left to tell.
        sys.stderr.close()
        sys.exit(1)
    except SystemExit as end:
        # Typer exits with 1 when the reader of its help closes the pipe, as `head` does: that is not a failure.
        leave(0 if _HELP & set(sys.argv) and end.code == 1 else end.code)
    except (Exception, KeyboardInterrupt) as error:
        # Only --debug lets an exception of a command through; without a command, printing is all that can fail.
        if isinstance(error, OSError) and _HELP & set(sys.argv):
            Console().error(unprinted(error))
        else:
            traceback.print_exc()
        leave(error.exit_code if isinstance(error, DpmedError) else 1)
