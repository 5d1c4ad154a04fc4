"""A run as text: live table, status line, log lines, and the summary of lock windows at the end."""
