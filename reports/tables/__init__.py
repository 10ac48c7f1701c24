"""One table per file: ORDER, TITLE, CAPTION, ABSENT, COLUMNS, build(results)."""
