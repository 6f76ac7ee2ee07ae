"""A list of which autojit does not know that a function has changed it."""

import contextvars

_ALL = {}
_ITEMS = contextvars.ContextVar("items", default=_ALL)  # in all threads


class Notes:
    """A list to which a function under test adds what it was traced with.

    A trace that changes what the function reads, such as a list in its closure, is
    taken by no other dispatcher. What a context variable has is not looked at.
    """

    def append(self, item):
        self.items().append(item)

    def items(self):
        return _ITEMS.get().setdefault(id(self), [])

    def clear(self):
        self.items().clear()

    def __del__(self):
        _ITEMS.get().pop(id(self), None)

    def __eq__(self, other):
        return self.items() == list(other)

    __hash__ = None

    def __len__(self):
        return len(self.items())

    def __iter__(self):
        return iter(self.items())

    def __repr__(self):
        return f"Notes({self.items()})"
