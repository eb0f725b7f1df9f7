"""Synthetic raw data in the formats in which real data come: `python -m data_prep.synthetic`."""
