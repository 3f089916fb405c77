"""The commands, a file for each kind; each imports its work when it is called."""
