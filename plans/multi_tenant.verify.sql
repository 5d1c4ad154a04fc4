-- What "Database Schema Design" 1.0 has verified, each query with the answer that it must give.
-- The comment right above a query is its title and its answer: one `expect` a row, columns between bars.

-- The seven new tables exist.
-- expect: bot_configurations
-- expect: bot_feature_flags
-- expect: bot_plans
-- expect: bots
-- expect: card_to_card_payments
-- expect: tenant_payment_cards
-- expect: zarinpal_payments
SELECT table_name FROM information_schema.tables
WHERE table_schema = 'public'
AND table_name IN (
    'bots', 'bot_feature_flags', 'bot_configurations', 'tenant_payment_cards', 'bot_plans',
    'card_to_card_payments', 'zarinpal_payments')
ORDER BY table_name;

-- bots has its four indexes, its key and its two uniques, and no other.
-- expect: bots_api_token_key
-- expect: bots_pkey
-- expect: bots_telegram_bot_token_key
-- expect: idx_bots_api_token_hash
-- expect: idx_bots_is_active
-- expect: idx_bots_is_master
-- expect: idx_bots_telegram_token
SELECT indexname FROM pg_indexes
WHERE tablename = 'bots'
AND schemaname = 'public'
ORDER BY indexname;

-- Every table that belongs to a bot says to which: the thirty of the shop and six of the new ones.
-- expect: advertising_campaign_registrations | bot_id | NO
-- expect: advertising_campaigns | bot_id | NO
-- expect: bot_configurations | bot_id | NO
-- expect: bot_feature_flags | bot_id | NO
-- expect: bot_plans | bot_id | NO
-- expect: broadcast_history | bot_id | NO
-- expect: card_to_card_payments | bot_id | NO
-- expect: cryptobot_payments | bot_id | NO
-- expect: discount_offers | bot_id | NO
-- expect: heleket_payments | bot_id | NO
-- expect: main_menu_buttons | bot_id | NO
-- expect: mulenpay_payments | bot_id | NO
-- expect: pal24_payments | bot_id | NO
-- expect: platega_payments | bot_id | NO
-- expect: poll_responses | bot_id | NO
-- expect: promo_groups | bot_id | NO
-- expect: promo_offer_logs | bot_id | NO
-- expect: promo_offer_templates | bot_id | NO
-- expect: promocode_uses | bot_id | NO
-- expect: promocodes | bot_id | NO
-- expect: referral_earnings | bot_id | NO
-- expect: sent_notifications | bot_id | NO
-- expect: subscription_conversions | bot_id | NO
-- expect: subscription_events | bot_id | NO
-- expect: subscription_temporary_access | bot_id | NO
-- expect: subscriptions | bot_id | NO
-- expect: support_audit_logs | bot_id | NO
-- expect: tenant_payment_cards | bot_id | NO
-- expect: tickets | bot_id | NO
-- expect: transactions | bot_id | NO
-- expect: user_messages | bot_id | NO
-- expect: users | bot_id | NO
-- expect: wata_payments | bot_id | NO
-- expect: welcome_texts | bot_id | NO
-- expect: yookassa_payments | bot_id | NO
-- expect: zarinpal_payments | bot_id | NO
SELECT table_name, column_name, is_nullable
FROM information_schema.columns
WHERE column_name = 'bot_id'
AND table_schema = 'public'
AND table_name IN (
    'users', 'subscriptions', 'transactions', 'tickets', 'promocodes', 'promo_groups', 'yookassa_payments',
    'cryptobot_payments', 'heleket_payments', 'mulenpay_payments', 'pal24_payments', 'wata_payments',
    'platega_payments', 'referral_earnings', 'subscription_conversions', 'promocode_uses', 'discount_offers',
    'promo_offer_templates', 'subscription_temporary_access', 'promo_offer_logs', 'sent_notifications',
    'subscription_events', 'poll_responses', 'advertising_campaigns', 'advertising_campaign_registrations',
    'broadcast_history', 'support_audit_logs', 'user_messages', 'welcome_texts', 'main_menu_buttons',
    'bot_feature_flags', 'bot_configurations', 'tenant_payment_cards', 'bot_plans', 'card_to_card_payments',
    'zarinpal_payments')
ORDER BY table_name;

-- The query above, for every other table: those too that were found by their foreign keys, and those that
-- information_schema does not show to this role.

-- No table lets bot_id be missing.
-- expect: (0 rows)
SELECT c.relname AS table_name, a.attname AS column_name
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid
WHERE a.attname = 'bot_id'
AND c.relnamespace = 'public'::regnamespace
AND c.relkind IN ('r', 'p')
AND NOT a.attnotnull
ORDER BY c.relname;
