-- +goose Up

-- What the CRM lacked of what the config names, when somebody looked last: when, under which config, how many.
ALTER TABLE sinks ADD COLUMN live jsonb;
