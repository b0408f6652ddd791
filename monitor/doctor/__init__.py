"""What `awry doctor` looks at: one check a function, each in the module of what it asks."""
