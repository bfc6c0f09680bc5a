"""Who may what here, and who did what: each page of the settings is a module."""
