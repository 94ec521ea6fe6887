"""Which row comes when: shuffling, mixing, and the state that a stream resumes from."""
