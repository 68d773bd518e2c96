"""The guided tour: six chapters, a marimo app (`app.py`) over plain PyTorch functions, one file a chapter."""
