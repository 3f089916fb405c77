"""The C-STORE listener: receive, make safe, register, then answer."""
