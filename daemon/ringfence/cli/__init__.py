"""The command line: `ringfence NOUN VERB`, one module for each noun. Here errors become exit codes."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line of this process and leave with a code of `ringfence.errors.ExitCode`.

    An error an operator can act on is one sentence on standard error; anything else keeps its traceback.
    """
    from ringfence.errors import BadInputError, ExitCode, RingfenceError

    try:
        for place, argument in enumerate(sys.argv[1:], start=1):
            if not argument.isprintable() and any("\ud800" <= character <= "\udfff" for character in argument):
                raise BadInputError(f"argument {place} is not valid UTF-8")
        from ringfence.cli.app import app

        app(prog_name="ringfence")
        code = int(ExitCode.OK)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except RingfenceError as error:
        from ringfence.cli.output import complain

        complain(str(error))
        code = int(error.exit_code)
    except KeyboardInterrupt:
        code = int(ExitCode.INTERRUPTED)
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
