"""PostgreSQL: schema and migrations, the one writer, queries, partitions and retention, the embedded server.

Imports the leaves of `awry` (errors, moved) and no other package.
"""

from awry import moved

moved.install()
