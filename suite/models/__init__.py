"""One architecture per file: VERSION, Options and build(options, input_shape, num_classes)."""
