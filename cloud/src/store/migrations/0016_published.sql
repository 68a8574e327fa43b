-- Labels that were raised and told to a broker (docs/operate.md, MQTT): those of before are not told any more.
ALTER TABLE meshlium_cursor ADD COLUMN raised INTEGER NOT NULL DEFAULT 0;
UPDATE meshlium_cursor SET raised = (SELECT coalesce(max(id), 0) FROM raised);
CREATE INDEX classic_value_of ON classic_value (reading);
