"""Trained models at work: what is written of them, read back, predicted with, and handed to others."""
