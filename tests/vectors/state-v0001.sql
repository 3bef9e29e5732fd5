-- The tables of a coordinator before schemas had numbers (v0001), as SQLite has them.

CREATE TABLE approvals (
    study_digest VARCHAR(64) NOT NULL,
    site VARCHAR(40) NOT NULL,
    decision VARCHAR(16) NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (study_digest, site)
);

CREATE TABLE cosigned (
    size INTEGER NOT NULL,
    note BLOB NOT NULL,
    PRIMARY KEY (size)
);

CREATE TABLE deployed (
    part VARCHAR(40) NOT NULL,
    sha256 VARCHAR(64) NOT NULL,
    PRIMARY KEY (part)
);

CREATE TABLE endorsements (
    study_digest VARCHAR(64) NOT NULL,
    model_digest VARCHAR(64) NOT NULL,
    site VARCHAR(40) NOT NULL,
    entry BLOB NOT NULL,
    PRIMARY KEY (study_digest, model_digest, site)
);

CREATE TABLE invitations (
    token_sha256 VARCHAR(64) NOT NULL,
    site VARCHAR(40) NOT NULL,
    expires_at FLOAT NOT NULL,
    used_at FLOAT,
    PRIMARY KEY (token_sha256)
);

CREATE TABLE journal (
    id INTEGER NOT NULL,
    study_digest VARCHAR(64) NOT NULL,
    round INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    event BLOB NOT NULL,
    PRIMARY KEY (id)
);

CREATE TABLE outbox (
    id INTEGER NOT NULL,
    entry BLOB NOT NULL,
    PRIMARY KEY (id)
);

CREATE TABLE rounds (
    study_digest VARCHAR(64) NOT NULL,
    round INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    kind VARCHAR(16) NOT NULL,
    outcome VARCHAR(16) NOT NULL,
    "plan" BLOB NOT NULL,
    facts TEXT NOT NULL,
    PRIMARY KEY (study_digest, round, attempt)
);

CREATE TABLE sites (
    site VARCHAR(40) NOT NULL,
    certificate BLOB NOT NULL,
    spki_sha256 VARCHAR(64) NOT NULL,
    signing_key VARCHAR(64) NOT NULL,
    ecdsa_key VARCHAR(130) NOT NULL,
    enrolled_at FLOAT NOT NULL,
    revoked_at FLOAT,
    last_sequence INTEGER NOT NULL,
    last_event_sha256 VARCHAR(64) NOT NULL,
    PRIMARY KEY (site),
    UNIQUE (spki_sha256),
    UNIQUE (signing_key),
    UNIQUE (ecdsa_key)
);

CREATE TABLE spends (
    study_digest VARCHAR(64) NOT NULL,
    site VARCHAR(40) NOT NULL,
    epsilon FLOAT NOT NULL,
    delta FLOAT NOT NULL,
    PRIMARY KEY (study_digest, site)
);

CREATE TABLE studies (
    study VARCHAR(64) NOT NULL,
    digest VARCHAR(64) NOT NULL,
    document BLOB NOT NULL,
    state VARCHAR(16) NOT NULL,
    submitted_at FLOAT NOT NULL,
    next_round INTEGER NOT NULL,
    next_attempt INTEGER NOT NULL,
    last_attempt INTEGER NOT NULL,
    model_digest VARCHAR(64) NOT NULL,
    transcript VARCHAR(64) NOT NULL,
    measured TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (study),
    UNIQUE (digest)
);

CREATE TABLE witnesses (
    site VARCHAR(40) NOT NULL,
    vkey VARCHAR(512) NOT NULL,
    PRIMARY KEY (site)
);
