-- Run once, by the superuser, when the volume is empty (psql, so that passwords come from the environment unquoted).
-- awry owns its database and is no superuser; Grafana reads and cannot write.
\getenv awry_password DATABASE_PASSWORD
\getenv grafana_password GRAFANA_DATABASE_PASSWORD

CREATE ROLE awry LOGIN PASSWORD :'awry_password';
CREATE DATABASE awry OWNER awry;
REVOKE CONNECT, TEMPORARY ON DATABASE awry FROM PUBLIC;

-- The migrations grant the tables that dashboards read to awry_reader, partitions of days to come among them.
SELECT 'CREATE ROLE awry_reader NOLOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'awry_reader') \gexec
CREATE ROLE awry_grafana LOGIN PASSWORD :'grafana_password' IN ROLE awry_reader CONNECTION LIMIT 20;
GRANT CONNECT ON DATABASE awry TO awry_grafana;
ALTER ROLE awry_grafana SET default_transaction_read_only = on;
ALTER ROLE awry_grafana SET statement_timeout = '30s';
-- Panels ask short questions over many partitions: compiling them would take longer than answering.
ALTER ROLE awry_grafana SET jit = off;
