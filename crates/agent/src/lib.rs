//! ManagedServiceAccount on the cluster side: decide, request, project, rotate.
