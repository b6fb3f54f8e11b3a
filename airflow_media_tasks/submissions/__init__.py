"""What is paid, once: the record of a submission, what becomes of it, and what it costs."""
