"""PostgreSQL: schema, migrations, the one writer, queries, the embedded server. Imports no other part of awry."""
