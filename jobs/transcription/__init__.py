"""Reading in production: inputs cut into chunks, predictions of each, results merged, tables and PAGE XML written."""
