"""PostgreSQL: schema and migrations, the one writer, queries, partitions and retention, the embedded server.

Imports no other part of awry.
"""

from awry import moved

moved.install()
