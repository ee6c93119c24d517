"""Errors an operator can act on, each with the exit code the command line ends with (docs/exit-codes.md)."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What `ringfence` exits with."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    CONFIG = 3
    DATABASE = 4
    NOT_FOUND = 5
    BAD_INPUT = 6
    SWITCH = 7
    CONFLICT = 8
    INTERRUPTED = 130


class RingfenceError(Exception):
    """A fault told to the operator as one sentence, without a traceback."""

    exit_code = ExitCode.REFUSED


class ConfigError(RingfenceError):
    """The configuration file or a secret it names is wrong."""

    exit_code = ExitCode.CONFIG


class DatabaseError(RingfenceError):
    """Postgres cannot be reached, refuses the login, or lacks the schema."""

    exit_code = ExitCode.DATABASE


class NotFoundError(RingfenceError):
    """What the operator named is not there."""

    exit_code = ExitCode.NOT_FOUND


class BadInputError(RingfenceError):
    """An argument or an input file is malformed; nothing was changed."""

    exit_code = ExitCode.BAD_INPUT


class SwitchError(RingfenceError):
    """A switch refuses the login or its socket cannot be used."""

    exit_code = ExitCode.SWITCH


class ConflictError(RingfenceError):
    """What was asked for contradicts what is there."""

    exit_code = ExitCode.CONFLICT
