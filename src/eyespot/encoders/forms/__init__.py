"""Networks in another form: training-time branches, and the fused form that runs on a device."""
