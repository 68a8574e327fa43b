//! Secrets at rest and the E4 channel: what a gateway, the cloud and the command need from files and TLS.
