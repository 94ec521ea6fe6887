"""One task, one file: parameters, kernel, checker, decoder and presets. `synthshards.catalog` lists them."""
