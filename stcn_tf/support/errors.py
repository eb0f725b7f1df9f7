"""The one exception that means "the user can mend this"."""


class UserError(ValueError):
    """A mistake in flags, files or data, told in one line: what, where, and what is accepted.

    Commands print the message without a traceback and exit with code 2 (`stcn_tf.support.cli`).
    """
