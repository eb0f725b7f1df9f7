"""What the commands share: reading files that are not trusted, splits, statistics, records."""
