"""Bytes in, batches out: pure. ``decode`` reads a file, ``fields`` compiles a feed, ``validate`` judges one record."""
