"""A run as text: the live table and the status line, log lines, and the summary of lock windows at the end."""
