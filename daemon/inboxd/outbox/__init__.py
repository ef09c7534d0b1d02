"""Notices: who must know of an event is told, at least once, in order, and never in the way of a file."""
