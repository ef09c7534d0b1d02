"""Measures inboxd against its goals and its peers: ``make bench``, or ``python -m bench --help``."""
