-- Run once, by the superuser, when the volume is empty (psql, so that passwords come from the environment unquoted).
-- awry owns its database and is no superuser; Grafana reads and cannot write.
\getenv awry_password DATABASE_PASSWORD
\getenv grafana_password GRAFANA_DATABASE_PASSWORD

CREATE ROLE awry LOGIN PASSWORD :'awry_password';
CREATE DATABASE awry OWNER awry;
REVOKE CONNECT, TEMPORARY ON DATABASE awry FROM PUBLIC;

-- The migrations grant the tables that dashboards read to awry_reader, partitions of days to come among them.
SELECT 'CREATE ROLE awry_reader NOLOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'awry_reader') \gexec
-- What tokens of one tenant are held to by row-level security (docs/access.md); awry becomes it for a transaction, and
-- must not inherit from it.
SELECT 'CREATE ROLE awry_tenant NOLOGIN NOINHERIT' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'awry_tenant') \gexec
GRANT awry_tenant TO awry WITH INHERIT FALSE, SET TRUE;
CREATE ROLE awry_grafana LOGIN PASSWORD :'grafana_password' IN ROLE awry_reader CONNECTION LIMIT 20;
GRANT CONNECT ON DATABASE awry TO awry_grafana;
ALTER ROLE awry_grafana SET default_transaction_read_only = on;
ALTER ROLE awry_grafana SET statement_timeout = '30s';
-- Panels ask short questions over many partitions: compiling them would take longer than answering.
ALTER ROLE awry_grafana SET jit = off;
-- A role may change its own settings: those above are defaults. What follows are limits. Only a superuser sets this one:
ALTER ROLE awry_grafana SET temp_file_limit = '1GB';
-- and only a superuser takes away what everybody may do: large objects fill the disk, and advisory locks (awry takes
-- none) the server's table of locks.
\connect awry
DO $$ DECLARE found regprocedure; BEGIN
    FOR found IN SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace
        AND (proname ~ '^pg_(try_)?advisory_(xact_)?lock' OR proname IN ('lo_creat', 'lo_create', 'lo_from_bytea')) LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', found);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO awry', found);
    END LOOP;
END $$;
