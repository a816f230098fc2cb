"""The one exception that means: the user's input is wrong, and this line says what would be right."""


class UserError(ValueError):
    """Bad input. The message is one line; the command prints it without a traceback and exits with 2."""
