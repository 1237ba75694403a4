"""A model to another form, through the parity gate, on real pixels; and what the form is worth."""
