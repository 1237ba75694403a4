"""One run over the dates of a series: from probabilities to change maps, tables and polygons."""
