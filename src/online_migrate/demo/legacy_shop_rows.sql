-- The rows of the legacy shop, from two settings: shop.users (how many users) and shop.seed.
--
-- No random(), no clock, no hash of PostgreSQL's own and no formatting that a version may change: the same
-- settings give the same bytes on every server. Runs between the two parts of legacy_shop.sql, in one transaction,
-- so that foreign keys and indexes are built once over all rows.
--
-- The story: users register in 2023 and the first half of 2024; from July 2024 on they act.
-- What holds, as the application would have kept it: users.balance_kopeks is what came in minus what was spent,
-- over completed transactions; promocodes.current_uses counts promocode_uses; a row that names a user and a row of
-- a user (a subscription, a payment, an offer) names the same one.

CREATE SCHEMA fill;

CREATE FUNCTION fill.users() RETURNS bigint STABLE LANGUAGE sql
    AS $$ SELECT current_setting('shop.users')::bigint $$;

-- 32 hexadecimal digits that depend on the seed, a name and a number
CREATE FUNCTION fill.hex(name text, n bigint) RETURNS text STABLE LANGUAGE sql
    AS $$ SELECT md5(current_setting('shop.seed') || ':' || name || ':' || n) $$;

CREATE FUNCTION fill.uuid(name text, n bigint) RETURNS text STABLE LANGUAGE sql
    AS $$ SELECT fill.hex(name, n)::uuid::text $$;

-- Keys have holes: every sixteenth is missing. hole(15) = 15, hole(16) = 17
CREATE FUNCTION fill.hole(n bigint) RETURNS integer IMMUTABLE LANGUAGE sql
    AS $$ SELECT (n + n / 16)::integer $$;

-- The user of the k-th subscription: every tenth user has none
CREATE FUNCTION fill.subscriber(k bigint) RETURNS bigint IMMUTABLE LANGUAGE sql
    AS $$ SELECT k + (k - 1) / 9 $$;

CREATE FUNCTION fill.subscriptions() RETURNS bigint STABLE LANGUAGE sql
    AS $$ SELECT fill.users() - fill.users() / 10 $$;

CREATE FUNCTION fill.registered(n bigint) RETURNS timestamp STABLE LANGUAGE sql
    AS $$ SELECT timestamp '2023-01-01' + interval '1 second' * (47000000 * n / fill.users()) $$;

-- When the n-th of count things happened
CREATE FUNCTION fill.happened(n bigint, count bigint) RETURNS timestamp IMMUTABLE LANGUAGE sql
    AS $$ SELECT timestamp '2024-07-01' + interval '1 second' * (44000000 * n / count) $$;

-- The n-th of count rows, each with its key, the moment it was written, and a die of 28 bits.
-- (OFFSET 0: PostgreSQL draws the die once a row, not once a use.)
CREATE FUNCTION fill.rolls(name text, count bigint)
    RETURNS TABLE (n bigint, key integer, moment timestamp, die integer) STABLE LANGUAGE sql
    AS $$
        SELECT g, fill.hole(g), fill.happened(g, count), ('x' || left(fill.hex(name, g), 7))::bit(28)::integer
        FROM generate_series(1, count) AS g
        OFFSET 0
    $$;


-- The catalogue and the settings

INSERT INTO promo_groups
SELECT fill.hole(n), name, n * 10, (n - 1) * 5, (n - 1) * 3, (n - 1) * 2,
       CASE WHEN n > 1 THEN format('{"30": 0, "90": %s, "360": %s}', n * 2, n * 4)::json END,
       CASE WHEN n > 1 THEN n * 500000 END, n = 1, timestamp '2022-12-01', timestamp '2022-12-02'
FROM unnest(ARRAY['Basic', 'Bronze', 'Silver', 'Gold', 'Друзья', 'Partners']) WITH ORDINALITY AS g (name, n);

INSERT INTO server_squads
SELECT fill.hole(n), fill.uuid('server_squads', n), 'Server ' || n,
       (ARRAY['NL', 'DE', 'FI', 'SE'])[1 + n % 4],
       n <> 7, n = 1, n * 1000, n, CASE WHEN n % 3 = 0 THEN 5000 END, 0, timestamp '2022-12-01',
       timestamp '2022-12-01'
FROM generate_series(1, 8) AS n;

INSERT INTO server_squad_promo_groups
SELECT s.id, g.id FROM server_squads s, promo_groups g WHERE (s.id + g.id) % 3 <> 0 ORDER BY 1, 2;

INSERT INTO polls
SELECT n, 'Poll ' || n, 'What do you think?', n < 3, CASE WHEN n < 3 THEN 1000 ELSE 0 END, NULL,
       timestamp '2024-06-01' + interval '1 month' * n, timestamp '2024-06-01' + interval '1 month' * n
FROM generate_series(1, 3) AS n;

INSERT INTO poll_questions
SELECT n, 1 + (n - 1) / 2, 'Question ' || n, (n - 1) % 2 FROM generate_series(1, 6) AS n;

INSERT INTO poll_options
SELECT n, 1 + (n - 1) / 4, 'Option ' || n, (n - 1) % 4 FROM generate_series(1, 24) AS n;

INSERT INTO system_settings
SELECT fill.hole(n), 'SETTING_' || n, CASE WHEN n % 5 > 0 THEN 'value ' || n END, NULL,
       timestamp '2022-12-01', timestamp '2022-12-01'
FROM generate_series(1, 60) AS n;

INSERT INTO service_rules
SELECT n, n, 'Rule ' || n, repeat('Be kind. ', 20), (ARRAY['ru', 'en'])[1 + n % 2], true,
       timestamp '2022-12-01', timestamp '2022-12-01'
FROM generate_series(1, 8) AS n;

INSERT INTO faq_pages
SELECT fill.hole(n), (ARRAY['ru', 'en'])[1 + n % 2], 'Page ' || n, repeat('It is easy. ', 30), n, true,
       timestamp '2022-12-01', timestamp '2022-12-01'
FROM generate_series(1, 20) AS n;

INSERT INTO privacy_policies
VALUES (1, 'ru', 'Мы ничего не храним.', true, timestamp '2022-12-01', timestamp '2022-12-01'),
       (2, 'en', 'We keep nothing.', true, timestamp '2022-12-01', timestamp '2022-12-01');

INSERT INTO public_offers
VALUES (1, 'ru', 'Оферта.', true, timestamp '2022-12-01', timestamp '2022-12-01'),
       (3, 'en', 'The offer.', false, timestamp '2022-12-01', timestamp '2022-12-01');

INSERT INTO web_api_tokens
SELECT n, 'token ' || n, fill.hex('token', n) || fill.hex('token2', n), left(fill.hex('prefix', n), 8), n < 3,
       timestamp '2023-01-01', NULL
FROM generate_series(1, 3) AS n;


-- Money: each user deposits, pays, deposits, pays. One second deposit in twenty never arrived.

INSERT INTO transactions
SELECT key, fill.hole(owner), kind,
       CASE kind WHEN 'deposit' THEN 40000 + die % 9 * 10000 ELSE 9900 + die % 100 * 100 END,
       CASE kind WHEN 'deposit' THEN 'Top-up through ' || method ELSE 'Subscription for 30 days' END,
       CASE kind WHEN 'deposit' THEN method END,
       CASE kind WHEN 'deposit' THEN left(fill.hex('external', n), 20) END,
       arrived, moment,
       CASE WHEN arrived THEN moment + interval '1 second' * (die % 300) END
FROM (
    SELECT n, key, moment, die, 1 + (n - 1) % fill.users() AS owner,
           CASE (n - 1) / fill.users() % 2 WHEN 0 THEN 'deposit' ELSE 'subscription_payment' END AS kind,
           (ARRAY['yookassa', 'yookassa', 'yookassa', 'yookassa', 'yookassa', 'yookassa', 'yookassa',
                  'yookassa', 'cryptobot', 'cryptobot', 'cryptobot', 'heleket', 'mulenpay', 'pal24', 'pal24',
                  'wata', 'platega', 'platega', 'telegram_stars', 'tribute']
           )[1 + (n - 1) % fill.users() % 20] AS method,
           (n - 1) / fill.users() <> 2 OR die / 9 % 20 > 0 AS arrived
    FROM fill.rolls('transactions', 4 * fill.users())
) AS t;

-- telegram_id: an odd multiplier modulo 2^33 gives each user another number, most of them above int4.
-- The first three users are staff. One in three of the rest was brought by an earlier user.
INSERT INTO users
SELECT key,
       100000 + (n * 5308871553 + current_setting('shop.seed')::bigint % 65536 * 2654435761) % 8589934592,
       CASE WHEN die % 5 > 0 THEN 'user_' || left(fill.hex('username', n), 8) END,
       (ARRAY['Анна', 'Ivan', 'Sara', 'Олег', 'Mina', 'John'])[1 + die % 6],
       CASE WHEN die % 4 > 0 THEN (ARRAY['Smith', 'Петров', 'Rezaei', 'Lee'])[1 + die / 6 % 4] END,
       CASE WHEN n <= 3 OR die / 30 % 50 > 1 THEN 'active' WHEN die / 30 % 50 = 0 THEN 'blocked' ELSE 'deleted' END,
       (ARRAY['ru', 'ru', 'en', 'fa'])[1 + die / 7 % 4],
       balance_kopeks, die / 11 % 3, n % 10 > 0,
       CASE WHEN n > 3 AND n % 3 = 0 THEN fill.hole(1 + die % (n - 1)) END,
       CASE WHEN n % 7 > 0 THEN 'ref' || left(fill.hex('referral_code', n), 6) || lpad(to_hex(n), 6, '0') END,
       CASE WHEN n % 40 > 0 THEN 1 + die / 13 % 6 END,
       CASE WHEN n % 10 > 0 THEN fill.uuid('remnawave', n) END,
       die / 13 % 6 > 1, moment, fill.registered(n), moment
FROM fill.rolls('users', fill.users())
JOIN (
    SELECT user_id, sum(CASE type WHEN 'deposit' THEN amount_kopeks ELSE -amount_kopeks END) AS balance_kopeks
    FROM transactions WHERE is_completed GROUP BY user_id
) AS ledger ON ledger.user_id = key
ORDER BY n;

INSERT INTO yookassa_payments
SELECT fill.hole(n), user_id, fill.uuid('yookassa', n), amount_kopeks, 'RUB', 'Top-up',
       CASE WHEN is_completed THEN 'succeeded' WHEN id % 2 = 0 THEN 'canceled' ELSE 'pending' END,
       is_completed, is_completed, 'https://pay.example.com/' || left(fill.hex('yookassa', n), 12),
       format('{"user_id": "%s", "type": "balance_topup", "username": null}', user_id)::json,
       CASE WHEN is_completed THEN id END, (ARRAY['bank_card', 'sbp', 'yoo_money'])[1 + id % 3], id % 4 > 0,
       false,
       created_at - interval '2 minutes', created_at, completed_at
FROM (SELECT *, row_number() OVER (ORDER BY id) AS n FROM transactions WHERE payment_method = 'yookassa') AS t
ORDER BY n;

INSERT INTO cryptobot_payments
SELECT fill.hole(n), user_id, (1000000 + n * 7)::text,
       (amount_kopeks / 9000) || '.' || lpad((amount_kopeks % 100)::text, 2, '0'),
       (ARRAY['USDT', 'TON', 'BTC'])[1 + id % 3], CASE WHEN is_completed THEN 'paid' ELSE 'expired' END,
       'Top-up',
       'balance_' || user_id || '_' || amount_kopeks,
       'https://t.me/invoice/' || left(fill.hex('cryptobot', n), 12),
       CASE WHEN is_completed THEN id END, created_at - interval '4 minutes', created_at, completed_at
FROM (SELECT *, row_number() OVER (ORDER BY id) AS n FROM transactions WHERE payment_method = 'cryptobot') AS t
ORDER BY n;

INSERT INTO heleket_payments
SELECT fill.hole(n), user_id, fill.uuid('heleket', n), 'heleket_' || n, (amount_kopeks / 100)::text, 'RUB',
       'USDT', 90.5,
       CASE WHEN is_completed THEN 'paid' ELSE 'cancel' END, 'https://pay.example.com/h/' || n,
       format('{"language": "ru", "user_id": %s}', user_id)::json,
       CASE WHEN is_completed THEN id END, created_at - interval '4 minutes', created_at, completed_at
FROM (SELECT *, row_number() OVER (ORDER BY id) AS n FROM transactions WHERE payment_method = 'heleket') AS t
ORDER BY n;

INSERT INTO mulenpay_payments
SELECT fill.hole(n), user_id, CASE WHEN is_completed AND n % 3 > 0 THEN 50000 + n END,
       fill.uuid('mulenpay', n), amount_kopeks, 'RUB', 'Top-up',
       CASE WHEN is_completed THEN 'success' ELSE 'created' END, is_completed,
       'https://pay.example.com/m/' || n,
       format('{"user_id": %s}', user_id)::json,
       CASE WHEN is_completed THEN '{"payment_status": "success"}'::json END,
       CASE WHEN is_completed THEN id END, created_at - interval '3 minutes', created_at, completed_at
FROM (SELECT *, row_number() OVER (ORDER BY id) AS n FROM transactions WHERE payment_method = 'mulenpay') AS t
ORDER BY n;

INSERT INTO pal24_payments
SELECT fill.hole(n), user_id, left(fill.hex('pal24', n), 16), 'pal24_' || n, amount_kopeks, 'RUB',
       CASE WHEN is_completed THEN 'SUCCESS' ELSE 'NEW' END, is_completed, 'https://pay.example.com/p/' || n,
       NULL,
       CASE WHEN is_completed THEN id END, created_at - interval '3 minutes', created_at, completed_at
FROM (SELECT *, row_number() OVER (ORDER BY id) AS n FROM transactions WHERE payment_method = 'pal24') AS t
ORDER BY n;

INSERT INTO wata_payments
SELECT fill.hole(n), user_id, fill.uuid('wata', n), CASE WHEN n % 3 > 0 THEN 'wata_' || n END, amount_kopeks,
       'RUB',
       CASE WHEN is_completed THEN 'Paid' ELSE 'Closed' END, is_completed, 'https://pay.example.com/w/' || n,
       NULL,
       CASE WHEN is_completed THEN id END, created_at - interval '3 minutes', created_at, completed_at
FROM (SELECT *, row_number() OVER (ORDER BY id) AS n FROM transactions WHERE payment_method = 'wata') AS t
ORDER BY n;

INSERT INTO platega_payments
SELECT fill.hole(n), user_id, CASE WHEN is_completed THEN fill.uuid('platega', n) END,
       left(fill.hex('correlation', n), 32), amount_kopeks, 'RUB',
       2 + id % 9, CASE WHEN is_completed THEN 'CONFIRMED' ELSE 'EXPIRED' END, is_completed,
       'https://pay.example.com/g/' || n,
       '{}', CASE WHEN is_completed THEN id END, created_at - interval '3 minutes', created_at, completed_at
FROM (SELECT *, row_number() OVER (ORDER BY id) AS n FROM transactions WHERE payment_method = 'platega') AS t
ORDER BY n;

-- Every tenth card payment that succeeded was given back
INSERT INTO yookassa_refunds
SELECT fill.hole(row_number() OVER (ORDER BY id)), id, fill.uuid('refund', id), amount_kopeks, 'succeeded',
       CASE WHEN id % 3 = 0 THEN 'Asked for by the user' END, captured_at + interval '1 day'
FROM yookassa_payments WHERE is_paid AND id % 10 = 4
ORDER BY id;


-- Subscriptions and what happens to them

INSERT INTO subscriptions
SELECT key, fill.hole(fill.subscriber(n)),
       CASE WHEN die % 10 < 6 THEN 'active' WHEN die % 10 < 9 THEN 'expired' ELSE 'disabled' END,
       die / 10 % 4 = 0, moment, moment + interval '1 day' * (30 + die % 330),
       die / 40 % 5 * 50, (die % 40000) / 100.0,
       'https://sub.example.com/' || left(fill.hex('subscriptions', n), 16),
       1 + die / 10 % 5,
       CASE WHEN die % 9 > 0 THEN format('["%s"]', fill.uuid('server_squads', 1 + die % 8))::json END,
       die % 3 = 0, 1 + die % 3, moment, moment
FROM fill.rolls('subscriptions', fill.subscriptions());

INSERT INTO subscription_servers
SELECT s.id, fill.hole(1 + (s.id + r) % 8), 1000 * r, s.created_at + interval '1 hour' * r
FROM subscriptions s, generate_series(0, 1) AS r WHERE r <= s.id % 2
ORDER BY s.id, r;

-- Trials that became paid subscriptions
INSERT INTO subscription_conversions
SELECT key, fill.hole(fill.subscriber(3 * n)), moment, 3,
       (ARRAY['yookassa', 'cryptobot', 'telegram_stars'])[1 + die % 3], 9900 + die % 100 * 100, 30, moment
FROM fill.rolls('conversions', fill.subscriptions() / 3);

INSERT INTO subscription_events
SELECT key, fill.hole(fill.subscriber(k)), fill.hole(k),
       CASE WHEN die % 3 = 0 THEN fill.hole(fill.users() + fill.subscriber(k)) END,
       CASE die % 3 WHEN 0 THEN 'purchase' WHEN 1 THEN 'activation' ELSE 'renewal_reminder' END,
       CASE WHEN die % 3 = 0 THEN 9900 END, CASE WHEN die % 3 = 0 THEN 'RUB' END, 'Subscription event ' || n,
       format(
           '{"source": "%s", "period_days": %s}', (ARRAY['bot', 'miniapp'])[1 + die / 3 % 2], 30 * (1 + die % 3)
       )::json,
       moment, moment
FROM fill.rolls('events', 2 * fill.subscriptions()), LATERAL (SELECT 1 + (n - 1) % fill.subscriptions() AS k) AS s;

INSERT INTO sent_notifications
SELECT key, fill.hole(fill.subscriber(k)), fill.hole(k),
       CASE die % 4 WHEN 0 THEN 'expired' ELSE 'expiring' END, CASE WHEN die % 4 > 0 THEN die % 4 END, moment
FROM fill.rolls('notifications', 2 * fill.users()), LATERAL (SELECT 1 + die / 4 % fill.subscriptions() AS k) AS s;

INSERT INTO discount_offers
SELECT key, fill.hole(fill.subscriber(k)), CASE WHEN die % 12 > 0 THEN fill.hole(k) END,
       CASE die % 4 WHEN 0 THEN 'promo_template_1' ELSE 'expired_discount_wave' || die % 4 END,
       CASE die % 4 WHEN 0 THEN 0 ELSE 10 * (die % 4) END, 0,
       CASE die % 4 WHEN 0 THEN 'test_access' ELSE 'percent_discount' END,
       CASE die % 4 WHEN 0 THEN format('{"test_squads": ["%s"]}', fill.uuid('server_squads', 1 + die % 8))::json END,
       die % 5 > 0, moment + interval '1 day', CASE WHEN die % 5 = 0 THEN moment + interval '3 hours' END,
       moment, moment
FROM fill.rolls('offers', fill.users() * 3 / 5), LATERAL (SELECT 1 + die / 12 % fill.subscriptions() AS k) AS s;

INSERT INTO subscription_temporary_access
SELECT fill.hole(row_number() OVER (ORDER BY id)), subscription_id, id, extra_data #>> '{test_squads,0}',
       expires_at, created_at,
       CASE WHEN id % 3 > 0 THEN expires_at END, id % 3 = 0, id % 7 = 0
FROM discount_offers WHERE effect_type = 'test_access' AND subscription_id IS NOT NULL
ORDER BY id;

INSERT INTO promo_offer_logs
SELECT fill.hole(row_number() OVER (ORDER BY r, o.id)), o.user_id, o.id, (ARRAY['claim', 'consume'])[1 + r],
       'expired_discount',
       NULLIF(o.discount_percent, 0), o.effect_type, format('{"offer": %s, "stage": %s}', o.id, r)::json,
       o.created_at + interval '1 hour' * (1 + r)
FROM discount_offers o, generate_series(0, 1) AS r WHERE r <= o.id % 2
ORDER BY r, o.id;

INSERT INTO promo_offer_templates
SELECT fill.hole(n), 'Template ' || n,
       (ARRAY['test_access', 'extend_discount', 'purchase_discount'])[1 + n % 3], 'Only today: {percent} %',
       'Take it',
       24, n % 4 * 10, 0, CASE WHEN n % 3 = 0 THEN '["all"]'::json END, n < 17,
       CASE WHEN n % 4 > 0 THEN 1 + n % 3 END,
       timestamp '2023-02-01', timestamp '2023-02-01'
FROM generate_series(1, 18) AS n;


-- Promo codes, groups, campaigns, referrals

INSERT INTO promocode_uses
SELECT key, fill.hole(1 + die % (10 + fill.users() / 20)), fill.hole(1 + (n - 1) * 5 / 3), moment
FROM fill.rolls('promocode_uses', fill.users() * 3 / 5);

INSERT INTO promocodes
SELECT key, upper('VPN' || left(fill.hex('promocodes', n), 5) || lpad(to_hex(n), 5, '0')),
       CASE die % 3 WHEN 0 THEN 'balance' WHEN 1 THEN 'subscription_days' ELSE 'promo_group' END,
       CASE die % 3 WHEN 0 THEN 5000 ELSE 0 END, CASE die % 3 WHEN 1 THEN 7 ELSE 0 END,
       50 + COALESCE(uses, 0), COALESCE(uses, 0),
       timestamp '2023-01-01', CASE WHEN die % 5 > 0 THEN timestamp '2026-01-01' END, die % 6 > 0,
       CASE die % 3 WHEN 2 THEN 1 + die / 3 % 6 END, CASE WHEN die % 8 > 0 THEN 1 + die % 3 END,
       timestamp '2023-01-01', timestamp '2023-01-01'
FROM fill.rolls('promocodes', 10 + fill.users() / 20)
LEFT JOIN (
    SELECT promocode_id, count(*) AS uses FROM promocode_uses GROUP BY promocode_id
) AS used ON promocode_id = key
ORDER BY n;

INSERT INTO user_promo_groups
SELECT id, promo_group_id, CASE WHEN auto_promo_group_assigned THEN 'auto' ELSE 'system' END, created_at
FROM users WHERE promo_group_id IS NOT NULL
ORDER BY id;

INSERT INTO advertising_campaigns
SELECT fill.hole(n), 'Campaign ' || n, 'ad_' || left(fill.hex('campaigns', n), 6) || n,
       (ARRAY['balance', 'subscription'])[1 + n % 2],
       CASE n % 2 WHEN 0 THEN 3000 ELSE 0 END, CASE n % 2 WHEN 1 THEN 7 END,
       CASE n % 2 WHEN 1 THEN '["all"]'::json END, n % 5 > 0,
       CASE WHEN n % 6 > 0 THEN 1 + n % 3 END, timestamp '2023-01-01', timestamp '2023-01-01'
FROM generate_series(1, 5 + fill.users() / 500) AS n;

INSERT INTO advertising_campaign_registrations
SELECT key, fill.hole(campaign), fill.hole(2 * n), (ARRAY['balance', 'subscription'])[1 + campaign % 2],
       CASE campaign % 2 WHEN 0 THEN 3000 ELSE 0 END, CASE campaign % 2 WHEN 1 THEN 7 END,
       fill.registered(2 * n)
FROM fill.rolls('registrations', fill.users() / 2),
    LATERAL (SELECT 1 + die % (5 + fill.users() / 500) AS campaign) AS c;

INSERT INTO referral_earnings
SELECT fill.hole(row_number() OVER (ORDER BY t.id)), u.referred_by_id, u.id, t.amount_kopeks / 10,
       'referral_commission_topup', t.id, t.completed_at
FROM users u JOIN transactions t ON t.user_id = u.id
WHERE u.referred_by_id IS NOT NULL AND t.type = 'deposit' AND t.is_completed
ORDER BY t.id;

INSERT INTO referral_withdrawals
SELECT fill.hole(row_number() OVER (ORDER BY user_id)), user_id, sum(amount_kopeks) / 2,
       CASE WHEN user_id % 3 > 0 THEN 'paid' ELSE 'pending' END,
       CASE WHEN user_id % 4 > 0 THEN 'card **** ' || 1000 + user_id % 9000 END,
       CASE WHEN user_id % 3 > 0 THEN 1 + user_id % 3 END,
       max(created_at) + interval '1 day',
       CASE WHEN user_id % 3 > 0 THEN max(created_at) + interval '2 days' END
FROM referral_earnings WHERE user_id % 4 = 1 GROUP BY user_id
ORDER BY user_id;


-- Polls: the first two were sent, the third is a draft

INSERT INTO poll_responses
SELECT key, 1 + (n - 1) % 2, fill.hole(1 + (n - 1) / 2 * 4), moment, moment,
       CASE WHEN die % 4 > 0 THEN moment + interval '5 minutes' END, die % 4 > 0, 1000
FROM fill.rolls('polls', fill.users() * 2 / 5);

INSERT INTO poll_answers
SELECT fill.hole(row_number() OVER (ORDER BY r.id, q.id)), r.id, q.id, (q.id - 1) * 4 + 1 + (r.id + q.id) % 4,
       r.started_at + interval '1 minute' * (1 + q."order")
FROM poll_responses r JOIN poll_questions q ON q.poll_id = r.poll_id
WHERE r.completed_at IS NOT NULL OR q."order" = 0
ORDER BY r.id, q.id;


-- Support: users ask, the three of the staff answer

INSERT INTO tickets
SELECT key, fill.hole(1 + die % fill.users()), 'Question ' || n,
       (ARRAY['open', 'answered', 'pending', 'closed', 'closed', 'closed'])[1 + die / 7 % 6],
       (ARRAY['normal', 'normal', 'high', 'low'])[1 + die / 5 % 4], die % 100 = 0, NULL, moment, moment,
       CASE WHEN die / 7 % 6 > 2 THEN moment + interval '1 day' END
FROM fill.rolls('tickets', fill.users() / 4);

INSERT INTO ticket_messages
SELECT fill.hole(row_number() OVER (ORDER BY r, t.id)), t.id,
       CASE r % 2 WHEN 0 THEN t.user_id ELSE 1 + t.id % 3 END,
       CASE r % 2 WHEN 0 THEN 'It does not work again, ' ELSE 'Please try another server, ' END
           || left(fill.hex('messages', t.id * 10 + r), 20),
       r % 2 = 1, r = 0 AND t.id % 3 = 0, t.created_at + interval '1 hour' * r
FROM tickets t, generate_series(0, 4) AS r WHERE r <= 1 + t.id % 4
ORDER BY r, t.id;

INSERT INTO ticket_attachments
SELECT fill.hole(row_number() OVER (ORDER BY id)), id, 'photo', 'AgAC' || fill.hex('files', id) || 'AAI',
       CASE WHEN id % 2 = 0 THEN 'See here' END, created_at
FROM ticket_messages WHERE has_media
ORDER BY id;

-- The wide table: two rows in three are about a ticket
INSERT INTO support_audit_logs
SELECT key, staff.id, staff.telegram_id, staff.id > 1,
       (ARRAY['close_ticket', 'block_user', 'unblock_user'])[1 + die % 3],
       ticket.id, ticket.user_id, 'The ticket in full: ' || repeat(fill.hex('audit', n) || ' ', 14),
       format('{"before": {"status": "open", "note": "%s"}, "after": {"status": "closed", "note": "%s"}}',
              repeat(fill.hex('before', n), 4), repeat(fill.hex('after', n), 4))::json,
       moment
FROM fill.rolls('audit', fill.users() / 2)
JOIN users staff ON staff.id = 1 + die % 3
LEFT JOIN tickets ticket ON n % 3 > 0 AND ticket.id = fill.hole(1 + die % (fill.users() / 4))
ORDER BY n;


-- What the staff writes

INSERT INTO broadcast_history
SELECT fill.hole(n), (ARRAY['all', 'active', 'trial', 'expired'])[1 + n % 4],
       'News ' || n || ': ' || repeat('a new server is there! ', 12), n % 4 = 0,
       CASE WHEN n % 4 = 0 THEN 'photo' END, CASE WHEN n % 4 = 0 THEN 'AgAC' || fill.hex('broadcast', n) END,
       fill.users(), fill.users() - fill.users() / 9, fill.users() / 9, 'completed',
       CASE WHEN n % 9 > 0 THEN 1 + n % 3 END, 'Admin ' || n % 3,
       fill.happened(n, 5 + fill.users() / 100),
       fill.happened(n, 5 + fill.users() / 100) + interval '10 minutes'
FROM generate_series(1, 5 + fill.users() / 100) AS n;

INSERT INTO user_messages
SELECT fill.hole(n), 'Did you know? ' || fill.hex('hints', n), n % 4 > 0, n,
       CASE WHEN n % 5 > 0 THEN 1 + n % 3 END, timestamp '2023-03-01', timestamp '2023-03-01'
FROM generate_series(1, 3 + fill.users() / 200) AS n;

INSERT INTO welcome_texts
VALUES (1, 'Welcome, {user_name}!', true, true, 1, timestamp '2023-03-01', timestamp '2023-03-01');


-- Each sequence goes on after the highest key; an empty table's stays unused
DO $$
DECLARE
    key record;
BEGIN
    FOR key IN
        SELECT table_name, pg_get_serial_sequence(format('public.%I', table_name), 'id') AS sequence
        FROM information_schema.columns WHERE table_schema = 'public' AND column_name = 'id'
        ORDER BY table_name
    LOOP
        EXECUTE format(
            'SELECT setval(%L, max(id)) FROM public.%I HAVING max(id) IS NOT NULL', key.sequence, key.table_name
        );
    END LOOP;
END $$;

DROP SCHEMA fill CASCADE;
