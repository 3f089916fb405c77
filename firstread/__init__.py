"""The firstread command and the one-machine stack that it starts."""
