"""Fails in a function while it is imported."""


def fails():
    return 1 / 0


fails()
