"""The page that shows tables and figures."""
