"""Commands that make and measure probes: models, adapters, data, fitting, calibration, studies."""
