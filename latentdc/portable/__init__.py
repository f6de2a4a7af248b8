"""Classes a bundle carries with it: each file stands alone on torch, diffusers and the standard library."""
