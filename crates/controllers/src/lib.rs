//! What makes an API server a control plane: namespaces, garbage collection, default accounts.
