-- No call that was read before was told of any.
ALTER TABLE usage_calls ADD COLUMN web_searches BIGINT NOT NULL DEFAULT 0;
COMMENT ON COLUMN usage_calls.web_searches IS 'searches of the web that the provider ran and charges for beside the tokens; their price is in the cost';

CREATE OR REPLACE VIEW usage_ledger WITH (security_invoker = true) AS
    SELECT
        c.org, c.session, c.turn, c.call_id, c.stored_at, c.day, c.user_id, t.agent AS agent_name, t.conversation_id,
        t.command_id, c.provider_name, c.request_model, c.response_model, c.input_tokens, c.output_tokens,
        c.cache_read_input_tokens, c.cache_creation_input_tokens, c.cost_micro_usd, c.prices, c.key_name, c.meter,
        c.http_status, c.complete, c.duration_ms, c.cursor, c.charged_micro_usd, c.web_searches
    FROM usage_calls AS c LEFT JOIN turns AS t USING (org, session, turn);
COMMENT ON COLUMN usage_ledger.web_searches IS 'searches of the web that the provider ran and charges for beside the tokens; their price is in the cost';

COMMENT ON COLUMN turns.attempt IS 'how often its program was to be started: more than 1 after one that ended without a word, or whose session ended before it began';
COMMENT ON COLUMN ops.attempt IS 'how often its program was to be started: more than 1 after one that ended without a word, or whose session ended before it began';
