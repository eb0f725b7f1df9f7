"""Reports: the paper's tables and figures with the numbers of runs beside its own."""
