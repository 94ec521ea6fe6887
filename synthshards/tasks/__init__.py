"""One task, one file or folder: parameters, kernel, checker, decoder and presets. `synthshards.catalog` lists them."""
