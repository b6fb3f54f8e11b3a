"""Files, by their bytes: what one is, whether it decodes, and how one of your own reaches a provider."""
