"""What is trained on frozen features to ask them something: linear probes, logistic regression, dense views."""
