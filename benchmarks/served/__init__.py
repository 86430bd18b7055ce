"""What the service is compared with: the same bundle behind the usual servers, and the requests that all are sent."""
