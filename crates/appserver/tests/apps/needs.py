"""Needs a package that nobody has."""

import flusk
