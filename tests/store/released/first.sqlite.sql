BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL,
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE before_images (
	run_id BIGINT NOT NULL,
	table_name TEXT NOT NULL,
	record_key TEXT NOT NULL,
	image TEXT,
	PRIMARY KEY (run_id, table_name, record_key)
)
 WITHOUT ROWID;
INSERT INTO "before_images" VALUES(1,'target','a',NULL);
INSERT INTO "before_images" VALUES(1,'target','b',NULL);
INSERT INTO "before_images" VALUES(2,'target','a','{"key":"a","name":"first","value":1.5,"ts":"2026-01-01T00:00:00.000000Z","run_id":1,"updated_at":"2026-11-27T10:47:11.075039Z"}');
INSERT INTO "before_images" VALUES(11,'target','a','{"key":"a","name":"second","value":1000.0,"ts":"2026-01-02T00:00:00.000000Z","run_id":2,"updated_at":"2026-11-27T10:47:11.934851Z"}');
CREATE TABLE dead_letters (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	raw TEXT NOT NULL,
	error TEXT NOT NULL,
	created TEXT NOT NULL,
	run_id BIGINT NOT NULL,
	feed TEXT NOT NULL,
	record_no BIGINT NOT NULL,
	record_key TEXT NOT NULL,
	detail TEXT,
	resolved_by BIGINT
);
INSERT INTO "dead_letters" VALUES(1,'{"key":"c","name":"no number","value":"x","ts":"2026-01-02T00:00:00Z"}','invalid_value','2026-11-27T10:47:11.934851Z',2,'events',3,'c','value: invalid_value (''x'' is no number)',NULL);
INSERT INTO "dead_letters" VALUES(2,'{"region":"US","no":"x","version":9}','invalid_no','2026-11-27T10:47:15.446095Z',6,'orders',3,'?','no: invalid_no (''x'' is no integer)',NULL);
INSERT INTO "dead_letters" VALUES(3,'{"key":"c","name":"no number","value":"x","ts":"2026-01-02T00:00:00Z"}','invalid_value','2026-11-27T10:47:20.598897Z',11,'events',3,'c','value: invalid_value (''x'' is no number)',NULL);
CREATE TABLE etl_runs (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	job_name TEXT NOT NULL,
	status TEXT NOT NULL,
	rows_in BIGINT DEFAULT '0' NOT NULL,
	rows_out BIGINT DEFAULT '0' NOT NULL,
	rows_rejected BIGINT DEFAULT '0',
	rows_skipped BIGINT DEFAULT '0',
	rows_stale BIGINT DEFAULT '0',
	duration_ms BIGINT DEFAULT '0' NOT NULL,
	started_at TEXT NOT NULL,
	finished_at TEXT,
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
	CONSTRAINT run_status CHECK (status IN ('success', 'failure', 'running')),
	CONSTRAINT run_accounts_for_every_record CHECK (rows_rejected IS NULL OR rows_in = rows_out + rows_rejected + rows_skipped + rows_stale),
	CONSTRAINT run_counts_together CHECK ((rows_rejected IS NULL) = (rows_skipped IS NULL) AND (rows_rejected IS NULL) = (rows_stale IS NULL)),
	CONSTRAINT run_counts_not_negative CHECK (rows_in >= 0 AND rows_out >= 0 AND duration_ms >= 0 AND COALESCE(rows_rejected, 0) >= 0 AND COALESCE(rows_skipped, 0) >= 0 AND COALESCE(rows_stale, 0) >= 0),
	CONSTRAINT run_running_is_unfinished CHECK (status <> 'running' OR finished_at IS NULL),
	CONSTRAINT run_ended_is_finished CHECK (status = 'running' OR finished_at IS NOT NULL OR rows_rejected IS NULL),
	CONSTRAINT run_failure_has_a_code CHECK (status <> 'failure' OR error_code IS NOT NULL OR rows_rejected IS NULL),
	CONSTRAINT run_failure_loads_nothing CHECK (status <> 'failure' OR rows_in = 0 OR rows_rejected IS NULL),
	CONSTRAINT run_success_has_no_code CHECK (status = 'failure' OR error_code IS NULL),
	CONSTRAINT run_duplicate_is_empty CHECK (duplicate_of IS NULL OR (status = 'success' AND rows_in = 0 AND duplicate_of <> id)),
	CONSTRAINT run_superseded_was_loaded CHECK (superseded_by IS NULL OR (status = 'success' AND superseded_by <> id)),
	CONSTRAINT run_hash_is_sha256 CHECK (content_sha256 IS NULL OR LENGTH(content_sha256) = 64),
	CONSTRAINT run_of_a_claim_is_counted CHECK (claim IS NULL OR NOT (rows_rejected IS NULL))
);
INSERT INTO "etl_runs" VALUES(1,'events','success',2,2,0,0,0,7,'2026-11-27T10:47:11.068273Z','2026-11-27T10:47:11.075792Z','one.json',132,'4c603c3cdabfea22476021fa2d7884c2deaacc4f6d3aa42341db0a4bab126e1d','2026-01-01T00:00:00.000000Z',NULL,NULL,NULL,NULL,NULL,NULL,'here');
INSERT INTO "etl_runs" VALUES(2,'events','success',3,1,1,0,1,11,'2026-11-27T10:47:11.924959Z','2026-11-27T10:47:11.936240Z','two.json',203,'da215cf0ba2a104b822761c1482c128892c19e3af94b3b005ffc7b5b84e2f20c','2026-01-02T00:00:00.000000Z',NULL,NULL,NULL,11,NULL,NULL,'here');
INSERT INTO "etl_runs" VALUES(3,'events','success',0,0,0,0,0,5,'2026-11-27T10:47:12.899538Z','2026-11-27T10:47:12.904972Z','one.json',132,'4c603c3cdabfea22476021fa2d7884c2deaacc4f6d3aa42341db0a4bab126e1d',NULL,NULL,NULL,1,NULL,NULL,NULL,'here');
INSERT INTO "etl_runs" VALUES(4,'events','success',1,1,0,0,0,9,'2026-11-27T10:47:13.531533Z','2026-11-27T10:47:13.540913Z','three.json',71,'3d5137bd8dcf56068b0b5332d8b79655c3d4494a932584c869a417b59027fae9','2026-01-03T12:30:00.500000Z',NULL,NULL,NULL,8,NULL,NULL,'here');
INSERT INTO "etl_runs" VALUES(5,'events','failure',0,0,0,0,0,13,'2026-11-27T10:47:14.452731Z','2026-11-27T10:47:14.466110Z','broken.json',7,'d78ab67c17c0583e06ee716a2ad10809bb71d7e36da9835e2e4e6964c5755d81',NULL,'invalid_json','line 1, column 8 (byte 7): the file ends within a value',NULL,NULL,NULL,NULL,'here');
INSERT INTO "etl_runs" VALUES(6,'orders','success',3,2,1,0,0,18,'2026-11-27T10:47:15.428729Z','2026-11-27T10:47:15.447193Z','orders-1.json',132,'c4dbf2be5f7afbdce19611b6430db8b3b1fe7ac2e1cc749940eeef7f68c86388','8',NULL,NULL,NULL,NULL,NULL,NULL,'here');
INSERT INTO "etl_runs" VALUES(7,'orders','success',2,1,0,1,0,15,'2026-11-27T10:47:16.252884Z','2026-11-27T10:47:16.267882Z','orders-2.json',84,'958dc7a6191b683043ed721a36e3daccaefcda951ebd33d7aed19614e135a6d6','9',NULL,NULL,NULL,NULL,NULL,NULL,'here');
INSERT INTO "etl_runs" VALUES(8,'events','success',1,1,0,0,0,83,'2026-11-27T10:47:17.668306Z','2026-11-27T10:47:17.751249Z',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,4,NULL,'here');
INSERT INTO "etl_runs" VALUES(9,'nightly','success',5,5,NULL,NULL,NULL,12,'2026-01-01T01:00:00.000000Z','2026-01-01T01:00:12.000000Z',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "etl_runs" VALUES(10,'nightly','running',0,0,NULL,NULL,NULL,0,'2026-01-02T01:00:00.000000Z',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "etl_runs" VALUES(11,'events','success',3,1,1,0,1,10,'2026-11-27T10:47:20.589789Z','2026-11-27T10:47:20.600321Z','two.json',203,'da215cf0ba2a104b822761c1482c128892c19e3af94b3b005ffc7b5b84e2f20c','2026-01-02T00:00:00.000000Z',NULL,NULL,NULL,NULL,NULL,NULL,'here');
CREATE TABLE lineage_records (
	run_id BIGINT NOT NULL,
	record_key TEXT NOT NULL,
	record_no BIGINT NOT NULL,
	outcome SMALLINT NOT NULL,
	detail TEXT,
	PRIMARY KEY (run_id, record_key, record_no)
)
 WITHOUT ROWID;
INSERT INTO "lineage_records" VALUES(1,'a',1,0,NULL);
INSERT INTO "lineage_records" VALUES(1,'b',2,0,NULL);
INSERT INTO "lineage_records" VALUES(2,'a',1,0,NULL);
INSERT INTO "lineage_records" VALUES(2,'b',2,1,NULL);
INSERT INTO "lineage_records" VALUES(2,'c',3,3,'invalid_value');
INSERT INTO "lineage_records" VALUES(4,'c',1,0,NULL);
INSERT INTO "lineage_records" VALUES(6,'?',3,3,'invalid_no');
INSERT INTO "lineage_records" VALUES(6,'["EU",1]',1,0,NULL);
INSERT INTO "lineage_records" VALUES(6,'["EU",2]',2,0,NULL);
INSERT INTO "lineage_records" VALUES(7,'["EU",1]',1,2,NULL);
INSERT INTO "lineage_records" VALUES(7,'["EU",3]',2,0,NULL);
INSERT INTO "lineage_records" VALUES(8,'c',1,0,NULL);
INSERT INTO "lineage_records" VALUES(11,'a',1,0,NULL);
INSERT INTO "lineage_records" VALUES(11,'b',2,1,NULL);
INSERT INTO "lineage_records" VALUES(11,'c',3,3,'invalid_value');
CREATE TABLE "orders" ("region" TEXT NOT NULL, "no" INTEGER NOT NULL, "version" INTEGER NOT NULL, "paid" BOOLEAN, "extra" JSON TEXT, "run_id" INTEGER, "updated_at" TIMESTAMP TEXT, PRIMARY KEY ("region", "no")) WITHOUT ROWID;
INSERT INTO "orders" VALUES('EU',1,7,1,'{"note":"é"}',6,'2026-11-27T10:47:15.446095Z');
INSERT INTO "orders" VALUES('EU',2,8,NULL,NULL,6,'2026-11-27T10:47:15.446095Z');
INSERT INTO "orders" VALUES('EU',3,9,NULL,NULL,7,'2026-11-27T10:47:16.267067Z');
CREATE TABLE "target" ("key" TEXT NOT NULL, "name" TEXT, "value" REAL, "ts" TIMESTAMP TEXT NOT NULL, "run_id" INTEGER, "updated_at" TIMESTAMP TEXT, PRIMARY KEY ("key")) WITHOUT ROWID;
INSERT INTO "target" VALUES('a','second',1000.0,'2026-01-02T00:00:00.000000Z',11,'2026-11-27T10:47:20.598897Z');
INSERT INTO "target" VALUES('b','first',2.0,'2026-01-01T00:00:00.000000Z',1,'2026-11-27T10:47:11.075039Z');
CREATE TABLE watermarks (
	name TEXT NOT NULL,
	value TEXT NOT NULL,
	run_id BIGINT,
	updated_at TEXT NOT NULL,
	PRIMARY KEY (name)
)
 WITHOUT ROWID;
INSERT INTO "watermarks" VALUES('events','2026-01-02T00:00:00.000000Z',2,'2026-11-27T10:47:17.741280Z');
INSERT INTO "watermarks" VALUES('orders','9',7,'2026-11-27T10:47:16.267067Z');
CREATE UNIQUE INDEX etl_runs_loaded_once ON etl_runs (job_name, content_sha256) WHERE status = 'success' AND duplicate_of IS NULL AND superseded_by IS NULL AND content_sha256 IS NOT NULL;
CREATE UNIQUE INDEX etl_runs_running_claim ON etl_runs (claim) WHERE status = 'running';
CREATE INDEX etl_runs_claim ON etl_runs (claim) WHERE claim IS NOT NULL;
CREATE INDEX etl_runs_started ON etl_runs (started_at);
CREATE INDEX dead_letters_run ON dead_letters (run_id);
CREATE INDEX dead_letters_key ON dead_letters (record_key);
CREATE INDEX dead_letters_open ON dead_letters (feed, error) WHERE resolved_by IS NULL;
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
 WHERE l.run_id = r.id
 UNION ALL
SELECT l.run_id * 17179869184 + l.record_no * 2 + 1,
       l.record_key,
       CASE l.outcome WHEN 0 THEN 'load' ELSE 'stale' END,
       CASE l.outcome WHEN 0 THEN 'upserted to target' ELSE 'not newer than the row it met' END,
       r.finished_at,
       l.run_id,
       l.record_no
  FROM etl_runs r CROSS JOIN lineage_records l
 WHERE l.run_id = r.id AND l.outcome IN (0, 1);
CREATE VIEW run_log AS
SELECT id, status, rows_out + COALESCE(rows_stale, 0) AS staged, rows_out AS loaded,
       COALESCE(rows_rejected, 0) AS rejected, duration_ms, COALESCE(finished_at, started_at) AS created
  FROM etl_runs;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('etl_runs',11);
INSERT INTO "sqlite_sequence" VALUES('dead_letters',3);
COMMIT;
