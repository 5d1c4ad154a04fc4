-- The small database on which the examples of these pages run: a shop with customers and orders.
CREATE TABLE shops (
    id serial PRIMARY KEY,
    slug text NOT NULL UNIQUE,
    name text NOT NULL
);
CREATE TABLE customers (
    id serial PRIMARY KEY,
    email text NOT NULL UNIQUE
);
CREATE TABLE orders (
    id serial PRIMARY KEY,
    customer_id integer NOT NULL REFERENCES customers (id) ON DELETE CASCADE,
    amount integer NOT NULL
);
CREATE TABLE events (
    id bigint NOT NULL,
    what text
);
CREATE INDEX idx_orders_customer ON orders (customer_id);
INSERT INTO shops (slug, name) VALUES ('main', 'The main shop');
INSERT INTO customers (email) SELECT 'customer' || n || '@example.org' FROM generate_series(1, 500) AS n;
INSERT INTO orders (customer_id, amount) SELECT 1 + n % 500, n FROM generate_series(1, 3000) AS n;
INSERT INTO events SELECT n, 'seen' FROM generate_series(1, 500) AS n;
ANALYZE;
