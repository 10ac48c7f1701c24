"""Built-in tasks, one TOML file each: model + data set + training recipe."""
