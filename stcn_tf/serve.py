"""Serves a trained model over HTTP, and a page on which it goes on with what one writes.

python -m stcn_tf.serve --run_dir=DIR
python -m stcn_tf.serve --model=SAVED_MODEL

Then open http://127.0.0.1:8000/ in a browser: write a beginning with mouse, pen or finger, and the
model goes on from there; of speech a recording is continued, of images the lower half is
completed. GET /openapi.json describes the service for programs. It listens to this machine alone
unless --host says otherwise; whoever reaches it may use it. Ctrl-C stops it.
"""

import webbrowser

from stcn_tf import flags
from stcn_tf.support import cli
from stcn_tf.support.errors import UserError


def main() -> None:
    """Listens, loads the model, serves."""
    args = flags.FLAGS
    if (args.run_dir is None) == (args.model is None):
        raise UserError("--run_dir, --model: one of them is needed, and no more")
    settings = flags.serve_settings()

    from stcn_tf.runs import RunDirectory
    from stcn_tf.web import server

    # What can be known soon is told before TensorFlow, which takes long to import.
    run = None if args.run_dir is None else RunDirectory.open(args.run_dir)
    listener = server.listen(args.host, args.port)
    try:
        cli.import_tensorflow()

        from stcn_tf.web import app
        from stcn_tf.web.engine import Engine, load_saved_model

        print("loading the model, which takes some seconds", flush=True)
        if run is None:
            model = load_saved_model(args.model)
        else:
            from stcn_tf.inference.served import ServedModel

            model = ServedModel(run.load(args.checkpoint).model, run.card)
        engine = Engine(model)
        names = server.names_of(args.host, args.names)
        service = app.create(engine, settings, names)
        url = server.url_of(listener)
        if server.is_open(listener):
            print(f"other machines may use it, too, as {', '.join(sorted(names))} (--names)")
        print(f"{url} serves a model of {engine.card.name}; Ctrl-C stops it", flush=True)
        if args.open:
            webbrowser.open(url)
        server.run(service, listener)
    finally:
        listener.close()


if __name__ == "__main__":
    cli.run(main, flags.define_serve, needs_tensorflow=False)
