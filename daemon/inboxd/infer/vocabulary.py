"""The words by which people name things in JSON: envelopes, identities, times. All in small letters."""

from __future__ import annotations

from typing import Final


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ENVELOPES: Final = frozenset(
    _words(
        "records results features logevents resourcespans resourcelogs resourcemetrics hits rows value entries entry"
    )
)
"""Names that say by themselves that here are the records, be there one or a thousand."""
USUAL: Final = ENVELOPES | frozenset(
    _words("data items result events list values docs documents elements objects resources messages nodes edges")
)
BOOKKEEPING: Final = frozenset(
    _words("""
    number count total size message status success ok error errors warnings code stat statuscode
    page pages per_page perpage next prev previous first last limit offset cursor has_more more start end query
    nexttoken next_token request_id requestid took timed_out hits result
    version type kind schema etag apiversion title name description comment note notes disclaimer about
    license copyright author credits source sources url links filename file
    generated updated created timestamp date time lang language locale
    meta metadata info pagination context crs bbox columns fields header headers
    """)
)
"""What stands beside the records of a page: of what kind they are, how many, and where the next ones are."""
MAPS: Final = frozenset(_words("coordinates arcs bbox geometry transform"))
"""GeoJSON and TopoJSON: arrays of arrays that are lines on a map, not rows."""

ITSELF: Final = _words("id uuid guid key uid pk identifier oid doi urn arn code ulid ident")
"""Names that identify a record by themselves, the surest first."""
_GOODS: Final = _words("product item article good variant catalog catalogue")
OF_THINGS: Final = {
    "iban": ("account", "bank_account"),
    "isbn": ("book",),
    "isbn13": ("book",),
    "sku": _GOODS,
    "ean": _GOODS,
    "gtin": _GOODS,
}
"""Names that identify a thing, and what records are called that are such things: bookings, sales or loans are not."""
OWN_ID: Final = frozenset(_words("id _id uuid guid uid"))
"""Of these, those by which an object with an array inside is a record itself, such as an order with its lines."""
SUFFIXES: Final = frozenset(_words("id uuid guid key code no number uid ref"))
"""Last words of a name that identifies what its first words are."""
WRAPPERS: Final = frozenset(
    _words("properties attributes metadata meta node record fields source doc document data payload item")
)
"""Objects that stand for the record itself: what is in them is its own."""
ANY_RECORD: Final = frozenset(_words("event record row entry message document object log"))
"""What any record may be called."""
COMPANIONS: Final = frozenset(
    _words("""
    year month day week quarter period line lineno line_no line_number number seq sequence index position
    version revision language lang locale
    """)
)
"""What with an identity may name a record: a line of an order, a version of a page, a year of a country."""
NOISE: Final = frozenset(
    _words("export exports dump data sample samples list file all full latest daily hourly json part new old")
)
"""Words of a file's name that say nothing of what is in it."""

TIMES: Final = frozenset(
    _words("""
    at time timestamp ts date datetime day dt epoch created updated modified changed published expires stamp when
    start end begin started ended finished timemillis millis utc expiry occurred received sent seen
    """)
)
"""Words of names that speak of time."""
CURSORS: Final = (
    frozenset(_words("updated modified changed update refreshed edited changes modification")),
    frozenset(_words("ts timestamp timestamps time datetime eventtime version synced loaded fetched")),
    frozenset(_words("occurred logged recorded observed measured received sent published pushed at event")),
    frozenset(_words("created date day dt added inserted ingested epoch creation reported")),
)
"""Words of a name that tells when a record was made or changed, the best first."""
OTHER_TIMES: Final = frozenset(
    _words("""
    birth born dob death died release released start begin end due expire expires expiry expiration valid effective
    deadline open close opened closed closing opening launch hire hired founded arrival departure delivery scheduled
    planned from to until since premiere first zone timezone
    """)
)
"""Words of times that a correction of the record does not change."""
