"""A provider's wire protocol: how it is written down as tables, and what speaks it over HTTP."""
