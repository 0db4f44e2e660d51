"""Results on one page that works offline: before/after grid, numbers, curves and heat-maps.

Everything takes finished results and arrays; only the heat-maps run a model.
"""
