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
    outcome  text        NOT NULL,             -- that it would have had
    reason   text        NOT NULL DEFAULT '',
    does     text        NOT NULL DEFAULT '',  -- create, adopt, update, archive, link; '' where nothing would have been sent
    crm_id   text        NOT NULL DEFAULT '',
    fields   jsonb,                            -- that would have been written: [{"name", "old", "new"}]; old where the CRM has another value
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (event_id, sink, run, mapping, object, key)
);
CREATE INDEX observations_record ON observations (sink, object, key, at);
