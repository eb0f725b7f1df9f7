"""The paper's tables and figures with the numbers of runs beside its own; and two runs compared.

python -m stcn_tf.report --runs=DIR,... --out=FOLDER [--table=1,2,3,4 --figure=3,4,6]

Reads what stcn_tf.train and stcn_tf.evaluate have written (evaluate first, with --bound=iwae for
tight bounds) and writes report.html, one page that needs nothing else, report.md and report.tex,
with the curves of validation and the figures. A number stands beside the paper's only where data,
split, scale and pieces are the same, beside one that is no bound only what is none; else the cell
says what differs, and the number is in the table of all evaluations. Another table has the
differences of runs on the same sequences. Figure 3 is of handwriting, 4 and 6 are of images; they
need the models' weights and some minutes.

python -m stcn_tf.report --compare=A,B

prints A - B of two runs, or of two files of evaluations, on the sequences that both have: its
standard error is that of the differences, over groups of sequences, smaller than that of either. An
exact log-likelihood and a lower bound give a limit, and it says which.
"""

from stcn_tf import flags
from stcn_tf.support import cli
from stcn_tf.support.errors import UserError


def main() -> None:
    """Compares two runs; or writes a report."""
    args = flags.FLAGS

    if args.compare:
        from stcn_tf.reporting import comparison

        if args.runs or args.out:
            raise UserError("--compare: accepted: by itself, without --runs and --out")
        if len(args.compare) != 2:
            raise UserError(f"--compare={','.join(args.compare)}: accepted: two, A,B")
        print(comparison.compare(*args.compare).text())
        return
    if not args.runs or not args.out:
        raise UserError("accepted: --runs=DIR,... --out=FOLDER, or --compare=A,B; see --help")

    from stcn_tf.reporting import curves, differences, evaluated, pages, tables

    pages.check_replaceable(args.out)
    text = pages.read_text(args.text) if args.text else []
    runs = evaluated.find(args.runs)
    made = [tables.evaluations(runs), *differences.tables(runs)]
    made += tables.make(map(int, args.table), runs)
    pictures = curves.draw(runs)
    if args.figure:
        cli.import_tensorflow()
        from stcn_tf.reporting import figures

        pictures += figures.draw(map(int, args.figure), runs, args.data, print)
    pages.write(args.out, "STCN: the paper's tables and these runs", text, made, pictures)
    print(f"{len(runs)} runs, {len(made)} tables, {len(pictures)} pictures: {args.out}/report.html")


if __name__ == "__main__":
    cli.run(main, flags.define_report, needs_tensorflow=False)
