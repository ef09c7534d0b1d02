/* The floor: the least a program can do to load a file with full lineage into this SQLite. A scanner fixed to one shape
 * of record, no validation, no hash, no ledger of content: staged, upserted in key order, lineage in inboxd's compact
 * form, one durable transaction.   floor FILE DATABASE [presorted]
 *
 * SQLite sorts, for the upsert and again for the lineage. With "presorted" the program sorts the records itself before it
 * stages them, in as much memory as they take: the fastest way known to get them into this SQLite.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "sqlite3.h"

static sqlite3 *db;

static void die(const char *what) {
    fprintf(stderr, "floor: %s: %s\n", what, db ? sqlite3_errmsg(db) : "");
    exit(1);
}

static void run(const char *sql) {
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK) die(sql);
}

static const char *const SCHEMA =
    "CREATE TABLE IF NOT EXISTS target (key TEXT PRIMARY KEY NOT NULL, name TEXT, value REAL, ts TEXT NOT NULL,"
    " run_id INTEGER, updated_at TEXT) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS lineage_records (run_id INTEGER NOT NULL, record_key TEXT NOT NULL,"
    " record_no INTEGER NOT NULL, outcome INTEGER NOT NULL, detail TEXT,"
    " PRIMARY KEY (run_id, record_key, record_no)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS etl_runs (id INTEGER PRIMARY KEY AUTOINCREMENT, status TEXT, rows_in INTEGER);"
    "CREATE VIEW IF NOT EXISTS lineage AS"
    " SELECT record_key, 'stage' AS step, run_id, record_no FROM lineage_records UNION ALL"
    " SELECT record_key, 'load', run_id, record_no FROM lineage_records WHERE outcome = 0;"
    "CREATE TEMP TABLE staging (record_no INTEGER, key TEXT, name TEXT, value REAL, ts TEXT);";

#define UPSERT(order)                                                                                              \
    "INSERT INTO target SELECT key, name, value, ts, 1, strftime('%Y-%m-%dT%H:%M:%fZ') FROM staging WHERE true "   \
    order " ON CONFLICT (key) DO UPDATE SET name = excluded.name, value = excluded.value, ts = excluded.ts,"       \
    " run_id = excluded.run_id, updated_at = excluded.updated_at WHERE excluded.ts > target.ts"

#define LINEAGE(order) "INSERT INTO lineage_records SELECT 1, key, record_no, 0, NULL FROM staging " order

struct record {
    const char *at; /* the first byte of the key */
    int64_t number;
};

/* The text of a string value: `at` stands on its first byte, and is left behind the closing quote. */
static void bind_text(sqlite3_stmt *insert, int place, const char **at) {
    const char *end = strchr(*at, '"');
    sqlite3_bind_text(insert, place, *at, (int)(end - *at), SQLITE_STATIC);
    *at = end + 1;
}

static void bind_moment(sqlite3_stmt *insert, int place, const char **at, char out[28]) {
    memcpy(out, *at, 19);                       /* 2026-01-15T10:30:00 */
    memcpy(out + 19, ".000000Z", 8);
    sqlite3_bind_text(insert, place, out, 27, SQLITE_STATIC);
    *at += 21;
}

static void stage_one(sqlite3_stmt *insert, struct record record) {
    char moment[28], *behind;
    const char *at = record.at;
    sqlite3_bind_int64(insert, 1, record.number);
    bind_text(insert, 2, &at);
    at += strlen(",\"name\":\"");
    bind_text(insert, 3, &at);
    at += strlen(",\"value\":");
    sqlite3_bind_double(insert, 4, strtod(at, &behind));
    at = behind + strlen(",\"ts\":\"");
    bind_moment(insert, 5, &at, moment);
    if (sqlite3_step(insert) != SQLITE_DONE) die("stage");
    sqlite3_reset(insert);
}

static int by_key(const void *left, const void *right) {
    const struct record *a = left, *b = right;
    const char *p = a->at, *q = b->at;
    while (*p == *q && *p != '"') p++, q++;
    if (*p == *q) return a->number < b->number ? -1 : 1;
    return *p == '"' ? -1 : *q == '"' ? 1 : (unsigned char)*p - (unsigned char)*q;
}

static int64_t stage(const char *at, int presorted) {
    sqlite3_stmt *insert;
    struct record record = {NULL, 0}, *all = NULL;
    int64_t room = 0;
    if (sqlite3_prepare_v2(db, "INSERT INTO staging VALUES (?, ?, ?, ?, ?)", -1, &insert, NULL) != SQLITE_OK) die("stage");
    while ((at = strchr(at, '{')) != NULL) {
        at += strlen("{\"key\":\"");
        record.at = at;
        record.number++;
        if (!presorted) {
            stage_one(insert, record);
            continue;
        }
        if (record.number > room) all = realloc(all, (size_t)(room = room ? room * 2 : 65536) * sizeof *all);
        if (all == NULL) die("memory");
        all[record.number - 1] = record;
    }
    if (presorted) {
        qsort(all, (size_t)record.number, sizeof *all, by_key);
        for (int64_t i = 0; i < record.number; i++) stage_one(insert, all[i]);
        free(all);
    }
    sqlite3_finalize(insert);
    return record.number;
}

int main(int argc, char **argv) {
    struct stat about;
    char record[200];
    int presorted = argc == 4 && strcmp(argv[3], "presorted") == 0;
    int file = argc == 3 || presorted ? open(argv[1], O_RDONLY) : -1;
    if (file < 0 || fstat(file, &about) != 0) die("usage: floor FILE DATABASE [presorted]");
    /* One byte more than the file has: the page behind its end is zero, or the mapping ends with one of its own. */
    char *text = mmap(NULL, (size_t)about.st_size + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (text == MAP_FAILED) die("mmap");
    if (mmap(text, (size_t)about.st_size, PROT_READ, MAP_PRIVATE | MAP_FIXED, file, 0) == MAP_FAILED) die("mmap");
    if (sqlite3_open(argv[2], &db) != SQLITE_OK) die("open");
    run("PRAGMA journal_mode = WAL");
    run("PRAGMA synchronous = FULL");
    run("PRAGMA cache_size = -65536");
    run(SCHEMA);
    run("BEGIN");
    int64_t count = stage(text, presorted);
    run(presorted ? UPSERT("") : UPSERT("ORDER BY key, record_no"));
    run(presorted ? LINEAGE("") : LINEAGE("ORDER BY key, record_no"));
    snprintf(record, sizeof record, "INSERT INTO etl_runs (status, rows_in) VALUES ('success', %lld)", (long long)count);
    run(record);
    run("COMMIT");
    if (sqlite3_close(db) != SQLITE_OK) die("close");
    return 0;
}
