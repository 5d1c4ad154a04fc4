-- The shop has its promo groups' two uniques.
-- expect: promo_groups_name_key
-- expect: uq_promo_groups_name
SELECT conname FROM pg_constraint WHERE conrelid = 'promo_groups'::regclass AND contype = 'u' ORDER BY 1;
