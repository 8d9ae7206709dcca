"""Files and frames in, arrays out: video reading, optical flow, synthetic data, loaders."""
