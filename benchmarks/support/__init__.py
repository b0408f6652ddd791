"""What benchmarks of deliveries share with the tests: a receiver, alerts made in code, a clock, a loop to kill."""
