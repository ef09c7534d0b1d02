"""dlt as its documents have it: the filesystem source, incremental by the files' times, merged by primary key.

dlt_merge.py FOLDER DATABASE sqlite|duckdb
"""

from __future__ import annotations

import sys
from pathlib import Path

import dlt
from dlt.sources.filesystem import filesystem, read_jsonl


def main(source: str, database: str, kind: str) -> None:
    """Load a folder of files into one database."""
    if kind == "sqlite":
        destination = dlt.destinations.sqlalchemy(credentials=f"sqlite:///{database}")
    else:
        destination = dlt.destinations.duckdb(credentials=database)
    files = filesystem(
        bucket_url=Path(source).as_uri(),
        file_glob="*.ndjson",
        incremental=dlt.sources.incremental("modification_date"),
    )
    records = (files | read_jsonl()).with_name("target")
    records.apply_hints(
        write_disposition="merge",
        primary_key="key",
        columns={
            "value": {"data_type": "double"},
            "ts": {"data_type": "timestamp", "dedup_sort": "desc"},
        },
    )
    folder = Path(database).with_name("dlt")
    pipeline = dlt.pipeline("bench", destination=destination, dataset_name="main", pipelines_dir=str(folder))
    pipeline.run(records).raise_on_failed_jobs()


if __name__ == "__main__":
    main(*sys.argv[1:])
