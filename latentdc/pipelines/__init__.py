"""The two Hugging Face faces: condense a data set, and synthesise images from a bundle."""
