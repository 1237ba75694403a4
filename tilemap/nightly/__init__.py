"""Every night: what is new is found, mapped once, published whole, and told."""
