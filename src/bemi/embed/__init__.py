"""What customers of an application see of its history, in the application's own pages."""
