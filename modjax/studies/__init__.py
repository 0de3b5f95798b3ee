"""What takes many steps and leaves a folder: Python functions of models, tasks, libraries and a folder."""
