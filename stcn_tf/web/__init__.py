"""A model as a small HTTP service, and the page that goes with it.

`app` is the service (FastAPI), `guard` what stands before it, `sessions` what a client goes on
from, `scheduler` runs the steps of all of them as one batch, `engine` is the model in NumPy's
arrays, `page/` the page.
"""
