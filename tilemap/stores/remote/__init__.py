"""Everything that goes through the network: scenes over HTTP and S3, stores and products on S3."""
