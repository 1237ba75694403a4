PRAGMA application_id = 1953328231;
PRAGMA user_version = 2;
BEGIN TRANSACTION;
CREATE TABLE attempt (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        pass INTEGER NOT NULL REFERENCES pass (seq),
        area TEXT NOT NULL,
        kind TEXT NOT NULL,
        id TEXT NOT NULL,
        digest TEXT NOT NULL,
        began TEXT NOT NULL,
        ended TEXT,
        status TEXT NOT NULL,
        error TEXT,
        exit_code INTEGER,
        seconds REAL NOT NULL DEFAULT 0,
        pixels INTEGER NOT NULL DEFAULT 0,
        counts INTEGER NOT NULL DEFAULT 1
    );
INSERT INTO "attempt" VALUES(1,1,'pucallpa','map','1985','ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12','2026-11-26T02:15:00+00:00','2026-11-26T02:15:00+00:00','ok',NULL,0,1.25,12,1);
CREATE TABLE lock (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        token INTEGER NOT NULL,
        holder TEXT,
        since TEXT,
        lease_s REAL NOT NULL,
        beat INTEGER NOT NULL,
        heard TEXT
    );
INSERT INTO "lock" VALUES(1,1,NULL,NULL,300.0,7,NULL);
CREATE TABLE pass (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        token INTEGER NOT NULL,
        holder TEXT NOT NULL,
        began TEXT NOT NULL,
        ended TEXT,
        status TEXT NOT NULL,
        exit_code INTEGER,
        summary TEXT NOT NULL DEFAULT '{}'
    );
INSERT INTO "pass" VALUES(1,'p1',1,'{"host":"night","pid":4711,"started":90,"boot":"5f3c","who":"maps: tilemap nightly areas.toml","space":"pid:[4026531836]"}','2026-11-26T02:15:00+00:00','2026-11-26T02:15:00+00:00','partial',3,'{}');
CREATE TABLE product (
        folder TEXT PRIMARY KEY,
        area TEXT NOT NULL,
        kind TEXT NOT NULL,
        id TEXT NOT NULL,
        version TEXT NOT NULL,
        digest TEXT NOT NULL,
        result TEXT NOT NULL,
        day TEXT,
        status TEXT NOT NULL,
        run TEXT NOT NULL,
        item TEXT NOT NULL,
        published TEXT NOT NULL,
        pixels INTEGER NOT NULL,
        km2 REAL,
        seconds REAL NOT NULL,
        sources TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        listed INTEGER NOT NULL,
        unlisted TEXT,
        forgotten INTEGER NOT NULL DEFAULT 0,
        mirrored INTEGER NOT NULL DEFAULT 0,
        removed INTEGER NOT NULL DEFAULT 0
    , checked INTEGER);
INSERT INTO "product" VALUES('pucallpa/1985/ab12','pucallpa','map','1985','ab12','ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12','r','1985-08-01','ok','work/pucallpa/1985/ab12','{"id":"1985"}','2026-11-26T02:15:00+00:00',12,0.5,1.25,'{"title":"/in/a.tif"}','[{"name":"1985.tif","size":9}]',1,NULL,0,0,0,7);
CREATE TABLE quarantine (
        area TEXT NOT NULL,
        kind TEXT NOT NULL,
        id TEXT NOT NULL,
        digest TEXT NOT NULL,
        since TEXT NOT NULL,
        reason TEXT NOT NULL,
        exit_code INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        PRIMARY KEY (area, kind, id)
    );
INSERT INTO "quarantine" VALUES('pucallpa','map','1990','d','2026-11-26T02:15:00+00:00','is no raster',65,2);
CREATE TABLE scene (
        area TEXT NOT NULL,
        id TEXT NOT NULL,
        day TEXT,
        sources TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        newest REAL,
        state TEXT NOT NULL,
        reason TEXT NOT NULL,
        gone INTEGER NOT NULL DEFAULT 0,
        first_seen TEXT NOT NULL,
        last_seen TEXT NOT NULL,
        pass INTEGER NOT NULL,
        PRIMARY KEY (area, id)
    );
INSERT INTO "scene" VALUES('pucallpa','1985','1985-08-01','["/in/1985.tif"]','[{"mtime_ns":1,"name":"1985.tif","size":9}]',12.5,'ready','',0,'2026-11-26T02:15:00+00:00','2026-11-26T02:15:00+00:00',1);
CREATE TABLE timing (
        attempt INTEGER NOT NULL REFERENCES attempt (seq) ON DELETE CASCADE,
        step TEXT NOT NULL,
        seconds REAL NOT NULL,
        PRIMARY KEY (attempt, step)
    ) WITHOUT ROWID;
INSERT INTO "timing" VALUES(1,'tile',0.5);
CREATE INDEX attempt_work ON attempt (area, id, kind, digest);
CREATE INDEX attempt_running ON attempt (seq) WHERE status = 'running';
CREATE UNIQUE INDEX product_listed ON product (area, kind, id) WHERE listed;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('pass',1);
INSERT INTO "sqlite_sequence" VALUES('attempt',1);
COMMIT;
