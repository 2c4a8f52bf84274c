"""What stands between a notebook and its profile: parameters, recipes, the pipeline, tuning, the tables of the README."""
