-- +goose Up

-- A sink that observes writes nothing: its routes end as observed.
ALTER TABLE routes DROP CONSTRAINT routes_outcome_check,
    ADD CONSTRAINT routes_outcome_check CHECK (outcome IN ('dead', 'delivered', 'stale', 'unchanged', 'skipped', 'observed')) NOT VALID;
ALTER TABLE deliveries DROP CONSTRAINT deliveries_outcome_check,
    ADD CONSTRAINT deliveries_outcome_check CHECK (outcome IN ('dead', 'delivered', 'stale', 'unchanged', 'skipped', 'observed')) NOT VALID;

-- What a delivery that was observed would have done.
CREATE TABLE observations (
    event_id uuid        NOT NULL,
    sink     text        NOT NULL,
    run      integer     NOT NULL DEFAULT 0,
    mapping  text        NOT NULL,
    object   text        NOT NULL DEFAULT '',
    key      text        NOT NULL DEFAULT '',
    outcome  text        NOT NULL,             -- that it would have had; '' while it is tried again
    reason   text        NOT NULL DEFAULT '',
    does     text        NOT NULL DEFAULT '',  -- create, adopt, write, update, link, archive; '' where nothing would have been sent
    crm_id   text        NOT NULL DEFAULT '',  -- new:... of one that would have been made
    fields   jsonb,                            -- that would have been written: [{"name", "old", "new", "at"}]; old where the CRM has another value
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (event_id, sink, run, mapping, object, key)
);
CREATE INDEX observations_record ON observations (sink, object, key, at);

-- By which values, that would have been written, another event may look for a record.
CREATE TABLE imagined (
    sink      text NOT NULL,
    object    text NOT NULL,
    identity  text NOT NULL, -- hash of the properties and their values
    record_id uuid NOT NULL,
    PRIMARY KEY (sink, object, identity)
);

-- How many rows a sink with a guard has sent since the hour began that it counts.
CREATE TABLE guards (
    sink       text PRIMARY KEY,
    since      timestamptz NOT NULL,
    creates    bigint      NOT NULL,
    overwrites bigint      NOT NULL,
    archives   bigint      NOT NULL
);
