"""One module per protocol: how an encoder is measured, as published and with its deviations said."""
