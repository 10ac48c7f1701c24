"""From results.h5 to tables, figures and one page."""
