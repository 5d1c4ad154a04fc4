-- An ERP of 1999, ported twice: see README.md beside this file.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS btree_gist;
CREATE SEQUENCE global_id MAXVALUE 2147483647;
SELECT setval('global_id', 2147480000);
CREATE COLLATION posix_order (provider = libc, locale = 'POSIX');
CREATE DOMAIN yes_no AS char(1) DEFAULT 'N' NOT NULL CHECK (VALUE IN ('Y', 'N'));
CREATE DOMAIN "Cost Centre" AS varchar(8);
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.changed := now(); RETURN NEW; END $$;

CREATE TABLE COMPANY (
    company char(3) PRIMARY KEY, name varchar(60) NOT NULL, active yes_no
);
INSERT INTO COMPANY (company, name)
    SELECT chr(64 + g) || 'CO', 'Company ' || g FROM generate_series(1, 4) g;

CREATE TABLE PLANT (
    company char(3) NOT NULL REFERENCES company, plant char(4) NOT NULL, name varchar(60),
    PRIMARY KEY (company, plant)
);
INSERT INTO PLANT
    SELECT chr(65 + g % 4) || 'CO', 'P' || lpad(g::text, 3, '0'), 'plant' FROM generate_series(1, 12) g;

CREATE TABLE "Order Header" (
    "Order No" integer PRIMARY KEY DEFAULT nextval('global_id'), "Customer" integer,
    company char(3) REFERENCES company, "Ordered At" timestamp DEFAULT '-infinity', "Remark$" text
);
INSERT INTO "Order Header" ("Customer", company, "Remark$")
    SELECT g, chr(65 + g % 4) || 'CO', 'it''s ' || g FROM generate_series(1, 80) g;

CREATE TABLE "Order Line" (
    "Order No" integer NOT NULL REFERENCES "Order Header" ON DELETE CASCADE, "Line" smallint NOT NULL,
    material varchar(18) NOT NULL, qty numeric(13, 3), PRIMARY KEY ("Order No", "Line")
);
INSERT INTO "Order Line"
    SELECT o."Order No", g, 'M' || g, g FROM "Order Header" o, generate_series(1, 3) g;

CREATE TABLE customer (
    no integer PRIMARY KEY DEFAULT nextval('global_id'), company char(3) REFERENCES company,
    "matchcode" varchar(20) NOT NULL, name varchar(80) NOT NULL, vat char(14),
    parent integer REFERENCES customer, old_field1 text, old_field2 text,
    CONSTRAINT customer_matchcode UNIQUE (matchcode), CONSTRAINT customer_matchcode_2 UNIQUE (matchcode)
);
INSERT INTO customer (no, company, matchcode, name, vat)
    SELECT g, chr(65 + g % 4) || 'CO', 'MATCH' || g, 'Customer ' || g, 'DE' || g
    FROM generate_series(1, 100) g;

CREATE TABLE supplier (
    no integer PRIMARY KEY DEFAULT nextval('global_id'), company char(3) REFERENCES company,
    matchcode varchar(20) NOT NULL CONSTRAINT supplier_matchcode UNIQUE, name varchar(80)
);
INSERT INTO supplier (no, company, matchcode, name)
    SELECT g, chr(65 + g % 4) || 'CO', 'SUP' || g, 'Supplier ' || g FROM generate_series(1, 40) g;

CREATE TABLE material (
    material varchar(18) PRIMARY KEY, ean char(13), text_de varchar(80), group_no integer, weight numeric,
    created date DEFAULT '0001-01-01 BC', CONSTRAINT material_ean UNIQUE (ean)
);
INSERT INTO material (material, ean, text_de, group_no, weight)
    SELECT 'M' || g, '4' || lpad(g::text, 12, '0'), 'Stück ' || g, g % 5, 'NaN'
    FROM generate_series(1, 120) g;

CREATE TABLE material_plant (
    material varchar(18) NOT NULL REFERENCES material, company char(3) NOT NULL, plant char(4) NOT NULL,
    stock numeric(15, 3), PRIMARY KEY (material, company, plant),
    FOREIGN KEY (company, plant) REFERENCES plant
);
INSERT INTO material_plant
    SELECT 'M' || g, chr(65 + g % 4) || 'CO', 'P' || lpad((CASE WHEN g % 12 = 0 THEN 12 ELSE g % 12 END)::text, 3, '0'), g
    FROM generate_series(1, 100) g;

CREATE TABLE document (
    company char(3) NOT NULL REFERENCES company, fiscal_year smallint NOT NULL, doc_no integer NOT NULL,
    posted timestamptz DEFAULT 'infinity', text varchar(50), PRIMARY KEY (company, fiscal_year, doc_no)
);
INSERT INTO document
    SELECT chr(65 + g % 4) || 'CO', 2026, g, now(), 'posting' FROM generate_series(1, 150) g;

CREATE TABLE document_line (
    company char(3) NOT NULL, fiscal_year smallint NOT NULL, doc_no integer NOT NULL,
    line integer NOT NULL, account varchar(10), customer_no integer REFERENCES customer,
    supplier_no integer REFERENCES supplier, amount numeric(15, 2),
    PRIMARY KEY (company, fiscal_year, doc_no, line),
    FOREIGN KEY (company, fiscal_year, doc_no) REFERENCES document
);
INSERT INTO document_line
    SELECT chr(65 + g % 4) || 'CO', 2026, g, 1, 'ACC', 1 + g % 100, 1 + g % 40, g
    FROM generate_series(1, 150) g;

-- Heirs: what PostgreSQL 7 offered for archives.  One heir has more columns, one is in another schema.
CREATE TABLE movement (
    id integer NOT NULL DEFAULT nextval('global_id'), material varchar(18),
    at timestamp NOT NULL DEFAULT now(), 
    qty numeric(13, 3), CHECK (qty <> 0)
);
CREATE TABLE movement_2024 (CHECK (at < '2025-01-01')) INHERITS (movement);
CREATE TABLE movement_2025 (archived_by name DEFAULT current_user) INHERITS (movement);
CREATE SCHEMA "Archive";
CREATE TABLE "Archive".movement_old (remark text) INHERITS (movement);
ALTER TABLE movement_2024 ADD PRIMARY KEY (id);
INSERT INTO movement (material, qty) SELECT 'M' || g, g FROM generate_series(1, 60) g;
INSERT INTO movement_2024 (material, at, qty)
    SELECT 'M' || g, '2024-05-05', g FROM generate_series(1, 40) g;
INSERT INTO movement_2025 (material, qty) SELECT 'M' || g, g FROM generate_series(1, 30) g;
INSERT INTO "Archive".movement_old (material, qty, remark)
    SELECT 'M' || g, g, repeat('r', 500) FROM generate_series(1, 20) g;
CREATE TABLE person (id integer PRIMARY KEY DEFAULT nextval('global_id'), name text NOT NULL, born date);
CREATE TABLE employee (badge integer UNIQUE, salary numeric) INHERITS (person);
CREATE TABLE driver (licence text) INHERITS (employee);
INSERT INTO person (name, born) SELECT 'Person ' || g, 'infinity' FROM generate_series(1, 10) g;
INSERT INTO employee (name, badge, salary) SELECT 'Employee ' || g, g, g FROM generate_series(1, 20) g;
INSERT INTO driver (name, badge, licence) SELECT 'Driver ' || g, 100 + g, 'B' FROM generate_series(1, 5) g;

CREATE TABLE a_name_of_sixty_three_bytes_as_the_generator_of_1999_made_them_ (
    id serial PRIMARY KEY,
    column_of_sixty_three_bytes_as_the_generator_of_1999_made_them_ varchar(30) NOT NULL,
    UNIQUE (column_of_sixty_three_bytes_as_the_generator_of_1999_made_them_)
);
INSERT INTO a_name_of_sixty_three_bytes_as_the_generator_of_1999_made_them_
    (column_of_sixty_three_bytes_as_the_generator_of_1999_made_them_)
    SELECT 'v' || g FROM generate_series(1, 10) g;
CREATE TABLE "says ""so""" ("it's" integer PRIMARY KEY, "100 %s" text, "a$b$c" text UNIQUE);
INSERT INTO "says ""so""" SELECT g, '%s', '$1' || g FROM generate_series(1, 10) g;
CREATE TABLE "Größe_заказ" ("Länge" numeric, "größe" integer PRIMARY KEY);
INSERT INTO "Größe_заказ" SELECT g, g FROM generate_series(1, 10) g;
CREATE TABLE "user" ("order" integer PRIMARY KEY, "select" text, "table" text);
INSERT INTO "user" SELECT g, 'x', 'y' FROM generate_series(1, 10) g;
CREATE TABLE "tab	in it" (id integer, "back\slash" text);
INSERT INTO "tab	in it" SELECT g, '\' FROM generate_series(1, 5) g;
CREATE TABLE no_key (a integer, b text);
INSERT INTO no_key SELECT g % 5, 'twice' FROM generate_series(1, 40) g;
CREATE TABLE no_column ();
CREATE TABLE empty_table (id integer PRIMARY KEY, code text UNIQUE);

-- A row that fills its page, keys as long as an index takes them, and 1,500 columns that were dropped.
DO $$ BEGIN EXECUTE (SELECT 'CREATE TABLE wide (id bigint PRIMARY KEY, ' || string_agg('c' || g || ' bigint DEFAULT 1', ', ') || ')'
                     FROM generate_series(1, 900) g); END $$;
INSERT INTO wide (id) SELECT g FROM generate_series(1, 5) g;
CREATE TABLE path_index (id integer PRIMARY KEY, path text NOT NULL CONSTRAINT path_index_path UNIQUE);
INSERT INTO path_index
    SELECT g, (SELECT string_agg(md5(g || '/' || i), '') FROM generate_series(1, 80) i)
    FROM generate_series(1, 10) g;
CREATE TABLE rebuilt (id integer PRIMARY KEY, code text);
DO $$ BEGIN FOR i IN 1..1500 LOOP EXECUTE 'ALTER TABLE rebuilt ADD COLUMN x int'; EXECUTE 'ALTER TABLE rebuilt DROP COLUMN x'; END LOOP; END $$;
INSERT INTO rebuilt SELECT g, 'c' || g FROM generate_series(1, 20) g;
ALTER TABLE customer DROP COLUMN old_field1, DROP COLUMN old_field2;

CREATE TABLE price_list (
    list char(2) NOT NULL, material varchar(18) NOT NULL, valid_from date NOT NULL DEFAULT '-infinity',
    valid_to date DEFAULT 'infinity', price numeric(11, 4), PRIMARY KEY (list, material, valid_from)
);
INSERT INTO price_list
    SELECT 'A' || g % 3, 'M' || g, '-infinity', 'infinity', g FROM generate_series(1, 60) g;

CREATE TABLE contact_person (
    customer_no integer NOT NULL REFERENCES customer, seq smallint NOT NULL, name varchar(60),
    mail varchar(120), PRIMARY KEY (customer_no, seq)
);
INSERT INTO contact_person SELECT g, 1, 'Name', 'm' || g || '@x' FROM generate_series(1, 80) g;

CREATE TABLE offer (
    no integer PRIMARY KEY DEFAULT nextval('global_id'), customer_no integer NOT NULL REFERENCES customer,
    rep_no integer, valid_to date, state char(1)
);
INSERT INTO offer (customer_no, rep_no, state)
    SELECT 1 + g % 100, 1 + g % 8, 'O' FROM generate_series(1, 60) g;

CREATE TABLE sales_rep (
    no integer PRIMARY KEY, company char(3) REFERENCES company,
    initials char(3) NOT NULL CONSTRAINT sales_rep_initials UNIQUE DEFERRABLE INITIALLY IMMEDIATE
);
INSERT INTO sales_rep SELECT g, chr(65 + g % 4) || 'CO', 'R' || g FROM generate_series(1, 8) g;

CREATE TABLE invoice (
    no integer PRIMARY KEY DEFAULT nextval('global_id'), customer_no integer NOT NULL REFERENCES customer,
    rep_no integer REFERENCES sales_rep, printed varchar(15) CONSTRAINT invoice_printed UNIQUE,
    total numeric(15, 2)
);
INSERT INTO invoice (customer_no, rep_no, printed, total)
    SELECT 1 + g % 100, 1 + (g * 3) % 8, 'RE' || g, g FROM generate_series(1, 120) g;

CREATE TABLE invoice_pos (
    invoice_no integer NOT NULL, pos smallint NOT NULL, material varchar(18) REFERENCES material,
    qty numeric, PRIMARY KEY (invoice_no, pos)
);
INSERT INTO invoice_pos SELECT g, 1, 'M' || (1 + g % 100), g FROM generate_series(1, 120) g;

CREATE TABLE payment (
    id integer PRIMARY KEY DEFAULT nextval('global_id'), ref_type char(1) NOT NULL,
    ref_id integer NOT NULL, amount money
);
INSERT INTO payment (ref_type, ref_id, amount) SELECT 'I', g, g::money FROM generate_series(1, 50) g;

CREATE TABLE dunning (
    customer_no integer REFERENCES customer, level smallint, at date
);
INSERT INTO dunning SELECT g, g % 3, date '2026-01-01' + g FROM generate_series(1, 40) g;

CREATE TABLE bank (
    bic char(11) PRIMARY KEY, name varchar(80)
);
INSERT INTO bank SELECT 'BANK' || lpad(g::text, 7, '0'), 'Bank ' || g FROM generate_series(1, 20) g;

CREATE TABLE bank_account (
    iban varchar(34) PRIMARY KEY, bic char(11) REFERENCES bank, customer_no integer REFERENCES customer
);
INSERT INTO bank_account
    SELECT 'DE' || lpad(g::text, 20, '0'), 'BANK' || lpad((1 + g % 20)::text, 7, '0'), 1 + g % 100
    FROM generate_series(1, 60) g;

CREATE TABLE currency (
    code char(3) PRIMARY KEY, rate double precision
);
INSERT INTO currency SELECT 'C' || lpad(g::text, 2, '0'), 1.0 / g FROM generate_series(1, 20) g;

CREATE TABLE exchange_rate (
    code char(3) NOT NULL REFERENCES currency, day date NOT NULL, rate numeric, PRIMARY KEY (code, day)
);
INSERT INTO exchange_rate
    SELECT 'C' || lpad((1 + g % 20)::text, 2, '0'), date '2026-01-01' + g, 1 FROM generate_series(1, 60) g;

CREATE TABLE cost_centre (
    code "Cost Centre" PRIMARY KEY, name varchar(40), parent "Cost Centre" REFERENCES cost_centre
);
INSERT INTO cost_centre (code, name) SELECT 'CC' || g, 'Centre' FROM generate_series(1, 20) g;

CREATE TABLE booking_text (
    lang char(2) NOT NULL, no smallint NOT NULL, text varchar(50) COLLATE posix_order,
    PRIMARY KEY (lang, no)
);
INSERT INTO booking_text SELECT 'de', g, 'Text ' || g FROM generate_series(1, 20) g;

CREATE TABLE tax_code (
    code char(2) PRIMARY KEY, percent numeric(5, 2)
);
INSERT INTO tax_code SELECT 'T' || g, g FROM generate_series(1, 9) g;

CREATE TABLE warehouse_bin (
    plant char(4) NOT NULL, bin varchar(10) NOT NULL, occupied int4range, PRIMARY KEY (plant, bin),
    EXCLUDE USING gist (plant WITH =, occupied WITH &&)
);
INSERT INTO warehouse_bin
    SELECT 'P001', 'B' || g, int4range(g * 10, g * 10 + 5) FROM generate_series(1, 40) g;

CREATE TABLE production_order (
    no integer PRIMARY KEY DEFAULT nextval('global_id'), material varchar(18) REFERENCES material,
    planned tsrange
);
INSERT INTO production_order (material, planned)
    SELECT 'M' || g, tsrange('2026-01-01', 'infinity') FROM generate_series(1, 30) g;

CREATE TABLE production_step (
    order_no integer NOT NULL, step smallint NOT NULL, machine varchar(10), minutes interval,
    PRIMARY KEY (order_no, step)
);
INSERT INTO production_step SELECT g, 1, 'MC', interval '178000000 years' FROM generate_series(1, 20) g;

CREATE TABLE machine (
    code varchar(10) PRIMARY KEY, hours numeric, photo bytea
);
INSERT INTO machine SELECT 'MC' || g, g, decode(md5(g::text), 'hex') FROM generate_series(1, 10) g;

CREATE TABLE calendar (
    day date PRIMARY KEY, working yes_no
);
INSERT INTO calendar (day) SELECT date '2026-01-01' + g FROM generate_series(1, 60) g;

CREATE TABLE parameter (
    section varchar(20) NOT NULL, name varchar(20) NOT NULL, value text, UNIQUE (section, name)
);
INSERT INTO parameter SELECT 's' || g % 4, 'n' || g, 'v' FROM generate_series(1, 40) g;

CREATE TABLE print_queue (
    id integer DEFAULT nextval('global_id'), at timestamp DEFAULT now(), payload text
);
INSERT INTO print_queue (payload) SELECT repeat('p', 300) FROM generate_series(1, 40) g;

CREATE TABLE lock_table (
    object varchar(40) PRIMARY KEY, holder name
);
INSERT INTO lock_table SELECT 'o' || g, 'postgres' FROM generate_series(1, 5) g;

CREATE TABLE change_log (
    id bigserial PRIMARY KEY, table_name name NOT NULL, key_value text, changed timestamptz
);
INSERT INTO change_log (table_name, key_value) SELECT 'customer', g::text FROM generate_series(1, 100) g;

CREATE TABLE edi_message (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, partner varchar(20), ref varchar(35) NOT NULL,
    body xml, CONSTRAINT edi_message_ref UNIQUE (partner, ref)
);
INSERT INTO edi_message (partner, ref) SELECT 'P' || g % 3, 'REF' || g FROM generate_series(1, 60) g;

CREATE TABLE shipment (
    no integer PRIMARY KEY DEFAULT nextval('global_id'), "Order No" integer REFERENCES "Order Header",
    customer_no integer REFERENCES customer
);
INSERT INTO shipment (customer_no) SELECT 1 + g % 100 FROM generate_series(1, 40) g;

CREATE TABLE complaint (
    no serial PRIMARY KEY, customer_no integer NOT NULL REFERENCES customer,
    invoice_no integer REFERENCES invoice, text text
);
INSERT INTO complaint (customer_no, text) SELECT 1 + g % 100, 'broken' FROM generate_series(1, 30) g;

CREATE TABLE note (
    id serial PRIMARY KEY, object_type varchar(20) NOT NULL, object_id integer NOT NULL, text text
);
INSERT INTO note (object_type, object_id, text) SELECT 'customer', g, 'note' FROM generate_series(1, 50) g;

CREATE TABLE stat_month (
    month char(7) NOT NULL, customer_no integer NOT NULL REFERENCES customer, revenue numeric,
    share numeric GENERATED ALWAYS AS (revenue / 1000) STORED, PRIMARY KEY (month, customer_no)
);
INSERT INTO stat_month (month, customer_no, revenue) SELECT '2026-01', g, g FROM generate_series(1, 80) g;

-- Invoices of one company for customers of another: parents that disagree.
UPDATE invoice SET rep_no = 1 WHERE customer_no % 2 = 0;
ALTER TABLE invoice ADD FOREIGN KEY (customer_no) REFERENCES customer ON DELETE CASCADE;  -- a second one, the same
CREATE UNIQUE INDEX customer_matchcode_folded ON customer (upper(matchcode));
CREATE UNIQUE INDEX customer_vat_given ON customer (vat bpchar_pattern_ops) WHERE vat IS NOT NULL;
CREATE UNIQUE INDEX supplier_name_sorted ON supplier (name COLLATE "POSIX" DESC NULLS LAST) INCLUDE (no);
CREATE INDEX customer_company ON customer (company) WITH (fillfactor = 70);
CREATE UNIQUE INDEX document_text ON document (company, (fiscal_year + 0), doc_no);
CREATE STATISTICS customer_stat (ndistinct) ON company, vat FROM customer;
ALTER TABLE customer ADD CONSTRAINT customer_name_given CHECK (name <> '') NOT VALID;
ALTER TABLE customer CLUSTER ON customer_pkey;
ALTER TABLE print_queue SET UNLOGGED;
ALTER TABLE print_queue SET (autovacuum_enabled = off, fillfactor = 50);
ALTER TABLE note REPLICA IDENTITY FULL;
COMMENT ON TABLE customer IS 'KNA1; "matchcode" is what people search by';
COMMENT ON COLUMN customer.vat IS E'VAT number\nwith its country';
CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON change_log FOR EACH ROW EXECUTE FUNCTION stamp();
CREATE FUNCTION refuse_deletes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'a posted document stays'; END $$;
CREATE TRIGGER stays BEFORE DELETE ON document FOR EACH ROW EXECUTE FUNCTION refuse_deletes();
CREATE FUNCTION next_customer(wanted varchar) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE made integer;
BEGIN
    EXECUTE 'INSERT INTO customer (matchcode, name) VALUES ($1, $1) ON CONFLICT ON CONSTRAINT customer_matchcode DO NOTHING'
        USING wanted;
    SELECT no INTO made FROM customer WHERE matchcode = wanted; RETURN made;
END $$;
CREATE FUNCTION next_supplier(wanted varchar) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO supplier (matchcode) VALUES (wanted) ON CONFLICT ON CONSTRAINT supplier_matchcode DO NOTHING;
END;
CREATE FUNCTION keep_all() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO "Archive".invoice_kept SELECT NEW.*; RETURN NULL; END $$;
CREATE TABLE "Archive".invoice_kept (LIKE invoice);
CREATE TRIGGER keep AFTER UPDATE ON invoice FOR EACH ROW WHEN (OLD.total IS DISTINCT FROM NEW.total) EXECUTE FUNCTION keep_all();
CREATE VIEW "Open Orders" AS SELECT "Order No", company FROM "Order Header";
CREATE RULE put_order AS ON INSERT TO "Open Orders" DO INSTEAD
    INSERT INTO "Order Header" (company) VALUES (NEW.company);
CREATE VIEW all_customers AS SELECT * FROM customer;
CREATE MATERIALIZED VIEW revenue AS
    SELECT customer_no, sum(total) AS total FROM invoice GROUP BY customer_no;
CREATE RULE no_lock_delete AS ON DELETE TO lock_table WHERE old.holder = 'root' DO INSTEAD NOTHING;
ALTER TABLE "user" ENABLE ROW LEVEL SECURITY;
CREATE POLICY "any one" ON "user" USING (true);
GRANT SELECT ON ALL TABLES IN SCHEMA public TO om_role_report;
GRANT INSERT (matchcode, name), UPDATE (name) ON customer TO om_role_agent;
CREATE PUBLICATION om_erp FOR ALL TABLES WITH (publish = 'insert');
ALTER TABLE change_log SET TABLESPACE om_role_space_erp;
ANALYZE;
