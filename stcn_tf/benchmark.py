"""Times the model against a plain transcription of its equations, and against the machine.

python -m stcn_tf.benchmark [--flagfile=FILE] [--what=generate,train,evaluate] [--out=FILE.json]

What is compared alternates in one process, so ratios mean something where the speed of a machine
changes from minute to minute; their least and most are given. Results are compared before anything
is timed. With --data the input of records is timed, too. --out writes the numbers, with processor
and versions, and a picture beside them.

--what=scaling shows how time and memory grow. --what=environment measures whether TensorFlow is
faster here with or without oneDNN and with fewer threads, and remembers it for all commands (in
$XDG_CACHE_HOME/stcn_tf, ~/.cache by default); a variable that you set, as TF_ENABLE_ONEDNN_OPTS,
goes before it.
"""

from pathlib import Path

from stcn_tf import flags
from stcn_tf.support import cli


def main() -> None:
    """Runs the cases, prints their tables, writes them."""
    args = flags.FLAGS
    settings = flags.config().model

    from stcn_tf.benchmarks import cases, report
    from stcn_tf.benchmarks.measure import peak_memory
    from stcn_tf.benchmarks.sizes import Sizes

    cases.check(settings)
    out = Path(args.out) if args.out else None
    if out and (out.is_dir() or not out.parent.is_dir()):
        cli.fail(f"--out={out}: accepted: a file in a folder that exists")
    sizes = Sizes(args.batch_size, args.length, args.num_draws, args.rounds)
    content = {"machine": report.machine(), "model": settings.model, "tables": {}}
    print(report.heading(content), flush=True)
    runs = [lambda w=what: cases.CASES[w](settings, sizes) for what in args.what]
    if args.data:
        runs.append(lambda: cases.read(args.data, sizes))
    for run in runs:
        tables = run()
        content["tables"] |= tables
        print(report.text(tables), flush=True)
    content["peak_memory_mib"] = peak_memory()
    print(f"peak memory of the process: {content['peak_memory_mib']:,} MiB")
    if out:
        report.write(content, out)
        print(f"written: {out} and {out.with_suffix('.png')}")


if __name__ == "__main__":
    cli.run(main, flags.define_benchmark)
