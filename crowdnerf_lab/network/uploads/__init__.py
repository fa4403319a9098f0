"""What UEs send: resumable uploads, and what becomes of each contribution."""
