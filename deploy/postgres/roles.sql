-- Run once, by the superuser, when the volume is empty (psql, so that passwords come from the environment unquoted).
-- awry owns its database and is no superuser; Grafana reads and cannot write.
\getenv awry_password DATABASE_PASSWORD
\getenv grafana_password GRAFANA_DATABASE_PASSWORD

CREATE ROLE awry LOGIN PASSWORD :'awry_password';
CREATE DATABASE awry OWNER awry;
REVOKE CONNECT, TEMPORARY ON DATABASE awry FROM PUBLIC;

-- pg_read_all_data covers the partitions of days to come.
CREATE ROLE awry_grafana LOGIN PASSWORD :'grafana_password' IN ROLE pg_read_all_data CONNECTION LIMIT 20;
GRANT CONNECT ON DATABASE awry TO awry_grafana;
ALTER ROLE awry_grafana SET default_transaction_read_only = on;
ALTER ROLE awry_grafana SET statement_timeout = '30s';
