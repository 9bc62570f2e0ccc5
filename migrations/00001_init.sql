-- +goose Up

-- Every accepted request, with its body as it was sent.
CREATE TABLE events (
    id          uuid PRIMARY KEY,                -- UUIDv7, made at receipt
    source      text        NOT NULL,
    type        text        NOT NULL,
    entity      text        NOT NULL DEFAULT '', -- '' where the body names none
    occurred_at timestamptz,                     -- the sender's time; null where the body has none
    version_at  timestamptz NOT NULL,            -- orders the events of an entity
    rank        smallint    NOT NULL DEFAULT 0,  -- orders events of equal time
    received_at timestamptz NOT NULL,
    status      text        NOT NULL CHECK (status IN ('stored', 'unmapped', 'ignored', 'malformed', 'erased')),
    reason      text        NOT NULL DEFAULT '',
    digest      bytea       NOT NULL,            -- of source, type and body
    delivery    bytea,                           -- hash of source and the sender's id of the delivery; null where it names none
    duplicates  integer     NOT NULL DEFAULT 0,  -- how often the same event came again
    headers     jsonb,
    trace       text        NOT NULL DEFAULT '', -- traceparent and tracestate; '' where the sender gave none
    verified_by text        NOT NULL DEFAULT '', -- how the request proved who sent it
    body        bytea       NOT NULL
);
-- A body that carries the sender's time is stored once.
CREATE UNIQUE INDEX events_timed ON events (digest) WHERE occurred_at IS NOT NULL;
-- So is one whose delivery the sender names.
CREATE UNIQUE INDEX events_delivery ON events (delivery) WHERE delivery IS NOT NULL;
CREATE INDEX events_entity ON events (source, entity, version_at) WHERE entity <> '';
CREATE INDEX events_type ON events (type, id);
-- Those that no worker looks at.
CREATE INDEX events_idle ON events (id) WHERE status IN ('unmapped', 'ignored', 'malformed');

-- One row per event and sink that wants it; open until its outcome is known.
CREATE TABLE routes (
    event_id   uuid        NOT NULL,
    sink       text        NOT NULL,
    run        integer     NOT NULL DEFAULT 0,   -- a replay is a new run; below 0, one that was cancelled
    source     text        NOT NULL,             -- of the event
    generation bigint      NOT NULL,             -- of the config that opened it
    replay     bigint,                           -- the replay that opened it
    rewrite    boolean     NOT NULL DEFAULT false, -- also send what the CRM has acknowledged
    outcome    text CHECK (outcome IN ('dead', 'delivered', 'stale', 'unchanged', 'skipped')),
    reason     text        NOT NULL DEFAULT '',
    opened_at  timestamptz NOT NULL DEFAULT now(),
    closed_at  timestamptz,
    PRIMARY KEY (event_id, sink, run)
);
CREATE INDEX routes_open ON routes (sink, opened_at, event_id) WHERE outcome IS NULL;
CREATE INDEX routes_replay ON routes (replay) WHERE replay IS NOT NULL AND outcome IS NULL;
CREATE INDEX routes_dead ON routes (sink, closed_at) WHERE outcome = 'dead';
-- Runs after the first, which are few: whether a dead route was replayed since.
CREATE INDEX routes_again ON routes (event_id, sink, run) WHERE run > 0;

-- How many routes were opened and how many ended, by the hour in which they were
-- opened. Each transaction appends to tally_changes what it has changed, which are
-- added up to tallies now and then: rows that all would update would make
-- receivers wait for each other.
CREATE TABLE tallies (
    hour    timestamptz NOT NULL,
    source  text        NOT NULL,
    sink    text        NOT NULL,
    outcome text        NOT NULL, -- 'opened', or how routes ended
    routes  bigint      NOT NULL,
    PRIMARY KEY (hour, source, sink, outcome)
);
CREATE TABLE tally_changes (
    hour    timestamptz NOT NULL,
    source  text        NOT NULL,
    sink    text        NOT NULL,
    outcome text        NOT NULL,
    routes  bigint      NOT NULL
);

-- What became of one record of one mapping of a route.
CREATE TABLE deliveries (
    event_id        uuid        NOT NULL,
    sink            text        NOT NULL,
    run             integer     NOT NULL DEFAULT 0,
    mapping         text        NOT NULL,
    object          text        NOT NULL DEFAULT '',
    key             text        NOT NULL DEFAULT '',
    outcome         text CHECK (outcome IN ('dead', 'delivered', 'stale', 'unchanged', 'skipped')), -- null while it is tried again
    class           text        NOT NULL DEFAULT '',
    reason          text        NOT NULL DEFAULT '',
    attempts        integer     NOT NULL DEFAULT 0,
    first_failed_at timestamptz,                 -- first failure that counts against the 72 hours
    status          integer     NOT NULL DEFAULT 0, -- HTTP status of the last answer
    crm_id          text        NOT NULL DEFAULT '',
    mapping_hash    text        NOT NULL DEFAULT '',
    at              timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (event_id, sink, run, mapping, object, key)
);

CREATE INDEX deliveries_dead ON deliveries (sink, event_id, run) WHERE outcome = 'dead';
-- Those that name the event whose value they go without.
CREATE INDEX deliveries_without ON deliveries (at) WHERE reason LIKE '%which the CRM refused of event %' AND outcome IN ('delivered', 'skipped');
CREATE INDEX deliveries_skipped ON deliveries (at) WHERE outcome = 'skipped';

-- What we want a record of a CRM to be, and what the CRM has acknowledged.
CREATE TABLE records (
    id           uuid PRIMARY KEY,
    sink         text        NOT NULL,
    object       text        NOT NULL,
    crm_id       text        NOT NULL DEFAULT '',
    presence     text        NOT NULL DEFAULT 'unknown' CHECK (presence IN ('unknown', 'present', 'gone', 'unsure')),
    fields       jsonb       NOT NULL DEFAULT '{}',
    links        jsonb       NOT NULL DEFAULT '{}',
    gone_version text        NOT NULL DEFAULT '', -- of the newest event that archived it: [µs,rank,"event"]
    live_version text        NOT NULL DEFAULT '', -- of the newest event that makes it again should it be gone
    merged       boolean     NOT NULL DEFAULT false, -- several keys of ours name it
    revision     bigint      NOT NULL DEFAULT 0,  -- each write raises it, and names the one that it has read
    updated_at   timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 80);
CREATE INDEX records_crm_id ON records (sink, object, crm_id) WHERE crm_id <> '';

-- Which record a key of ours names; several keys may be aliases of one record.
CREATE TABLE record_keys (
    sink      text NOT NULL,
    object    text NOT NULL,
    property  text NOT NULL,
    value     text NOT NULL, -- folded as the sink compares keys
    record_id uuid NOT NULL,
    PRIMARY KEY (sink, object, property, value)
);
CREATE INDEX record_keys_record ON record_keys (record_id);

-- One row per sink: who owns it, and why it is stopped.
CREATE TABLE sinks (
    name       text PRIMARY KEY,
    owner      text        NOT NULL DEFAULT '', -- id of the process that works its queue
    epoch      bigint      NOT NULL DEFAULT 0,  -- grows with every change of the owner
    backend    integer,                         -- Postgres process that holds the owner's advisory lock
    renewed_at timestamptz,                     -- when the owner last showed that it lives
    state      text        NOT NULL DEFAULT 'ready' CHECK (state IN ('ready', 'throttled', 'parked', 'held', 'stopped')),
    reason     text        NOT NULL DEFAULT '',
    until      timestamptz,          -- when a throttled or parked sink goes on, or the next probe
    asked      text        NOT NULL DEFAULT '', -- 'stop' or 'resume': what a person wants the owner to do
    account    text        NOT NULL DEFAULT '',
    tokens     bytea,                -- encrypted
    barred     text        NOT NULL DEFAULT '', -- why nobody may take it, as it cannot take over its former names
    renamed_to text        NOT NULL DEFAULT '', -- its name by now; the row stays, so that nobody takes this one any more
    renamed_by bigint      NOT NULL DEFAULT 0,  -- generation of the config that renamed it
    changed_at timestamptz NOT NULL DEFAULT now()
);

-- The processes that work sinks.
CREATE TABLE workers (
    id      text PRIMARY KEY,
    seen_at timestamptz NOT NULL DEFAULT now()
);

-- Batches on their way to a CRM: nobody else may touch their records before `until`.
CREATE TABLE announcements (
    id      uuid PRIMARY KEY,
    sink    text        NOT NULL,
    epoch   bigint      NOT NULL,
    records text[]      NOT NULL, -- object, property and key of each
    until   timestamptz NOT NULL
);
CREATE INDEX announcements_sink ON announcements (sink);

-- Raises PS001 unless the epoch of a sink is still the given one, and keeps it so
-- until the transaction ends.
-- +goose StatementBegin
CREATE FUNCTION partnersync_fence(sink text, expected bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM sinks s WHERE s.name = sink AND s.epoch = expected FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'sink % has another owner by now', sink USING ERRCODE = 'PS001';
    END IF;
END
$$;
-- +goose StatementEnd

-- Raises PS002 unless as many records were written as were to be: one of them has been
-- written by another statement since it was read.
-- +goose StatementBegin
CREATE FUNCTION partnersync_unsurpassed(written bigint, expected bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF written <> expected THEN
        RAISE EXCEPTION 'a record has been written since it was read' USING ERRCODE = 'PS002';
    END IF;
END
$$;
-- +goose StatementEnd

-- Who replayed what, and how far it has come: first its events are selected, then
-- their routes are opened, both step by step.
CREATE TABLE replays (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at           timestamptz NOT NULL DEFAULT now(),
    by           text        NOT NULL,
    selection    jsonb       NOT NULL,
    rewrite      boolean     NOT NULL,
    seen         uuid        NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000', -- the last event that was looked at
    last         uuid        NOT NULL,           -- the last one to be looked at: those that come later are not replayed
    events       bigint      NOT NULL DEFAULT 0, -- selected
    routes       bigint      NOT NULL DEFAULT 0, -- opened
    moved_at     timestamptz NOT NULL DEFAULT now(), -- the last step
    selected_at  timestamptz,                    -- all events are selected
    finished_at  timestamptz,                    -- all routes are opened
    cancelled_at timestamptz
);
-- Events that are selected, and whose routes are still to be opened.
CREATE TABLE replay_events (
    replay   bigint NOT NULL,
    event_id uuid   NOT NULL,
    PRIMARY KEY (replay, event_id)
);

-- Who had how much erased because a person was to be forgotten; not which person.
CREATE TABLE forgets (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT now(),
    by          text        NOT NULL,
    events      bigint      NOT NULL DEFAULT 0,
    deliveries  bigint      NOT NULL DEFAULT 0,
    records     bigint      NOT NULL DEFAULT 0,
    jobs        bigint      NOT NULL DEFAULT 0,
    finished_at timestamptz                     -- null where it was cut short
);

-- The addresses of people who are forgotten, as keyed hashes, so that a late event
-- does not bring them back.
CREATE TABLE tombstones (
    hash bytea PRIMARY KEY,
    at   timestamptz NOT NULL DEFAULT now()
);
-- The key of these hashes, made with the first one, and the last event that no worker
-- looks at which has been compared with them.
CREATE TABLE tombstone_key (
    one    boolean PRIMARY KEY DEFAULT true CHECK (one),
    secret bytea   NOT NULL,
    seen   uuid    NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000'
);

-- The configs that have run, in order.
CREATE TABLE configs (
    generation bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hash       text        NOT NULL,
    at         timestamptz NOT NULL DEFAULT now(),
    by         text        NOT NULL DEFAULT ''
);

-- +goose Down
DROP FUNCTION partnersync_fence, partnersync_unsurpassed;
DROP TABLE configs, tombstone_key, tombstones, forgets, replay_events, replays, announcements, workers, sinks, record_keys, records, deliveries, tally_changes, tallies, routes, events;
