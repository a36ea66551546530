"""`make demo`: two models on encrypted data, from training to decrypted predictions."""
