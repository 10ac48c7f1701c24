"""The one training loop, its schedules, and what training costs."""
