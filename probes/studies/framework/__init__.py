"""What every study shares: verdicts and margins, the RESULT.json envelope, coherence, controls, exported probes."""
