"""The acoustic model: waveform -> features -> encoder -> log-probabilities over phones."""
