"""Images of patients -> records of a study: lists and folders, readers of formats, the data contract, a cache."""
