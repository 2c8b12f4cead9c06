"""Real public models, each built by its own package's code: which exporter gets which of them right."""
