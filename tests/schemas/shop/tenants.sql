CREATE TABLE tenants (
    id serial PRIMARY KEY,
    slug varchar(40) NOT NULL UNIQUE,
    name varchar(100) NOT NULL
);
