"""What a service allows: each is a flag of `python -m stcn_tf.serve`."""

from dataclasses import dataclass

from stcn_tf.settings import Settings, setting


@dataclass(frozen=True)
class ServeSettings(Settings):
    """Limits of the service, told to clients by `GET /api/model`."""

    max_sessions: int = setting(64, "sessions at once", least=1)
    max_rows: int = setting(4, "continuations of one session", least=1, most=64)
    max_beginning: int = setting(
        2000,
        "steps that may be given to go on from, to score or to reconstruct; of images all",
        least=1,
    )
    max_steps: int = setting(4000, "steps made in one session; of images all", least=1)
    ahead: int = setting(
        64, "steps made beyond those that a client says it has; they are kept for it", least=1
    )
    idle_seconds: float = setting(
        300.0, "a session ends so long after its client's last message", above=0
    )
    requests_per_second: float = setting(
        20.0, "of one address, twice as many at once; messages of one stream, five times", above=0
    )
    max_body_mib: float = setting(8.0, "size of a request in MiB", above=0)
    body_seconds: float = setting(30.0, "in which the body of a request must arrive", above=0)
    rows_at_once: int = setting(
        64, "sequences of all sessions whose steps are computed together", least=1
    )
