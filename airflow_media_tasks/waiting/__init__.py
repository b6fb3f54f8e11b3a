"""How a task is waited for: one poller for each connection, and what every trigger is."""
