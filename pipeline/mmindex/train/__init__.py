"""Contrastive training and fine-tuning of open_clip models; the result is a model folder."""
