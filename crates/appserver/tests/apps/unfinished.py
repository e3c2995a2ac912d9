"""Is no Python."""

app = (
