//! Authentication: *who asks?* Client certificates, bearer tokens, service-account tokens.
