-- +goose Up

-- The lists that tables of the config have from CRMs, as they were read last: a CRM that cannot be read now may still be written.
CREATE TABLE crm_lists (
    sink    text        NOT NULL,
    list    text        NOT NULL, -- which, of which object and field
    entries jsonb       NOT NULL, -- each with its fields by name
    read_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sink, list)
);
