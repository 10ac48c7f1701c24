"""One figure per file: ORDER, TITLE, CAPTION, ABSENT, chart(results, task)."""
