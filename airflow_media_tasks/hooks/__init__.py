"""`base`, and one module per provider; nothing outside this folder imports any but `base`."""
