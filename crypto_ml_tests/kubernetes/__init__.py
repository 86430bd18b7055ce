"""deploy/kubernetes/: what its manifests say, what the launcher asks of a cluster, and everything run by podman."""
