"""Live views: what the explorer and the training board draw with, from whatever model a reader flies through."""
