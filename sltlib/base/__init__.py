"""Where everything lies, how files are written, how progress is shown, and what machine this is. Imports no other part."""
