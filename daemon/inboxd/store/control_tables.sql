-- The control tables: the one place that says what they are. `schema.py` makes them, or brings those of an earlier
-- revision to this; `tables.py` reads the columns here, for questions. What is in braces each database has its word for.

CREATE TABLE IF NOT EXISTS alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

-- An imported run has no counts of what it left out (`rows_rejected IS NULL`), so it need not add up.
CREATE TABLE etl_runs (
    id {identity},
    job_name TEXT NOT NULL,
    status TEXT NOT NULL,
    rows_in BIGINT DEFAULT '0' NOT NULL,
    rows_out BIGINT DEFAULT '0' NOT NULL,
    rows_rejected BIGINT DEFAULT '0',
    rows_skipped BIGINT DEFAULT '0',
    rows_stale BIGINT DEFAULT '0',
    duration_ms BIGINT DEFAULT '0' NOT NULL,
    started_at {stamp} NOT NULL,
    finished_at {stamp},
    file_name TEXT,
    file_size BIGINT,
    content_sha256 TEXT,
    watermark TEXT,
    error_code TEXT,
    error TEXT,
    duplicate_of BIGINT,
    superseded_by BIGINT,
    undo_of BIGINT,
    claim TEXT,
    host TEXT,
    rows_filtered BIGINT DEFAULT 0,
    rows_deleted BIGINT DEFAULT 0,
    commit_no BIGINT,
    file_mtime {stamp},
    variant TEXT DEFAULT '' NOT NULL,
    report TEXT,
    file_removed {stamp},
    table_name TEXT,
    CONSTRAINT run_status CHECK (status IN ('success', 'failure', 'running')),
    CONSTRAINT run_accounts_for_every_record CHECK (rows_rejected IS NULL
        OR rows_in = rows_out + rows_rejected + rows_skipped + rows_stale + rows_filtered),
    CONSTRAINT run_counts_together CHECK ((rows_rejected IS NULL) = (rows_skipped IS NULL)
        AND (rows_rejected IS NULL) = (rows_stale IS NULL)
        AND (rows_rejected IS NULL OR rows_filtered IS NOT NULL AND rows_deleted IS NOT NULL)),
    CONSTRAINT run_counts_not_negative CHECK (rows_in >= 0 AND rows_out >= 0 AND duration_ms >= 0
        AND COALESCE(rows_rejected, 0) >= 0 AND COALESCE(rows_skipped, 0) >= 0 AND COALESCE(rows_stale, 0) >= 0
        AND COALESCE(rows_filtered, 0) >= 0 AND COALESCE(rows_deleted, 0) >= 0),
    CONSTRAINT run_running_is_unfinished CHECK (status <> 'running' OR finished_at IS NULL),
    CONSTRAINT run_ended_is_finished CHECK (status = 'running' OR finished_at IS NOT NULL OR rows_rejected IS NULL),
    CONSTRAINT run_failure_has_a_code CHECK (status <> 'failure' OR error_code IS NOT NULL OR rows_rejected IS NULL),
    CONSTRAINT run_failure_loads_nothing CHECK (status <> 'failure' OR rows_in = 0 OR rows_rejected IS NULL),
    CONSTRAINT run_success_has_no_code CHECK (status = 'failure' OR error_code IS NULL),
    CONSTRAINT run_duplicate_is_empty CHECK (duplicate_of IS NULL
        OR (status = 'success' AND rows_in = 0 AND duplicate_of <> id)),
    CONSTRAINT run_superseded_was_loaded CHECK (superseded_by IS NULL OR (status = 'success' AND superseded_by <> id)),
    CONSTRAINT run_hash_is_sha256 CHECK (content_sha256 IS NULL OR LENGTH(content_sha256) = 64),
    CONSTRAINT run_of_a_claim_is_counted CHECK (claim IS NULL OR NOT (rows_rejected IS NULL))
);

CREATE UNIQUE INDEX etl_runs_running_claim ON etl_runs (claim) WHERE status = 'running';

CREATE INDEX etl_runs_claim ON etl_runs (claim) WHERE claim IS NOT NULL;

CREATE INDEX etl_runs_started ON etl_runs (started_at);

CREATE UNIQUE INDEX etl_runs_loaded_once ON etl_runs (job_name, content_sha256, variant) WHERE
    status = 'success' AND duplicate_of IS NULL AND superseded_by IS NULL AND content_sha256 IS NOT NULL;

CREATE UNIQUE INDEX etl_runs_commit ON etl_runs (commit_no);

CREATE TABLE dead_letters (
    id {identity},
    raw TEXT NOT NULL,
    error TEXT NOT NULL,
    created {stamp} NOT NULL,
    run_id BIGINT NOT NULL,
    feed TEXT NOT NULL,
    record_no BIGINT NOT NULL,
    record_key TEXT{collation} NOT NULL,
    detail TEXT,
    resolved_by BIGINT,
    context TEXT
);

CREATE INDEX dead_letters_run ON dead_letters (run_id);

CREATE INDEX dead_letters_key ON dead_letters (record_key);

CREATE INDEX dead_letters_open ON dead_letters (feed, error) WHERE resolved_by IS NULL;

CREATE TABLE lineage_records (
    run_id BIGINT NOT NULL,
    record_key TEXT{collation} NOT NULL,
    record_no BIGINT NOT NULL,
    outcome SMALLINT NOT NULL,
    detail TEXT,
    PRIMARY KEY (run_id, record_key, record_no)
){without_rowid};

-- 17179869184 is 2**34: room for 8.5 thousand million records in each of 500 million runs. With CROSS JOIN SQLite keeps
-- the order of the tables: a question about one key is then one seek a run, not a scan.
CREATE VIEW lineage AS
SELECT l.run_id * 17179869184 + l.record_no * 2 AS id,
       l.record_key AS record_key,
       CASE l.outcome WHEN 2 THEN 'skip' WHEN 3 THEN 'reject' ELSE 'stage' END AS step,
       CASE l.outcome WHEN 2 THEN 'at or below the watermark' WHEN 3 THEN l.detail ELSE 'validated and staged' END
         AS detail,
       r.finished_at AS created,
       l.run_id AS run_id,
       l.record_no AS record_no
  FROM etl_runs r CROSS JOIN lineage_records l
 WHERE l.run_id = r.id AND l.outcome <> 5
 UNION ALL
SELECT l.run_id * 17179869184 + l.record_no * 2 + 1,
       l.record_key,
       CASE l.outcome WHEN 0 THEN 'load' WHEN 1 THEN 'stale' ELSE 'delete' END,
       CASE l.outcome WHEN 0 THEN 'upserted to target' WHEN 1 THEN 'not newer than the row it met'
                      WHEN 4 THEN 'deleted by this record' ELSE 'absent from the snapshot' END,
       r.finished_at,
       l.run_id,
       l.record_no
  FROM etl_runs r CROSS JOIN lineage_records l
 WHERE l.run_id = r.id AND l.outcome IN (0, 1, 4, 5);

CREATE VIEW run_log AS
SELECT id, status, rows_out + COALESCE(rows_stale, 0) AS staged, rows_out AS loaded,
       COALESCE(rows_rejected, 0) AS rejected, duration_ms, COALESCE(finished_at, started_at) AS created
  FROM etl_runs;

CREATE TABLE watermarks (
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    run_id BIGINT,
    updated_at {stamp} NOT NULL,
    PRIMARY KEY (name)
){without_rowid};

-- `image` is the row as a JSON object of its columns, NULL where there was no row.
CREATE TABLE before_images (
    run_id BIGINT NOT NULL,
    table_name TEXT NOT NULL,
    record_key TEXT{collation} NOT NULL,
    image TEXT,
    PRIMARY KEY (run_id, table_name, record_key)
){without_rowid};

-- The highest cursor of a deletion of each key, as text.
CREATE TABLE tombstones (
    table_name TEXT NOT NULL,
    record_key TEXT{collation} NOT NULL,
    cursor TEXT NOT NULL,
    run_id BIGINT NOT NULL,
    deleted_at {stamp} NOT NULL,
    PRIMARY KEY (table_name, record_key)
){without_rowid};

-- A row for each receiver (`target`) of a notice, in the order of `number`; `id` is that of the event.
CREATE TABLE notices (
    number {identity},
    id TEXT NOT NULL,
    target TEXT NOT NULL,
    event TEXT NOT NULL,
    created {stamp} NOT NULL,
    run_id BIGINT,
    feed TEXT,
    body TEXT NOT NULL,
    delivered_at {stamp},
    attempts BIGINT DEFAULT '0' NOT NULL,
    dropped_at {stamp},
    CONSTRAINT notice_once UNIQUE (id, target)
);

CREATE INDEX notices_open ON notices (target, number) WHERE delivered_at IS NULL AND dropped_at IS NULL;

-- The columns of feeds' tables that inboxd has made; others are somebody's own.
CREATE TABLE feed_columns (
    table_name TEXT NOT NULL,
    column_name TEXT NOT NULL,
    PRIMARY KEY (table_name, column_name)
){without_rowid};

CREATE TABLE expectations (
    feed TEXT NOT NULL,
    setting TEXT NOT NULL,
    since {stamp} NOT NULL,
    late_at {stamp},
    PRIMARY KEY (feed, setting)
){without_rowid};
