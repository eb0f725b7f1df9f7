"""What the smoke runs of models other than STCN are made on."""

# Which records models other than STCN are tried on, as the Makefile has it.
SMOKE_RECORDS = {
    "rnn": "iamondb",
    "vrnn": "iamondb",
    "srnn": "timit",
    "z_forcing": "timit",
    "variational_bi_lstm": "mnist",
    "swavenet": "iamondb",
    "f_srnn": "timit",
}
