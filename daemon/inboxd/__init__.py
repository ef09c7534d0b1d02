"""inboxd: drop JSON files into a folder, find their records in a database, exactly once."""

__version__ = "0.1.0"
