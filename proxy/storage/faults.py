"""What keeps a store from opening."""


class CannotOpen(Exception):
    """The store cannot be used; the message is for the operator."""
