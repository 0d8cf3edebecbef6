"""Using trained models: describing, storing, loading, predicting and exporting them."""
