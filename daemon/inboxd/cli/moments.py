"""Moments as people type them: ``2026-01-15``, ``2026-01-15T10:30:00+01:00``, or ``24h`` for so long ago."""

from __future__ import annotations

from datetime import timedelta

import click

from inboxd.clock import SystemClock, stamp
from inboxd.config.values import parse_duration
from inboxd.records.times import timestamp


class Moment(click.ParamType[str]):
    """A command's option that is a moment; the command is given its canonical text."""

    name = "moment"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return canonical text."""
        text = str(value)
        if (exact := timestamp(text)) is not None:
            return exact
        try:
            return stamp(SystemClock().now() - timedelta(seconds=parse_duration(text)))
        except (ValueError, OverflowError):
            self.fail(
                f"{text!r} is no moment: write 2026-01-15T10:30:00Z, 2026-01-15, or 24h for a day ago", param, ctx
            )
