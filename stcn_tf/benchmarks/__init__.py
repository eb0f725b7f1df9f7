"""How fast it is: against a plain transcription of the published graph, and against the machine."""
