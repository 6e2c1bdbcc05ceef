"""The three ways in which a command can end badly, and their exit codes."""


class FlowerbedError(Exception):
    """Base of all errors that a user can cause or mend; the message is one line with the remedy."""

    exit_code = 1


class WorkFailed(FlowerbedError):
    """The work was started and failed: a playbook, a run, a host."""

    exit_code = 1


class UsageError(FlowerbedError):
    """The command, a file or a value that the user gave is wrong."""

    exit_code = 2


class EnvironmentLacks(FlowerbedError):
    """This machine lacks something: a program, root, a network."""

    exit_code = 3
