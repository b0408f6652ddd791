"""`awry study`: the three papers on a model and data of your own, each with its controls; one file a study."""
