-- The legacy shop: 48 tables of a single-tenant Telegram VPN shop, as an ORM creates them at start-up.
--
-- It is meant to look harmless and to hold what real databases hold (the capitals are for finding them):
--   UNIQUE WITHOUT CONSTRAINT   ix_users_telegram_id, ix_promocodes_code, and more
--   UNIQUE TWICE                promo_groups(name), two constraints of different names
--   FOREIGN KEY TWICE           subscription_events.user_id
--   NO FOREIGN KEY              ticket_messages.user_id holds keys of users all the same
--   COMPOSITE KEY, NO id        user_promo_groups, subscription_servers
--   UNIQUE THAT STAYS           subscriptions(user_id), referral codes, ids given out by payment providers
--   NULLS IN A UNIQUE           users.referral_code, mulenpay_payments.mulen_payment_id, wata_payments.order_id
--   json, NOT jsonb             it has no equality operator
--   NO DEFAULTS                 but the sequences: the application supplies every value
--   WIDE ROWS                   support_audit_logs, about 900 bytes each
--   ONE ROW, NO ROW             welcome_texts, main_menu_buttons
--
-- Seven tables reach users by foreign keys although no list names them: user_promo_groups, subscription_servers,
-- ticket_messages, ticket_attachments (three joins away), poll_answers, referral_withdrawals, yookassa_refunds.
-- server_squad_promo_groups references promo_groups, which does not reach users.
--
-- The file has two parts; the rows are written between them (legacy_shop_rows.sql).


-- ---------------------------------------------------------------------------------------------------------------
-- Part 1: tables

-- Catalogue and settings: none of these reaches users

CREATE TABLE promo_groups (
    id SERIAL PRIMARY KEY,
    name VARCHAR(255) NOT NULL,
    priority INTEGER NOT NULL,
    server_discount_percent INTEGER NOT NULL,
    traffic_discount_percent INTEGER NOT NULL,
    device_discount_percent INTEGER NOT NULL,
    period_discounts JSON,
    auto_assign_total_spent_kopeks INTEGER,
    is_default BOOLEAN NOT NULL,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL,
    CONSTRAINT promo_groups_name_key UNIQUE (name)
);

-- UNIQUE TWICE: the migration that should have named it added it. (CREATE TABLE itself merges equal constraints.)
ALTER TABLE promo_groups ADD CONSTRAINT uq_promo_groups_name UNIQUE (name);

CREATE TABLE main_menu_buttons (
    id SERIAL PRIMARY KEY,
    text VARCHAR(64) NOT NULL,
    action_type VARCHAR(20) NOT NULL,
    action_value TEXT NOT NULL,
    visibility VARCHAR(20) NOT NULL,
    is_active BOOLEAN NOT NULL,
    display_order INTEGER NOT NULL,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL
);

CREATE TABLE server_squads (
    id SERIAL PRIMARY KEY,
    squad_uuid VARCHAR(255) NOT NULL,
    display_name VARCHAR(255) NOT NULL,
    country_code VARCHAR(5),
    is_available BOOLEAN NOT NULL,
    is_trial_eligible BOOLEAN NOT NULL,
    price_kopeks INTEGER NOT NULL,
    sort_order INTEGER NOT NULL,
    max_users INTEGER,
    current_users INTEGER NOT NULL,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL
);

CREATE TABLE server_squad_promo_groups (
    server_squad_id INTEGER NOT NULL,
    promo_group_id INTEGER NOT NULL,
    PRIMARY KEY (server_squad_id, promo_group_id)
);

CREATE TABLE polls (
    id SERIAL PRIMARY KEY,
    title VARCHAR(255) NOT NULL,
    description TEXT,
    reward_enabled BOOLEAN NOT NULL,
    reward_amount_kopeks INTEGER NOT NULL,
    created_by_telegram_id BIGINT,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL
);

CREATE TABLE poll_questions (
    id SERIAL PRIMARY KEY,
    poll_id INTEGER NOT NULL,
    text TEXT NOT NULL,
    "order" INTEGER NOT NULL
);

CREATE TABLE poll_options (
    id SERIAL PRIMARY KEY,
    question_id INTEGER NOT NULL,
    text TEXT NOT NULL,
    "order" INTEGER NOT NULL
);

CREATE TABLE system_settings (
    id SERIAL PRIMARY KEY,
    key VARCHAR(255) NOT NULL UNIQUE,
    value TEXT,
    description TEXT,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL
);

CREATE TABLE service_rules (
    id SERIAL PRIMARY KEY,
    "order" INTEGER NOT NULL,
    title VARCHAR(255) NOT NULL,
    content TEXT NOT NULL,
    language VARCHAR(5) NOT NULL,
    is_active BOOLEAN NOT NULL,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL
);

CREATE TABLE faq_pages (
    id SERIAL PRIMARY KEY,
    language VARCHAR(10) NOT NULL,
    title VARCHAR(255) NOT NULL,
    content TEXT NOT NULL,
    display_order INTEGER NOT NULL,
    is_active BOOLEAN NOT NULL,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL
);

CREATE TABLE privacy_policies (
    id SERIAL PRIMARY KEY,
    language VARCHAR(10) NOT NULL UNIQUE,
    content TEXT NOT NULL,
    is_enabled BOOLEAN NOT NULL,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL
);

CREATE TABLE public_offers (
    id SERIAL PRIMARY KEY,
    language VARCHAR(10) NOT NULL UNIQUE,
    content TEXT NOT NULL,
    is_enabled BOOLEAN NOT NULL,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL
);

CREATE TABLE web_api_tokens (
    id SERIAL PRIMARY KEY,
    name VARCHAR(255) NOT NULL,
    token_hash VARCHAR(128) NOT NULL,
    token_prefix VARCHAR(32) NOT NULL,
    is_active BOOLEAN NOT NULL,
    created_at TIMESTAMP NOT NULL,
    last_used_at TIMESTAMP
);

-- Users and what they own

CREATE TABLE users (
    id SERIAL PRIMARY KEY,
    telegram_id BIGINT NOT NULL,
    username VARCHAR(255),
    first_name VARCHAR(255),
    last_name VARCHAR(255),
    status VARCHAR(20) NOT NULL,
    language VARCHAR(5) NOT NULL,
    balance_kopeks INTEGER NOT NULL,
    used_promocodes INTEGER NOT NULL,
    has_had_paid_subscription BOOLEAN NOT NULL,
    referred_by_id INTEGER,
    referral_code VARCHAR(20),
    promo_group_id INTEGER,
    remnawave_uuid VARCHAR(255),
    auto_promo_group_assigned BOOLEAN NOT NULL,
    last_activity TIMESTAMP,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL,
    CONSTRAINT users_referral_code_key UNIQUE (referral_code),
    CONSTRAINT users_remnawave_uuid_key UNIQUE (remnawave_uuid)
);

CREATE TABLE subscriptions (
    id SERIAL PRIMARY KEY,
    user_id INTEGER NOT NULL,
    status VARCHAR(20) NOT NULL,
    is_trial BOOLEAN NOT NULL,
    start_date TIMESTAMP NOT NULL,
    end_date TIMESTAMP NOT NULL,
    traffic_limit_gb INTEGER NOT NULL,
    traffic_used_gb DOUBLE PRECISION NOT NULL,
    subscription_url VARCHAR(255),
    device_limit INTEGER NOT NULL,
    connected_squads JSON,
    autopay_enabled BOOLEAN NOT NULL,
    autopay_days_before INTEGER NOT NULL,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL,
    CONSTRAINT subscriptions_user_id_key UNIQUE (user_id)
);

CREATE TABLE transactions (
    id SERIAL PRIMARY KEY,
    user_id INTEGER NOT NULL,
    type VARCHAR(50) NOT NULL,
    amount_kopeks INTEGER NOT NULL,
    description TEXT,
    payment_method VARCHAR(50),
    external_id VARCHAR(255),
    is_completed BOOLEAN NOT NULL,
    created_at TIMESTAMP NOT NULL,
    completed_at TIMESTAMP
);

CREATE TABLE tickets (
    id SERIAL PRIMARY KEY,
    user_id INTEGER NOT NULL,
    title VARCHAR(255) NOT NULL,
    status VARCHAR(20) NOT NULL,
    priority VARCHAR(20) NOT NULL,
    user_reply_block_permanent BOOLEAN NOT NULL,
    user_reply_block_until TIMESTAMP,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL,
    closed_at TIMESTAMP
);

CREATE TABLE promocodes (
    id SERIAL PRIMARY KEY,
    code VARCHAR(50) NOT NULL,
    type VARCHAR(50) NOT NULL,
    balance_bonus_kopeks INTEGER NOT NULL,
    subscription_days INTEGER NOT NULL,
    max_uses INTEGER NOT NULL,
    current_uses INTEGER NOT NULL,
    valid_from TIMESTAMP NOT NULL,
    valid_until TIMESTAMP,
    is_active BOOLEAN NOT NULL,
    promo_group_id INTEGER,
    created_by INTEGER,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL
);

CREATE TABLE yookassa_payments (
    id SERIAL PRIMARY KEY,
    user_id INTEGER NOT NULL,
    yookassa_payment_id VARCHAR(255) NOT NULL,
    amount_kopeks INTEGER NOT NULL,
    currency VARCHAR(3) NOT NULL,
    description TEXT,
    status VARCHAR(50) NOT NULL,
    is_paid BOOLEAN NOT NULL,
    is_captured BOOLEAN NOT NULL,
    confirmation_url TEXT,
    metadata_json JSON,
    transaction_id INTEGER,
    payment_method_type VARCHAR(50),
    refundable BOOLEAN NOT NULL,
    test_mode BOOLEAN NOT NULL,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL,
    captured_at TIMESTAMP
);

CREATE TABLE cryptobot_payments (
    id SERIAL PRIMARY KEY,
    user_id INTEGER NOT NULL,
    invoice_id VARCHAR(255) NOT NULL,
    amount VARCHAR(50) NOT NULL,
    asset VARCHAR(10) NOT NULL,
    status VARCHAR(50) NOT NULL,
    description TEXT,
    payload TEXT,
    bot_invoice_url TEXT,
    transaction_id INTEGER,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL,
    paid_at TIMESTAMP
);

CREATE TABLE heleket_payments (
    id SERIAL PRIMARY KEY,
    user_id INTEGER NOT NULL,
    uuid VARCHAR(255) NOT NULL UNIQUE,
    order_id VARCHAR(128) NOT NULL UNIQUE,
    amount VARCHAR(50) NOT NULL,
    currency VARCHAR(10) NOT NULL,
    payer_currency VARCHAR(10),
    exchange_rate DOUBLE PRECISION,
    status VARCHAR(50) NOT NULL,
    payment_url TEXT,
    metadata_json JSON,
    transaction_id INTEGER,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL,
    paid_at TIMESTAMP
);

CREATE TABLE mulenpay_payments (
    id SERIAL PRIMARY KEY,
    user_id INTEGER NOT NULL,
    mulen_payment_id INTEGER,
    uuid VARCHAR(255) NOT NULL,
    amount_kopeks INTEGER NOT NULL,
    currency VARCHAR(10) NOT NULL,
    description TEXT,
    status VARCHAR(50) NOT NULL,
    is_paid BOOLEAN NOT NULL,
    payment_url TEXT,
    metadata_json JSON,
    callback_payload JSON,
    transaction_id INTEGER,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL,
    paid_at TIMESTAMP
);

CREATE TABLE pal24_payments (
    id SERIAL PRIMARY KEY,
    user_id INTEGER NOT NULL,
    bill_id VARCHAR(255) NOT NULL,
    order_id VARCHAR(255),
    amount_kopeks INTEGER NOT NULL,
    currency VARCHAR(10) NOT NULL,
    status VARCHAR(50) NOT NULL,
    is_paid BOOLEAN NOT NULL,
    link_url TEXT,
    metadata_json JSON,
    transaction_id INTEGER,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL,
    paid_at TIMESTAMP
);

CREATE TABLE wata_payments (
    id SERIAL PRIMARY KEY,
    user_id INTEGER NOT NULL,
    payment_link_id VARCHAR(64) NOT NULL UNIQUE,
    order_id VARCHAR(255) UNIQUE,
    amount_kopeks INTEGER NOT NULL,
    currency VARCHAR(10) NOT NULL,
    status VARCHAR(50) NOT NULL,
    is_paid BOOLEAN NOT NULL,
    url TEXT,
    metadata_json JSON,
    transaction_id INTEGER,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL,
    paid_at TIMESTAMP
);

CREATE TABLE platega_payments (
    id SERIAL PRIMARY KEY,
    user_id INTEGER NOT NULL,
    platega_transaction_id VARCHAR(255) UNIQUE,
    correlation_id VARCHAR(64) NOT NULL UNIQUE,
    amount_kopeks INTEGER NOT NULL,
    currency VARCHAR(10) NOT NULL,
    payment_method_code INTEGER NOT NULL,
    status VARCHAR(50) NOT NULL,
    is_paid BOOLEAN NOT NULL,
    redirect_url TEXT,
    metadata_json JSON,
    transaction_id INTEGER,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL,
    paid_at TIMESTAMP
);

CREATE TABLE yookassa_refunds (
    id SERIAL PRIMARY KEY,
    payment_id INTEGER NOT NULL,
    refund_id VARCHAR(255) NOT NULL UNIQUE,
    amount_kopeks INTEGER NOT NULL,
    status VARCHAR(50) NOT NULL,
    reason TEXT,
    created_at TIMESTAMP NOT NULL
);

CREATE TABLE referral_earnings (
    id SERIAL PRIMARY KEY,
    user_id INTEGER NOT NULL,
    referral_id INTEGER NOT NULL,
    amount_kopeks INTEGER NOT NULL,
    reason VARCHAR(100) NOT NULL,
    referral_transaction_id INTEGER,
    created_at TIMESTAMP NOT NULL
);

CREATE TABLE referral_withdrawals (
    id SERIAL PRIMARY KEY,
    user_id INTEGER NOT NULL,
    amount_kopeks INTEGER NOT NULL,
    status VARCHAR(20) NOT NULL,
    requisites TEXT,
    processed_by INTEGER,
    created_at TIMESTAMP NOT NULL,
    processed_at TIMESTAMP
);

CREATE TABLE subscription_conversions (
    id SERIAL PRIMARY KEY,
    user_id INTEGER NOT NULL,
    converted_at TIMESTAMP NOT NULL,
    trial_duration_days INTEGER,
    payment_method VARCHAR(50),
    first_payment_amount_kopeks INTEGER,
    first_paid_period_days INTEGER,
    created_at TIMESTAMP NOT NULL
);

CREATE TABLE promocode_uses (
    id SERIAL PRIMARY KEY,
    promocode_id INTEGER NOT NULL,
    user_id INTEGER NOT NULL,
    used_at TIMESTAMP NOT NULL,
    CONSTRAINT uq_promocode_uses_user_promocode UNIQUE (user_id, promocode_id)
);

CREATE TABLE discount_offers (
    id SERIAL PRIMARY KEY,
    user_id INTEGER NOT NULL,
    subscription_id INTEGER,
    notification_type VARCHAR(50) NOT NULL,
    discount_percent INTEGER NOT NULL,
    bonus_amount_kopeks INTEGER NOT NULL,
    effect_type VARCHAR(50) NOT NULL,
    extra_data JSON,
    is_active BOOLEAN NOT NULL,
    expires_at TIMESTAMP NOT NULL,
    claimed_at TIMESTAMP,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL
);

CREATE TABLE promo_offer_templates (
    id SERIAL PRIMARY KEY,
    name VARCHAR(255) NOT NULL,
    offer_type VARCHAR(50) NOT NULL,
    message_text TEXT NOT NULL,
    button_text VARCHAR(255) NOT NULL,
    valid_hours INTEGER NOT NULL,
    discount_percent INTEGER NOT NULL,
    bonus_amount_kopeks INTEGER NOT NULL,
    test_squad_uuids JSON,
    is_active BOOLEAN NOT NULL,
    created_by INTEGER,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL
);

CREATE TABLE subscription_temporary_access (
    id SERIAL PRIMARY KEY,
    subscription_id INTEGER NOT NULL,
    offer_id INTEGER NOT NULL,
    squad_uuid VARCHAR(255) NOT NULL,
    expires_at TIMESTAMP NOT NULL,
    created_at TIMESTAMP NOT NULL,
    deactivated_at TIMESTAMP,
    is_active BOOLEAN NOT NULL,
    was_already_connected BOOLEAN NOT NULL
);

CREATE TABLE promo_offer_logs (
    id SERIAL PRIMARY KEY,
    user_id INTEGER,
    offer_id INTEGER,
    action VARCHAR(50) NOT NULL,
    source VARCHAR(100),
    percent INTEGER,
    effect_type VARCHAR(50),
    details JSON,
    created_at TIMESTAMP NOT NULL
);

CREATE TABLE sent_notifications (
    id SERIAL PRIMARY KEY,
    user_id INTEGER NOT NULL,
    subscription_id INTEGER NOT NULL,
    notification_type VARCHAR(50) NOT NULL,
    days_before INTEGER,
    created_at TIMESTAMP NOT NULL
);

CREATE TABLE subscription_events (
    id SERIAL PRIMARY KEY,
    user_id INTEGER NOT NULL,
    subscription_id INTEGER,
    transaction_id INTEGER,
    event_type VARCHAR(50) NOT NULL,
    amount_kopeks INTEGER,
    currency VARCHAR(16),
    message TEXT,
    extra JSON,
    occurred_at TIMESTAMP NOT NULL,
    created_at TIMESTAMP NOT NULL
);

CREATE TABLE poll_responses (
    id SERIAL PRIMARY KEY,
    poll_id INTEGER NOT NULL,
    user_id INTEGER NOT NULL,
    sent_at TIMESTAMP NOT NULL,
    started_at TIMESTAMP,
    completed_at TIMESTAMP,
    reward_given BOOLEAN NOT NULL,
    reward_amount_kopeks INTEGER NOT NULL,
    CONSTRAINT uq_poll_user UNIQUE (poll_id, user_id)
);

CREATE TABLE poll_answers (
    id SERIAL PRIMARY KEY,
    response_id INTEGER NOT NULL,
    question_id INTEGER NOT NULL,
    option_id INTEGER NOT NULL,
    created_at TIMESTAMP NOT NULL,
    CONSTRAINT uq_poll_answer_unique UNIQUE (response_id, question_id)
);

CREATE TABLE advertising_campaigns (
    id SERIAL PRIMARY KEY,
    name VARCHAR(255) NOT NULL,
    start_parameter VARCHAR(64) NOT NULL,
    bonus_type VARCHAR(20) NOT NULL,
    balance_bonus_kopeks INTEGER NOT NULL,
    subscription_duration_days INTEGER,
    subscription_squads JSON,
    is_active BOOLEAN NOT NULL,
    created_by INTEGER,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL
);

CREATE TABLE advertising_campaign_registrations (
    id SERIAL PRIMARY KEY,
    campaign_id INTEGER NOT NULL,
    user_id INTEGER NOT NULL,
    bonus_type VARCHAR(20) NOT NULL,
    balance_bonus_kopeks INTEGER NOT NULL,
    subscription_duration_days INTEGER,
    created_at TIMESTAMP NOT NULL,
    CONSTRAINT uq_campaign_user UNIQUE (campaign_id, user_id)
);

CREATE TABLE broadcast_history (
    id SERIAL PRIMARY KEY,
    target_type VARCHAR(100) NOT NULL,
    message_text TEXT NOT NULL,
    has_media BOOLEAN NOT NULL,
    media_type VARCHAR(20),
    media_file_id VARCHAR(255),
    total_count INTEGER NOT NULL,
    sent_count INTEGER NOT NULL,
    failed_count INTEGER NOT NULL,
    status VARCHAR(50) NOT NULL,
    admin_id INTEGER,
    admin_name VARCHAR(255),
    created_at TIMESTAMP NOT NULL,
    completed_at TIMESTAMP
);

CREATE TABLE support_audit_logs (
    id SERIAL PRIMARY KEY,
    actor_user_id INTEGER,
    actor_telegram_id BIGINT NOT NULL,
    is_moderator BOOLEAN NOT NULL,
    action VARCHAR(50) NOT NULL,
    ticket_id INTEGER,
    target_user_id INTEGER,
    request_text TEXT,
    details JSON,
    created_at TIMESTAMP NOT NULL
);

CREATE TABLE user_messages (
    id SERIAL PRIMARY KEY,
    message_text TEXT NOT NULL,
    is_active BOOLEAN NOT NULL,
    sort_order INTEGER NOT NULL,
    created_by INTEGER,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL
);

CREATE TABLE welcome_texts (
    id SERIAL PRIMARY KEY,
    text_content TEXT NOT NULL,
    is_active BOOLEAN NOT NULL,
    is_enabled BOOLEAN NOT NULL,
    created_by INTEGER,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL
);

CREATE TABLE ticket_messages (
    id SERIAL PRIMARY KEY,
    ticket_id INTEGER NOT NULL,
    user_id INTEGER NOT NULL,  -- who wrote it; not declared as a foreign key
    message_text TEXT NOT NULL,
    is_from_admin BOOLEAN NOT NULL,
    has_media BOOLEAN NOT NULL,
    created_at TIMESTAMP NOT NULL
);

CREATE TABLE ticket_attachments (
    id SERIAL PRIMARY KEY,
    message_id INTEGER NOT NULL,
    file_type VARCHAR(20) NOT NULL,
    file_id VARCHAR(255) NOT NULL,
    caption TEXT,
    created_at TIMESTAMP NOT NULL
);

CREATE TABLE user_promo_groups (
    user_id INTEGER NOT NULL,
    promo_group_id INTEGER NOT NULL,
    assigned_by VARCHAR(50) NOT NULL,
    assigned_at TIMESTAMP NOT NULL,
    PRIMARY KEY (user_id, promo_group_id)
);

CREATE TABLE subscription_servers (
    subscription_id INTEGER NOT NULL,
    server_squad_id INTEGER NOT NULL,
    paid_price_kopeks INTEGER NOT NULL,
    connected_at TIMESTAMP NOT NULL,
    PRIMARY KEY (subscription_id, server_squad_id)
);

-- ---------------------------------------------------------------------------------------------------------------
-- Part 2: foreign keys and indexes, after the rows

-- The catalogue
ALTER TABLE server_squad_promo_groups
    ADD FOREIGN KEY (server_squad_id) REFERENCES server_squads ON DELETE CASCADE,
    ADD FOREIGN KEY (promo_group_id) REFERENCES promo_groups ON DELETE CASCADE;
ALTER TABLE poll_questions ADD FOREIGN KEY (poll_id) REFERENCES polls ON DELETE CASCADE;
ALTER TABLE poll_options ADD FOREIGN KEY (question_id) REFERENCES poll_questions ON DELETE CASCADE;

-- Users, and tables that name a user
ALTER TABLE users
    ADD FOREIGN KEY (referred_by_id) REFERENCES users ON DELETE SET NULL,
    ADD FOREIGN KEY (promo_group_id) REFERENCES promo_groups;
ALTER TABLE subscriptions ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE;
ALTER TABLE transactions ADD FOREIGN KEY (user_id) REFERENCES users;
ALTER TABLE tickets ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE;
ALTER TABLE promocodes
    ADD FOREIGN KEY (promo_group_id) REFERENCES promo_groups ON DELETE SET NULL,
    ADD FOREIGN KEY (created_by) REFERENCES users ON DELETE SET NULL;
ALTER TABLE yookassa_payments
    ADD FOREIGN KEY (user_id) REFERENCES users,
    ADD FOREIGN KEY (transaction_id) REFERENCES transactions;
ALTER TABLE cryptobot_payments
    ADD FOREIGN KEY (user_id) REFERENCES users,
    ADD FOREIGN KEY (transaction_id) REFERENCES transactions;
ALTER TABLE heleket_payments
    ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE,
    ADD FOREIGN KEY (transaction_id) REFERENCES transactions ON DELETE SET NULL;
ALTER TABLE mulenpay_payments
    ADD FOREIGN KEY (user_id) REFERENCES users,
    ADD FOREIGN KEY (transaction_id) REFERENCES transactions;
ALTER TABLE pal24_payments
    ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE,
    ADD FOREIGN KEY (transaction_id) REFERENCES transactions ON DELETE SET NULL;
ALTER TABLE wata_payments
    ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE,
    ADD FOREIGN KEY (transaction_id) REFERENCES transactions ON DELETE SET NULL;
ALTER TABLE platega_payments
    ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE,
    ADD FOREIGN KEY (transaction_id) REFERENCES transactions ON DELETE SET NULL;
ALTER TABLE referral_earnings
    ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE,
    ADD FOREIGN KEY (referral_id) REFERENCES users ON DELETE CASCADE,
    ADD FOREIGN KEY (referral_transaction_id) REFERENCES transactions ON DELETE SET NULL;
ALTER TABLE referral_withdrawals
    ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE,
    ADD FOREIGN KEY (processed_by) REFERENCES users ON DELETE SET NULL;
ALTER TABLE subscription_conversions ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE;
ALTER TABLE promocode_uses
    ADD FOREIGN KEY (promocode_id) REFERENCES promocodes ON DELETE CASCADE,
    ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE;
ALTER TABLE discount_offers
    ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE,
    ADD FOREIGN KEY (subscription_id) REFERENCES subscriptions ON DELETE SET NULL;
ALTER TABLE promo_offer_templates ADD FOREIGN KEY (created_by) REFERENCES users ON DELETE SET NULL;
ALTER TABLE promo_offer_logs
    ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE SET NULL,
    ADD FOREIGN KEY (offer_id) REFERENCES discount_offers ON DELETE SET NULL;
ALTER TABLE sent_notifications
    ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE,
    ADD FOREIGN KEY (subscription_id) REFERENCES subscriptions ON DELETE CASCADE;
ALTER TABLE subscription_events
    ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE,
    ADD CONSTRAINT fk_subscription_events_user_id_users FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE,
    ADD FOREIGN KEY (subscription_id) REFERENCES subscriptions ON DELETE SET NULL,
    ADD FOREIGN KEY (transaction_id) REFERENCES transactions ON DELETE SET NULL;
ALTER TABLE poll_responses
    ADD FOREIGN KEY (poll_id) REFERENCES polls ON DELETE CASCADE,
    ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE;
ALTER TABLE advertising_campaigns ADD FOREIGN KEY (created_by) REFERENCES users ON DELETE SET NULL;
ALTER TABLE advertising_campaign_registrations
    ADD FOREIGN KEY (campaign_id) REFERENCES advertising_campaigns ON DELETE CASCADE,
    ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE;
ALTER TABLE broadcast_history ADD FOREIGN KEY (admin_id) REFERENCES users ON DELETE SET NULL;
ALTER TABLE user_messages ADD FOREIGN KEY (created_by) REFERENCES users ON DELETE SET NULL;
ALTER TABLE welcome_texts ADD FOREIGN KEY (created_by) REFERENCES users ON DELETE SET NULL;
ALTER TABLE support_audit_logs
    ADD FOREIGN KEY (actor_user_id) REFERENCES users ON DELETE SET NULL,
    ADD FOREIGN KEY (ticket_id) REFERENCES tickets ON DELETE SET NULL,
    ADD FOREIGN KEY (target_user_id) REFERENCES users ON DELETE SET NULL;
ALTER TABLE user_promo_groups
    ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE,
    ADD FOREIGN KEY (promo_group_id) REFERENCES promo_groups ON DELETE CASCADE;

-- Tables that reach users through another table only
ALTER TABLE yookassa_refunds ADD FOREIGN KEY (payment_id) REFERENCES yookassa_payments ON DELETE CASCADE;
ALTER TABLE subscription_temporary_access
    ADD FOREIGN KEY (subscription_id) REFERENCES subscriptions ON DELETE CASCADE,
    ADD FOREIGN KEY (offer_id) REFERENCES discount_offers ON DELETE CASCADE;
ALTER TABLE subscription_servers
    ADD FOREIGN KEY (subscription_id) REFERENCES subscriptions ON DELETE CASCADE,
    ADD FOREIGN KEY (server_squad_id) REFERENCES server_squads;
ALTER TABLE poll_answers
    ADD FOREIGN KEY (response_id) REFERENCES poll_responses ON DELETE CASCADE,
    ADD FOREIGN KEY (question_id) REFERENCES poll_questions ON DELETE CASCADE,
    ADD FOREIGN KEY (option_id) REFERENCES poll_options ON DELETE CASCADE;
ALTER TABLE ticket_messages ADD FOREIGN KEY (ticket_id) REFERENCES tickets ON DELETE CASCADE;
ALTER TABLE ticket_attachments ADD FOREIGN KEY (message_id) REFERENCES ticket_messages ON DELETE CASCADE;

-- UNIQUE WITHOUT CONSTRAINT: what an ORM makes of 'unique and indexed'
CREATE UNIQUE INDEX ix_users_telegram_id ON users (telegram_id);
CREATE UNIQUE INDEX ix_promocodes_code ON promocodes (code);
CREATE UNIQUE INDEX ix_advertising_campaigns_start_parameter ON advertising_campaigns (start_parameter);
CREATE UNIQUE INDEX ix_yookassa_payments_yookassa_payment_id ON yookassa_payments (yookassa_payment_id);
CREATE UNIQUE INDEX ix_cryptobot_payments_invoice_id ON cryptobot_payments (invoice_id);
CREATE UNIQUE INDEX ix_mulenpay_payments_mulen_payment_id ON mulenpay_payments (mulen_payment_id);
CREATE UNIQUE INDEX ix_mulenpay_payments_uuid ON mulenpay_payments (uuid);
CREATE UNIQUE INDEX ix_pal24_payments_bill_id ON pal24_payments (bill_id);
CREATE UNIQUE INDEX ix_server_squads_squad_uuid ON server_squads (squad_uuid);
CREATE UNIQUE INDEX ix_web_api_tokens_token_hash ON web_api_tokens (token_hash);

-- One index for every foreign key, so that deleting a user, or a tenant, looks nothing up by scanning
CREATE INDEX ix_server_squad_promo_groups_promo_group_id ON server_squad_promo_groups (promo_group_id);
CREATE INDEX ix_poll_questions_poll_id ON poll_questions (poll_id);
CREATE INDEX ix_poll_options_question_id ON poll_options (question_id);
CREATE INDEX ix_users_referred_by_id ON users (referred_by_id);
CREATE INDEX ix_users_promo_group_id ON users (promo_group_id);
CREATE INDEX ix_transactions_user_id ON transactions (user_id);
CREATE INDEX ix_tickets_user_id ON tickets (user_id);
CREATE INDEX ix_promocodes_promo_group_id ON promocodes (promo_group_id);
CREATE INDEX ix_promocodes_created_by ON promocodes (created_by);
CREATE INDEX ix_yookassa_payments_user_id ON yookassa_payments (user_id);
CREATE INDEX ix_yookassa_payments_transaction_id ON yookassa_payments (transaction_id);
CREATE INDEX ix_cryptobot_payments_user_id ON cryptobot_payments (user_id);
CREATE INDEX ix_cryptobot_payments_transaction_id ON cryptobot_payments (transaction_id);
CREATE INDEX ix_heleket_payments_user_id ON heleket_payments (user_id);
CREATE INDEX ix_heleket_payments_transaction_id ON heleket_payments (transaction_id);
CREATE INDEX ix_mulenpay_payments_user_id ON mulenpay_payments (user_id);
CREATE INDEX ix_mulenpay_payments_transaction_id ON mulenpay_payments (transaction_id);
CREATE INDEX ix_pal24_payments_user_id ON pal24_payments (user_id);
CREATE INDEX ix_pal24_payments_transaction_id ON pal24_payments (transaction_id);
CREATE INDEX ix_wata_payments_user_id ON wata_payments (user_id);
CREATE INDEX ix_wata_payments_transaction_id ON wata_payments (transaction_id);
CREATE INDEX ix_platega_payments_user_id ON platega_payments (user_id);
CREATE INDEX ix_platega_payments_transaction_id ON platega_payments (transaction_id);
CREATE INDEX ix_yookassa_refunds_payment_id ON yookassa_refunds (payment_id);
CREATE INDEX ix_referral_earnings_user_id ON referral_earnings (user_id);
CREATE INDEX ix_referral_earnings_referral_id ON referral_earnings (referral_id);
CREATE INDEX ix_referral_earnings_referral_transaction_id ON referral_earnings (referral_transaction_id);
CREATE INDEX ix_referral_withdrawals_user_id ON referral_withdrawals (user_id);
CREATE INDEX ix_referral_withdrawals_processed_by ON referral_withdrawals (processed_by);
CREATE INDEX ix_subscription_conversions_user_id ON subscription_conversions (user_id);
CREATE INDEX ix_promocode_uses_promocode_id ON promocode_uses (promocode_id);
CREATE INDEX ix_discount_offers_user_id ON discount_offers (user_id);
CREATE INDEX ix_discount_offers_subscription_id ON discount_offers (subscription_id);
CREATE INDEX ix_promo_offer_templates_created_by ON promo_offer_templates (created_by);
CREATE INDEX ix_subscription_temporary_access_subscription_id ON subscription_temporary_access (subscription_id);
CREATE INDEX ix_subscription_temporary_access_offer_id ON subscription_temporary_access (offer_id);
CREATE INDEX ix_promo_offer_logs_user_id ON promo_offer_logs (user_id);
CREATE INDEX ix_promo_offer_logs_offer_id ON promo_offer_logs (offer_id);
CREATE INDEX ix_sent_notifications_user_id ON sent_notifications (user_id);
CREATE INDEX ix_sent_notifications_subscription_id ON sent_notifications (subscription_id);
CREATE INDEX ix_subscription_events_user_id ON subscription_events (user_id);
CREATE INDEX ix_subscription_events_subscription_id ON subscription_events (subscription_id);
CREATE INDEX ix_subscription_events_transaction_id ON subscription_events (transaction_id);
CREATE INDEX ix_poll_responses_user_id ON poll_responses (user_id);
CREATE INDEX ix_poll_answers_question_id ON poll_answers (question_id);
CREATE INDEX ix_poll_answers_option_id ON poll_answers (option_id);
CREATE INDEX ix_advertising_campaigns_created_by ON advertising_campaigns (created_by);
CREATE INDEX ix_advertising_campaign_registrations_user_id ON advertising_campaign_registrations (user_id);
CREATE INDEX ix_broadcast_history_admin_id ON broadcast_history (admin_id);
CREATE INDEX ix_support_audit_logs_actor_user_id ON support_audit_logs (actor_user_id);
CREATE INDEX ix_support_audit_logs_ticket_id ON support_audit_logs (ticket_id);
CREATE INDEX ix_support_audit_logs_target_user_id ON support_audit_logs (target_user_id);
CREATE INDEX ix_user_messages_created_by ON user_messages (created_by);
CREATE INDEX ix_welcome_texts_created_by ON welcome_texts (created_by);
CREATE INDEX ix_ticket_messages_ticket_id ON ticket_messages (ticket_id);
CREATE INDEX ix_ticket_messages_user_id ON ticket_messages (user_id);
CREATE INDEX ix_ticket_attachments_message_id ON ticket_attachments (message_id);
CREATE INDEX ix_user_promo_groups_promo_group_id ON user_promo_groups (promo_group_id);
CREATE INDEX ix_subscription_servers_server_squad_id ON subscription_servers (server_squad_id);

-- And what the application looks rows up by
CREATE INDEX ix_subscriptions_status_end_date ON subscriptions (status, end_date);
CREATE INDEX ix_transactions_created_at ON transactions (created_at);
CREATE INDEX ix_tickets_status ON tickets (status);
CREATE INDEX ix_support_audit_logs_created_at ON support_audit_logs (created_at);
