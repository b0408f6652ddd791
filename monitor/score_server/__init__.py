"""`awry score-server`: scores what is sent to it, and answers with the verdict."""
