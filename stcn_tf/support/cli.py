"""What every command shares: flags first, TensorFlow later, one clear line for each mistake."""

import contextlib
import errno
import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from absl import flags

from stcn_tf.support import environment, flagfiles
from stcn_tf.support.errors import UserError, one_line, reason_of

USAGE_ERROR = 2
INTERRUPTED = 130
BROKEN_PIPE = 141

_FULL = (errno.ENOSPC, errno.EDQUOT)

_LOG_LEVEL, _QUIET = "TF_CPP_MIN_LOG_LEVEL", "2"  # errors alone
_NOT_GIVEN = "must have a value other than None."  # how absl says that a flag is required
_FLAGFILE_HELP = """\
--flagfile=FILE stands for the flags in FILE, one a line; a line that begins with # is a comment.
FILE is looked for in the current folder, then where stcn_tf is installed, whose own flagfiles are
experiments/NAME.flags, stcn_tf:NAME for short. A flagfile that another one names is first looked
for next to that one and in the folders above it. A flag that is given twice takes its last value. A
path may begin with ~, the home folder."""


def fail(message: str) -> NoReturn:
    """Prints `error: message` as one line to stderr and exits with code 2."""
    print(f"error: {one_line(message)}", file=sys.stderr)
    sys.exit(USAGE_ERROR)


def show(text: str) -> NoReturn:
    """Prints a text that was asked for, and exits with code 0, even if not all of it is read."""
    _open_closed_streams()
    try:
        print(text, flush=True)
    except BrokenPipeError:  # `--help | head`
        _drop_stdout()
    sys.exit(0)


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Holds back what is written to stderr inside the block; shows it if the block raises.

    TensorFlow's C++ side prints lines about oneDNN and CUDA before its log level applies, so the
    file descriptor itself is redirected. A person who sets TF_CPP_MIN_LOG_LEVEL to 0 or 1, say to
    find out why a GPU is not used, sees everything.
    """
    if os.environ.get(_LOG_LEVEL, _QUIET) != _QUIET or sys.stderr is None:
        yield
        return
    os.environ[_LOG_LEVEL] = _QUIET  # for processes that this one starts, too
    sys.stderr.flush()
    with tempfile.TemporaryFile() as captured, contextlib.ExitStack() as undo:
        stderr = os.dup(2)
        undo.callback(os.close, stderr)
        os.dup2(captured.fileno(), 2)
        undo.callback(os.dup2, stderr, 2)
        undo.callback(sys.stderr.flush)
        try:
            yield
        except Exception:
            sys.stderr.flush()
            captured.seek(0)
            os.write(stderr, captured.read())
            raise


def run(
    main: Callable[[], int | None],
    define: Callable[[], None],
    needs_tensorflow: bool = True,
    positional: Sequence[str] = (),
) -> NoReturn:
    """Runs a command: defines and parses its flags, imports TensorFlow, calls `main`, exits.

    `--help` and every mistake in the flags answer before TensorFlow, which takes seconds to
    import; `main` imports the modules that use it.

    Args:
        main: called without arguments after parsing; returns the exit code or None for 0.
        define: defines the command's absl flags (a function of `stcn_tf.flags`, or its own).
        needs_tensorflow: whether to import TensorFlow, without its chatter, before `main`.
        positional: the flags, without a default, that words without a name fill in this order.
            Each needs a value, in either form.
    """
    _open_closed_streams()
    try:
        _define_flags(define, positional)
        _parse(sys.argv, positional)
        if needs_tensorflow:
            import_tensorflow()
        code = main()
        sys.stdout.flush()
        sys.exit(code)
    except UserError as error:
        fail(str(error))
    except BrokenPipeError:  # `... | head`
        _drop_stdout()
        sys.exit(BROKEN_PIPE)
    except OSError as error:
        if error.filename is None and error.errno not in _FULL:
            raise
        _flush_or_drop_stdout()
        # What is written to, once it is open, the error does not name.
        fail(f"{error.filename or 'cannot write to a file or stdout'}: {error.strerror}")
    except Exception as error:
        # Its class is TensorFlow's, which this module does not import.
        if type(error).__name__ != "DataLossError":
            raise
        fail(
            f"damaged data ({reason_of(error)}); `python -m data_prep.show RECORDS --verify` names "
            "the file of records"
        )
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


def import_tensorflow(as_chosen: bool = True) -> None:
    """Imports TensorFlow without its chatter, in the environment that was measured to be fastest.

    A command that first checks more than its flags calls it in its `main`, and `run` with
    `needs_tensorflow=False`.

    Args:
        as_chosen: whether to set what was chosen; False: only what is set already.

    Raises:
        UserError: TensorFlow is not installed.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError("TensorFlow is not installed here: use the .venv that `make` sets up")
    if as_chosen:
        environment.apply()
    with quiet_import():
        import tensorflow as tf

        # Looking for devices here keeps "failed call to cuInit" of CPU machines off the screen.
        for gpu in tf.config.list_physical_devices("GPU"):
            # Else TensorFlow takes all memory of a GPU that others may use, too.
            tf.config.experimental.set_memory_growth(gpu, True)


def progress_bar(total: int, unit: str):
    """A bar on stderr with the time left, where a person may see it: a `tqdm` to `update`.

    Args:
        total: what is to be done.
        unit: of it, with a space in front.
    """
    from tqdm import tqdm

    return tqdm(total=total, unit=unit, disable=not sys.stderr.isatty(), leave=False)


def _drop_stdout() -> None:
    """So that what nobody reads is not flushed, in vain, when the process ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _open_closed_streams() -> None:
    """Lets what is written to a stream that was closed (`>&-`) vanish.

    Else it would go to the next file that is opened: that gets the stream's number.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, open(number, "w", closefd=False))


def _flush_or_drop_stdout() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        _drop_stdout()


class _HelpFlag(flags.BooleanFlag):
    """A flag that prints the help and exits with code 0 as soon as it is parsed."""

    def __init__(self, name: str, description: str, text: Callable[[], str], **kwargs: str):
        super().__init__(name, False, description, **kwargs)
        self._text = text

    def parse(self, argument: str | bool) -> None:
        if self._parse(argument):
            show(self._text())


def _define_flags(define: Callable[[], None], positional: Sequence[str]) -> None:
    """Defines the command's flags, which are what `--help` lists, and the help flags."""
    known = set(flags.FLAGS)
    define()
    new = [flags.FLAGS[name] for name in flags.FLAGS if name not in known]
    # A flag with a short name was found twice. The order is that of definition.
    own = list({flag.name: flag for flag in new}.values())

    def page(listing: str) -> str:
        about = (sys.modules["__main__"].__doc__ or "").strip()
        return "\n\n".join([_usage(positional), about, listing.strip(), _FLAGFILE_HELP])

    def list_own() -> str:
        return page("\n".join(_describe(flag, flag.name in positional) for flag in own))

    def list_all() -> str:
        return page(flags.FLAGS.get_help())

    for flag in (
        _HelpFlag("help", "Show this help.", list_own, short_name="h"),
        _HelpFlag("helpfull", "Show the flags of all libraries too.", list_all),
    ):
        flags.DEFINE_flag(flag, module_name=sys.argv[0])


def _usage(positional: Sequence[str]) -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    command = f"python -m {spec.name}" if spec else f"python {sys.argv[0]}"
    return " ".join(["usage:", command, *map(str.upper, positional), "--flag=value ..."])


def _describe(flag: flags.Flag, is_positional: bool) -> str:
    """A flag as `--help` shows it: its name, what it means, its default, what it accepts."""
    names = f"--{'[no]' if flag.boolean else ''}{flag.name}"
    if flag.short_name:
        names = f"-{flag.short_name}, {names}"
    if is_positional:
        names = f"{flag.name.upper()}, {names}"
    notes = []
    validators = [validator.message for validator in flag.validators]
    if is_positional or any(message.endswith(_NOT_GIVEN) for message in validators):
        notes.append("required")
    elif flag.default is not None:
        default = flag.default_as_str.strip("'")
        notes.append(f"default: {default or 'empty'}")
    if flag.parser.syntactic_help:
        notes.append(flag.parser.syntactic_help)
    text = f"{flag.help} ({'; '.join(notes)})" if notes else flag.help
    return f"{names}\n{flags.text_wrap(text, length=96, indent='    ')}"


def _parse(argv: list[str], positional: Sequence[str]) -> None:
    # Flags after a stray word are parsed too; else the message would be about a missing one.
    flags.FLAGS.set_gnu_getopt()
    arguments = flagfiles.expand(argv[1:])
    try:
        _, *words = flags.FLAGS([argv[0], *arguments])
        for name in positional:
            flag = flags.FLAGS[name]
            if flag.using_default_value and words:
                flag.parse(words.pop(0))
                flag.using_default_value = False
            if flag.value is None:
                fail(f"{name.upper()} is missing: {_usage(positional)}")
    except flags.Error as error:
        fail(_explain(str(error)))
    except ValueError as error:  # how absl says that --noX has a value
        fail(_explain(str(error)))
    if words:
        fail(f"unexpected argument {words[0]!r}: flags are written --name=value; see --help")


def _explain(message: str) -> str:
    """Adds to absl's message what the flag accepts, where it lacks that."""
    if negated := re.match(r"--?no(\w+)=", message):
        name = negated[1]
        return f"flag {message}; accepted: --{name}, --no{name}, --{name}=true, --{name}=false"
    named = re.match(r"flag --(\w+)=([^:]*)", message)
    if not named or named[1] not in flags.FLAGS:
        return f"{message}; see --help"
    flag = flags.FLAGS[named[1]]
    if message.endswith(_NOT_GIVEN):
        return f"flag --{flag.name} is required: {flag.help}"
    if flag.boolean:
        return f"flag --{flag.name}={named[2]}: accepted: true, false"
    accepted = flag.parser.syntactic_help
    return f"{message}; accepted: {accepted}" if accepted and accepted not in message else message
