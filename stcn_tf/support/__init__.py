"""What every command needs and no model does: the command line, files, errors."""
