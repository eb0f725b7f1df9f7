"""What requests and answers hold, as OpenAPI describes it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from stcn_tf.web.engine import Temperatures

Step = Annotated[list[FiniteFloat], Field(description="one number for each feature, raw units")]
Sequence = Annotated[list[Step], Field(description="[steps][features]")]
Seed = Annotated[int, Field(ge=0, lt=2**31, description="the same seed gives the same steps")]
Temperature = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]


class _Request(BaseModel):
    # Strict: no number is a text or a truth value.
    model_config = ConfigDict(extra="forbid", strict=True)


class TemperatureValues(_Request):
    """How far draws stray from the likeliest; 1: as modelled."""

    temperature: Temperature = Field(1.0, description="of real-valued features; 0: likeliest means")
    latent_temperature: Temperature = Field(1.0, description="of the latents; 0: their means")
    binary_temperature: Temperature = Field(
        1.0, description="of binary features (pen, pixels); 0: the likelier value"
    )

    def as_temperatures(self) -> Temperatures:
        """The same for the model."""
        return Temperatures(self.temperature, self.latent_temperature, self.binary_temperature)


class Beginnings(_Request):
    """What to go on from."""

    beginnings: list[Sequence] = Field(
        [[]],
        min_length=1,
        description="what each continuation begins with; [] is a beginning of nothing",
    )
    rows: int = Field(1, ge=1, description="continuations of each beginning, next to one another")
    seed: Seed = 0
    temperatures: TemperatureValues = TemperatureValues()


class Continuation(Beginnings):
    """What to continue, and how far."""

    length: int = Field(ge=1, description="steps to make")


class Wish(_Request):
    """The next steps of a session."""

    have: int = Field(ge=0, description="steps of the session that the client has")
    count: int = Field(ge=1, description="steps to give after these")
    temperatures: TemperatureValues | None = Field(None, description="from now on")


class Given(_Request):
    """One sequence to look at."""

    x: Sequence = Field(min_length=1)
    seed: Seed = 0
    latent_temperature: Temperature = 1.0


class StreamMessage(_Request):
    """What a client says in a stream; all of it may be left out."""

    have: int | None = Field(None, ge=0, description="steps that it has: they are kept no longer")
    want: int | None = Field(None, ge=0, description="steps that it wants, from the beginning on")
    pause: bool | None = None
    temperatures: TemperatureValues | None = Field(None, description="of steps not yet made")


class Steps(BaseModel):
    """Steps of a session."""

    type: Literal["steps"] = "steps"
    first: int = Field(description="the number of the first of these steps")
    x: list[Sequence] = Field(description="[rows][steps][features]")


class SessionState(BaseModel):
    """A session."""

    id: str
    rows: int
    made: int = Field(description="steps made so far")
    have: int = Field(description="of these, those that the client said it has")
    limit: int = Field(description="steps that may be made")


class Sequences(BaseModel):
    """Sequences without their beginnings."""

    x: list[Sequence] = Field(description="[rows][steps][features]")


class ScoreOf(BaseModel):
    """What the model says of a sequence; nats, likelihoods of normalised values."""

    log_likelihood: list[float] = Field(description="[steps], log p(x_t | z_t)")
    kl: list[list[float]] = Field(description="[steps][layers], layer 0 the lowest")
    elbo: float = Field(description="of the sequence; the log-likelihood of models without latents")


class Reconstruction(BaseModel):
    """What the model makes of a sequence that it has seen."""

    x: Sequence


class FeatureOf(BaseModel):
    """A feature."""

    name: str
    kind: str
    unit: str
    meaning: str
    mean: float
    std: float


class ModalityOf(BaseModel):
    """What the sequences are."""

    kind: str
    sample_rate_hz: int
    height: int
    width: int


class Writing(BaseModel):
    """The size of what the model writes by itself, raw units."""

    stroke_height: float = Field(description="median height of its strokes")
    step_length: float = Field(description="mean length of its steps within strokes")


class LimitsOf(BaseModel):
    """What is accepted."""

    max_beginning: int
    max_steps: int
    max_rows: int
    max_sessions: int
    ahead: int
    idle_seconds: float


class ModelOf(BaseModel):
    """The model that is served."""

    dataset: str
    features: list[FeatureOf]
    modality: ModalityOf
    layers: int = Field(description="of latents; 0: the likelihood is exact")
    usual_length: int = Field(description="median number of steps of the records' sequences")
    writing: Writing | None = Field(description="of handwriting")
    limits: LimitsOf


class Status(BaseModel):
    """How busy the service is."""

    sessions: int
    steps_made: int = Field(description="of all sequences since the start")
    calls: int = Field(description="of the model, in which they were made")


class Lettering(BaseModel):
    """A text as strokes: x to the right, y downwards, letters 1 high."""

    strokes: list[list[tuple[float, float]]]


class Problem(BaseModel):
    """What is wrong with a request."""

    detail: str
