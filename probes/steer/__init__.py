"""Interventions while a model generates: steering, recipes, generation, coherence."""
