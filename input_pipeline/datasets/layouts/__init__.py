"""Where each data set keeps its files: one module for each kind of layout.

A layout is a function `(root, split) -> Listing | None`; None says that the folder is not laid out so.
`input_pipeline.datasets.find_videos` tries the processed layout first and then those of the data set.
"""
