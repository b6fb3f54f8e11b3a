"""Files that a provider made, into storage: downloaded, checked, with where they come from beside them."""
